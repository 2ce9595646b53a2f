//! A TCP proxy that simulates network faults.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const STEP: Duration = Duration::from_millis(5);

/// The direction of bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
}

/// A proxy in front of one server. Dropping it joins its threads.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    target: SocketAddr,
    ended: AtomicBool,
    refusing: AtomicBool,
    /// Bytes are dropped; the connection stays.
    swallow: [AtomicBool; 2],
    /// Bytes are delayed; none is lost.
    hold: [AtomicBool; 2],
    delay_ms: AtomicU64,
    /// Bytes are forwarded one by one.
    in_single_bytes: AtomicBool,
    /// Connections of an earlier generation forward nothing and stay open.
    generation: AtomicU64,
    /// Bytes that may still pass to the client before the connection is cut. `u64::MAX`: all.
    client_budget: AtomicU64,
    connections: Mutex<Vec<(TcpStream, TcpStream)>>,
    pumps: Mutex<Vec<JoinHandle<()>>>,
}

impl Proxy {
    /// Starts a proxy on a free port to `port` of this host.
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket option");
        let shared = Arc::new(Shared {
            target: SocketAddr::from(([127, 0, 0, 1], port)),
            ended: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            swallow: Default::default(),
            hold: Default::default(),
            delay_ms: AtomicU64::new(0),
            in_single_bytes: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            client_budget: AtomicU64::new(u64::MAX),
            connections: Mutex::default(),
            pumps: Mutex::default(),
        });
        let port = listener.local_addr().expect("an address").port();
        let acceptor = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Self {
            port,
            shared,
            acceptor: Some(acceptor),
        }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Cuts every connection and refuses new ones until [`Proxy::heal`].
    pub fn cut(&self) {
        self.shared.refusing.store(true, Ordering::SeqCst);
        self.cut_once();
    }

    /// Cuts every connection, and accepts new ones.
    pub fn cut_once(&self) {
        for (client, server) in self.shared.connections.lock().unwrap().drain(..) {
            client.shutdown(Shutdown::Both).ok();
            server.shutdown(Shutdown::Both).ok();
        }
    }

    /// Closes one direction of every connection, as `shutdown(SHUT_WR)` of its sender does.
    pub fn half_close(&self, way: Way) {
        for (client, server) in self.shared.connections.lock().unwrap().iter() {
            let receiver = if way == Way::ToServer { server } else { client };
            receiver.shutdown(Shutdown::Write).ok();
        }
    }

    /// Drops the bytes of one direction; the connection stays.
    pub fn swallow(&self, way: Way) {
        self.shared.swallow[way as usize].store(true, Ordering::SeqCst);
    }

    /// Holds the bytes of one direction until [`Proxy::heal`].
    pub fn hold(&self, way: Way) {
        self.shared.hold[way as usize].store(true, Ordering::SeqCst);
    }

    /// Delays each piece of data by this time, in both directions.
    pub fn delay(&self, delay: Duration) {
        let millis = u64::try_from(delay.as_millis()).expect("a short delay");
        self.shared.delay_ms.store(millis, Ordering::SeqCst);
    }

    /// Freezes the current connections permanently: they stay open and forward nothing. New ones
    /// work.
    pub fn freeze(&self) {
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Forwards the bytes one by one, each in its own segment.
    pub fn single_bytes(&self) {
        self.shared.in_single_bytes.store(true, Ordering::SeqCst);
    }

    /// Forwards this many more bytes to clients, then cuts the connection.
    pub fn truncate_after(&self, bytes: u64) {
        self.shared.client_budget.store(bytes, Ordering::SeqCst);
    }

    /// Ends every fault.
    pub fn heal(&self) {
        let shared = &self.shared;
        for flag in shared
            .swallow
            .iter()
            .chain(&shared.hold)
            .chain([&shared.refusing])
        {
            flag.store(false, Ordering::SeqCst);
        }
        shared.delay_ms.store(0, Ordering::SeqCst);
        shared.client_budget.store(u64::MAX, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.cut_once();
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().ok();
        }
        self.cut_once();
        let pumps = std::mem::take(&mut *self.shared.pumps.lock().unwrap());
        for pump in pumps {
            pump.join().ok();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.ended.load(Ordering::SeqCst) {
        let Ok((client, _)) = listener.accept() else {
            std::thread::sleep(STEP);
            continue;
        };
        if shared.refusing.load(Ordering::SeqCst) {
            continue;
        }
        let Ok(server) = TcpStream::connect(shared.target) else {
            continue;
        };
        for stream in [&client, &server] {
            stream.set_nonblocking(false).ok();
            stream.set_nodelay(true).ok();
            stream.set_read_timeout(Some(STEP)).ok();
        }
        let pair = || Some((client.try_clone().ok()?, server.try_clone().ok()?));
        let (Some(a), Some(b), Some(c)) = (pair(), pair(), pair()) else {
            continue;
        };
        shared.connections.lock().unwrap().push(a);
        let mut pumps = shared.pumps.lock().unwrap();
        pumps.retain(|pump| !pump.is_finished());
        for (from, to, way) in [(b.0, b.1, Way::ToServer), (c.1, c.0, Way::ToClient)] {
            let shared = Arc::clone(shared);
            pumps.push(std::thread::spawn(move || pump(from, to, way, &shared)));
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, way: Way, shared: &Shared) {
    let mut buffer = [0; 16 * 1024];
    let generation = shared.generation.load(Ordering::SeqCst);
    while !shared.ended.load(Ordering::SeqCst) {
        if shared.generation.load(Ordering::SeqCst) != generation {
            // Discards the data, so that the end of the client is detected, as a real proxy does.
            match from.read(&mut buffer) {
                Ok(0) => break,
                Err(error) if !is_timeout(&error) => break,
                Ok(_) | Err(_) => std::thread::sleep(STEP),
            }
            continue;
        }
        if shared.hold[way as usize].load(Ordering::SeqCst) {
            std::thread::sleep(STEP);
            continue;
        }
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if is_timeout(&error) => continue,
            Err(_) => break,
        };
        if shared.swallow[way as usize].load(Ordering::SeqCst) {
            continue;
        }
        std::thread::sleep(Duration::from_millis(
            shared.delay_ms.load(Ordering::SeqCst),
        ));
        let passing = match way {
            Way::ToServer => count,
            Way::ToClient => spend(&shared.client_budget, count),
        };
        let size = match shared.in_single_bytes.load(Ordering::SeqCst) {
            true => 1,
            false => buffer.len(),
        };
        let mut pieces = buffer[..passing].chunks(size);
        if pieces.any(|piece| to.write_all(piece).is_err()) || passing < count {
            break;
        }
    }
    from.shutdown(Shutdown::Both).ok();
    to.shutdown(Shutdown::Both).ok();
}

/// Takes up to `count` from a budget. Returns how much was taken.
fn spend(budget: &AtomicU64, count: usize) -> usize {
    let before = budget
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            (left != u64::MAX).then(|| left.saturating_sub(count as u64))
        })
        .unwrap_or(u64::MAX);
    usize::try_from(before).unwrap_or(usize::MAX).min(count)
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
    )
}
