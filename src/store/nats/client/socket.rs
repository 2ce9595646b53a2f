//! Non-blocking sockets, and `poll(2)` with a deadline.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Idle time before the system probes a connection, and the time between probes. The PINGs of the
/// connection detect a dead peer sooner. This covers a suspended process.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Ends a wait in [`poll`] from any thread.
#[derive(Debug)]
pub struct Waker(UnixStream);

/// The end that is waited on.
#[derive(Debug)]
pub struct Wake(UnixStream);

/// A wake-up channel.
///
/// # Errors
/// The process has no file descriptors left.
pub fn wake_pair() -> io::Result<(Waker, Wake)> {
    let (sender, receiver) = UnixStream::pair()?;
    sender.set_nonblocking(true)?;
    receiver.set_nonblocking(true)?;
    Ok((Waker(sender), Wake(receiver)))
}

impl Waker {
    pub fn wake(&self) {
        // A full pipe wakes the reader, too.
        let _ = (&self.0).write(&[1]);
    }
}

impl Wake {
    /// Discards the pending wake-ups.
    pub fn clear(&self) {
        let mut bytes = [0; 64];
        while matches!((&self.0).read(&mut bytes), Ok(count) if count == bytes.len()) {}
    }

    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A descriptor to wait for. An error or hang-up makes it readable and writable.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    pub fd: RawFd,
    pub wants_read: bool,
    pub wants_write: bool,
    pub is_readable: bool,
    pub is_writable: bool,
}

impl Watched {
    pub fn new(fd: RawFd, wants_read: bool, wants_write: bool) -> Self {
        Self {
            fd,
            wants_read,
            wants_write,
            is_readable: false,
            is_writable: false,
        }
    }
}

/// Blocks until one of the descriptors is ready, or until `until`. May return early.
///
/// # Errors
/// An error of the system call, which callers cannot handle.
pub fn poll<const N: usize>(watched: &mut [Watched; N], until: Instant) -> io::Result<()> {
    let events = |watched: &Watched| {
        let mut events = 0;
        if watched.wants_read {
            events |= libc::POLLIN;
        }
        if watched.wants_write {
            events |= libc::POLLOUT;
        }
        events
    };
    let mut fds = watched.map(|watched| libc::pollfd {
        fd: watched.fd,
        events: events(&watched),
        revents: 0,
    });
    let left = until.saturating_duration_since(Instant::now());
    // Rounded up, to avoid a busy loop in the last millisecond.
    let millis = left.as_micros().div_ceil(1_000);
    let timeout = libc::c_int::try_from(millis).unwrap_or(libc::c_int::MAX);
    let count = libc::nfds_t::try_from(N).unwrap_or(libc::nfds_t::MAX);
    // SAFETY: `fds` is an array of N initialised entries that lives until the call returns; the
    // system writes to their `revents` only.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), count, timeout) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::Interrupted => Ok(()),
            _ => Err(error),
        };
    }
    for (watched, fd) in watched.iter_mut().zip(fds) {
        let failed = fd.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0;
        watched.is_readable = failed || fd.revents & libc::POLLIN != 0;
        watched.is_writable = failed || fd.revents & libc::POLLOUT != 0;
    }
    Ok(())
}

/// Starts to connect. The socket becomes writable when the connect has succeeded or failed.
///
/// # Errors
/// The connect failed immediately.
pub fn begin_connect(address: SocketAddr, user_timeout: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE);
    #[cfg(any(target_os = "linux", target_os = "macos", target_os = "freebsd"))]
    let keepalive = keepalive.with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(user_timeout))?;
    #[cfg(not(target_os = "linux"))]
    let _ = user_timeout;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

/// Returns the result of the connect after the socket has become writable.
///
/// # Errors
/// Why the connect failed.
pub fn end_connect(stream: &TcpStream) -> io::Result<()> {
    match SockRef::from(stream).take_error()? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn wait_ends_by_a_wake_up_and_only_once() {
        let (waker, wake) = wake_pair().unwrap();
        let mut watched = [Watched::new(wake.fd(), true, false)];
        poll(&mut watched, Instant::now()).unwrap();
        assert!(!watched[0].is_readable);
        for _ in 0..100_000 {
            waker.wake();
        }
        poll(&mut watched, Instant::now() + Duration::from_secs(60)).unwrap();
        assert!(watched[0].is_readable);
        wake.clear();
        poll(&mut watched, Instant::now()).unwrap();
        assert!(!watched[0].is_readable);
    }

    #[test]
    fn refused_connect_reports_its_reason() {
        let closed = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let error = begin_connect(closed, Duration::from_secs(1)).and_then(|stream| {
            let mut watched = [Watched::new(stream.as_raw_fd(), false, true)];
            poll(&mut watched, Instant::now() + Duration::from_secs(60))?;
            end_connect(&stream)
        });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
