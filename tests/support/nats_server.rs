//! Real NATS servers: started on free ports with their own folders, subjected to every kind of
//! fault, and ended with the test, however it ends.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::nats_binary;

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Options of a server.
#[derive(Clone)]
pub struct Setup {
    version: String,
    jetstream: bool,
    domain: Option<String>,
    config: String,
    disk: Option<Arc<Disk>>,
    /// The parent of its folder.
    parent: PathBuf,
}

/// A running server. Dropping it kills it. The end of the test process kills it too.
pub struct Server {
    child: Option<Child>,
    folder: tempfile::TempDir,
    binary: PathBuf,
    disk: Option<Arc<Disk>>,
    pub port: u16,
    pub monitor: u16,
}

/// A JetStream cluster of three servers.
pub struct Cluster {
    pub nodes: Vec<Server>,
}

impl Setup {
    pub fn new(version: &str) -> Self {
        Self {
            version: version.to_owned(),
            jetstream: true,
            domain: None,
            config: String::new(),
            disk: None,
            parent: std::env::temp_dir(),
        }
    }

    /// Stores the files of the server in memory, where writes are fast.
    pub fn files_in_memory(mut self) -> Self {
        self.parent = "/dev/shm".into();
        self
    }

    /// Adds text to the configuration file.
    pub fn config(mut self, text: &str) -> Self {
        self.config.push_str(text);
        self.config.push('\n');
        self
    }

    /// Sets the JetStream domain.
    pub fn domain(mut self, name: &str) -> Self {
        self.domain = Some(name.to_owned());
        self
    }

    /// Runs the server on that file system.
    pub fn disk(mut self, disk: &Arc<Disk>) -> Self {
        self.disk = Some(Arc::clone(disk));
        self
    }

    pub fn without_jetstream(mut self) -> Self {
        self.jetstream = false;
        self
    }

    pub fn start(self) -> Server {
        // A port that is free now may be used a moment later.
        let mut log = String::new();
        for _ in 0..10 {
            match self.try_start() {
                Ok(server) => return server,
                Err(why) => log = why,
            }
        }
        panic!("nats-server does not start:\n{log}");
    }

    /// Makes one attempt on currently free ports. Returns the log of the server if it fails.
    fn try_start(&self) -> Result<Server, String> {
        let mut server = Server {
            child: None,
            folder: tempfile::tempdir_in(&self.parent).expect("a folder for the server"),
            binary: nats_binary::find(&self.version),
            disk: self.disk.clone(),
            port: free_port(),
            monitor: free_port(),
        };
        server.write_config(self);
        if server.launch() {
            return Ok(server);
        }
        Err(server.log())
    }
}

impl Server {
    /// Starts a server with JetStream and without authentication.
    pub fn start(version: &str) -> Self {
        Setup::new(version).start()
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Returns the process id of the server.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// Kills the server, like a power failure.
    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        self.reap();
    }

    /// Asks the server to end, and waits for it.
    pub fn terminate(&mut self) {
        self.signal(libc::SIGTERM);
        self.reap();
    }

    /// Suspends the server: it hangs, and its sockets stay open.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Restarts a killed server: same port, same data.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "the server still runs");
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.launch() {
            assert!(Instant::now() < deadline, "no restart:\n{}", self.log());
        }
    }

    /// Replaces the server by another version: same port, same data.
    pub fn change_version(&mut self, version: &str) {
        self.terminate();
        self.binary = nats_binary::find(version);
        self.restart();
    }

    /// Copies the data of a stopped server.
    pub fn copy_data(&self) -> tempfile::TempDir {
        assert!(self.child.is_none(), "the server still runs");
        let copy = tempfile::tempdir().expect("a folder for the copy");
        copy_folder(&self.folder.path().join("data"), &copy.path().join("data"));
        copy
    }

    /// Replaces the data of a stopped server with a copy.
    pub fn replace_data(&self, copy: &tempfile::TempDir) {
        assert!(self.child.is_none(), "the server still runs");
        let data = self.folder.path().join("data");
        std::fs::remove_dir_all(&data).expect("the data can be removed");
        copy_folder(&copy.path().join("data"), &data);
    }

    /// Changes the configuration and reloads it.
    pub fn reload(&self, change: impl FnOnce(String) -> String) {
        let path = self.folder.path().join("server.conf");
        let config = std::fs::read_to_string(&path).expect("the configuration is there");
        std::fs::write(&path, change(config)).expect("the configuration can be written");
        self.signal(libc::SIGHUP);
    }

    /// Returns a path of the server's monitoring, as JSON.
    pub fn monitoring(&self, path: &str) -> Option<serde_json::Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.monitor)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        write!(stream, "GET /{path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// Returns the number of client connections.
    pub fn connections(&self) -> u64 {
        let varz = self.monitoring("varz").expect("the server answers");
        varz["connections"].as_u64().expect("a number")
    }

    /// Returns whether this server leads a JetStream cluster in which this many servers are
    /// current.
    fn leads(&self, servers: usize) -> bool {
        let jsz = self.monitoring("jsz").unwrap_or_default();
        let others = jsz["meta_cluster"]["replicas"].as_array();
        let current = others
            .into_iter()
            .flatten()
            .filter(|other| other["current"] == true && other["offline"] != true);
        current.count() + 1 >= servers
    }

    /// Returns the number of servers in the JetStream cluster if it has a leader, as this server
    /// knows.
    fn group_size(&self) -> Option<u64> {
        let jsz = self.monitoring("jsz")?;
        jsz["meta_cluster"]["leader"].as_str()?;
        jsz["meta_cluster"]["cluster_size"].as_u64()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn write_config(&self, setup: &Setup) {
        let folder = self.folder.path().display();
        let mut text = format!(
            "listen: \"127.0.0.1:{}\"\nhttp: \"127.0.0.1:{}\"\nlog_file: \"{folder}/log\"\n",
            self.port, self.monitor
        );
        if setup.jetstream {
            let domain = setup.domain.iter().map(|name| format!(", domain: {name}"));
            let domain: String = domain.collect();
            let _ = writeln!(text, "jetstream {{ store_dir: \"{folder}/data\"{domain} }}");
        }
        text.push_str(&setup.config);
        std::fs::write(self.folder.path().join("server.conf"), text).expect("a configuration");
    }

    /// Starts the process and waits until it answers. Returns false if it ended.
    fn launch(&mut self) -> bool {
        let mut command = match &self.disk {
            Some(disk) => disk.command(&self.binary),
            None => Command::new(&self.binary),
        };
        command
            .arg("-c")
            .arg(self.folder.path().join("server.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let config = std::fs::read_to_string(self.folder.path().join("server.conf"));
        let is_tls_first = config.expect("a configuration").contains("handshake_first");
        self.child = Some(spawn(command));
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline {
            // With handshake_first, it sends nothing before the TLS handshake.
            let is_up = match is_tls_first {
                true => self.monitoring("varz").is_some(),
                false => greets(self.port),
            };
            if is_up {
                return true;
            }
            let child = self.child.as_mut().expect("it was just started");
            if child.try_wait().expect("a child can be asked").is_some() {
                self.child = None;
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("nats-server does not answer:\n{}", self.log());
    }

    fn signal(&self, signal: libc::c_int) {
        let child = self.child.as_ref().expect("the server runs");
        let pid = libc::pid_t::try_from(child.id()).expect("a process id");
        // SAFETY: the child was not waited for yet, so the id is still its own.
        let status = unsafe { libc::kill(pid, signal) };
        assert_eq!(status, 0, "kill: {}", std::io::Error::last_os_error());
    }

    fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.wait().expect("a child can be waited for");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

impl Cluster {
    /// Starts three servers and waits until their JetStream has a leader.
    pub fn start(version: &str) -> Self {
        Self::of([version; 3])
    }

    /// As above, with a version for each server.
    pub fn of(versions: [&str; 3]) -> Self {
        let mut log = String::new();
        for _ in 0..10 {
            let formed = Self::try_start(versions).and_then(|nodes| {
                let cluster = Self { nodes };
                cluster.wait_healthy_or_split().map(|()| cluster)
            });
            match formed {
                Ok(cluster) => return cluster,
                Err(why) => log = why,
            }
        }
        panic!("no cluster of nats-servers starts:\n{log}");
    }

    fn try_start(versions: [&str; 3]) -> Result<Vec<Server>, String> {
        let routes: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let all = routes
            .iter()
            .map(|port| format!("\"nats-route://127.0.0.1:{port}\""))
            .collect::<Vec<_>>()
            .join(", ");
        (routes.iter().zip(versions).enumerate())
            .map(|(index, (port, version))| {
                let config = format!(
                    "server_name: \"n{index}\"\ncluster {{ name: \"c\", \
                     listen: \"127.0.0.1:{port}\", routes: [{all}] }}"
                );
                Setup::new(version).config(&config).try_start()
            })
            .collect()
    }

    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Server::url).collect()
    }

    /// Waits until every running node is current and their leader knows all of them.
    pub fn wait_healthy(&self) {
        self.wait_healthy_or_split()
            .unwrap_or_else(|why| panic!("{why}"));
    }

    /// As [`Cluster::wait_healthy`], but returns an error if only two of the nodes form the
    /// JetStream cluster.
    ///
    /// The first election of nodes of version 2.10 ends like this once in fifty times on a busy
    /// machine: the leader shrinks its group to the two nodes that it has heard from, and never
    /// adds the third one that answers at that moment. It usually happens within 10 ms.
    fn wait_healthy_or_split(&self) -> Result<(), String> {
        let running: Vec<_> = self
            .nodes
            .iter()
            .filter(|node| node.child.is_some())
            .collect();
        let deadline = Instant::now() + Duration::from_secs(60);
        let healthy = |node: &Server| {
            let health = node.monitoring("healthz");
            health.is_some_and(|health| health["status"] == "ok")
        };
        let mut split_since = None;
        while !running.iter().all(|node| healthy(node))
            || !running.iter().any(|node| node.leads(running.len()))
        {
            let log = running.first().map(|node| node.log()).unwrap_or_default();
            let is_split = running.iter().any(|node| node.group_size() == Some(2));
            split_since = is_split.then(|| split_since.unwrap_or_else(Instant::now));
            if split_since.is_some_and(|since| since.elapsed() > Duration::from_secs(3)) {
                return Err(format!("two of three nodes are by themselves:\n{log}"));
            }
            assert!(Instant::now() < deadline, "no healthy cluster:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().expect("a type").is_dir() {
            copy_folder(&from, &to);
        } else {
            std::fs::copy(&from, &to).expect("a copy");
        }
    }
}

/// Returns a port without a listener that no other test of this process receives.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        if GIVEN.lock().expect("no panic in here").insert(port) {
            return port;
        }
    }
}

fn greets(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok();
    let mut start = [0; 5];
    stream.read_exact(&mut start).is_ok() && &start == b"INFO "
}

/// Starts a child that ends with this process.
///
/// The kernel kills such a child when the *thread* that started it ends. All are therefore started
/// by one thread that runs until the process ends.
fn spawn(mut command: Command) -> Child {
    type Job = (Command, Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    // SAFETY: prctl is async-signal-safe and affects only the child.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in jobs {
                answer.send(command.spawn()).ok();
            }
        });
        Mutex::new(sender)
    });
    let (answer, child) = channel();
    let sender = spawner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    sender
        .send((command, answer))
        .expect("the spawning thread runs");
    child
        .recv()
        .expect("the spawner answers")
        .expect("nats-server can be run")
}
