//! Two hundred workers start concurrently on one server with a hundred ids.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use divvy::error::Code;
use divvy::store::Store;
use divvy::store::nats::{NatsOptions, NatsStore};
use divvy::{Departure, Manager, ManagerConfig, WorkerId};

use crate::alone;
use crate::support::nats_binary::NEWEST;
use crate::support::nats_server::Server;

const WORKERS: usize = 200;
const IDS: usize = 100;

/// Longer than needed on a busy machine; the measured time is printed.
const TIMEOUT: Duration = Duration::from_secs(20);

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Every worker has its own connection, like separate processes.
fn worker(server: &Server) -> (Arc<NatsStore>, Manager) {
    let store = NatsStore::connect(NatsOptions::new([server.url()]), soon()).unwrap();
    let store = Arc::new(store);
    let mut config = ManagerConfig::default();
    config.may_lead = false; // only ids matter here
    config.worker_id_max = u32::try_from(IDS).unwrap() - 1;
    let manager = Manager::builder(Arc::clone(&store) as _)
        .config(config)
        .source(|| Ok(Vec::new()))
        .build()
        .unwrap();
    (store, manager)
}

/// The result of one worker: its id and the time, or the error.
type Went = Result<(WorkerId, Duration), divvy::Error>;

/// All concurrent workers, and the number of messages to the server when the last id was claimed.
struct Race<'a> {
    server: &'a Server,
    all: Barrier,
    claimed: AtomicUsize,
    sent: AtomicU64,
}

impl Race<'_> {
    fn messages(&self) -> u64 {
        let varz = self.server.monitoring("varz").expect("the server answers");
        varz["in_msgs"].as_u64().expect("a number")
    }

    fn start(&self, manager: &Manager) -> Went {
        self.all.wait();
        let began = Instant::now();
        manager.start(TIMEOUT)?;
        let took = began.elapsed();
        if self.claimed.fetch_add(1, Ordering::SeqCst) + 1 == IDS {
            self.sent.store(self.messages(), Ordering::SeqCst);
        }
        Ok((manager.worker_id().expect("an id"), took))
    }
}

#[test]
#[allow(clippy::cast_precision_loss)] // counts of messages
fn two_hundred_workers_share_hundred_ids_on_server_and_rest_get_error() {
    let _alone = alone();
    let server = Server::start(NEWEST);
    let workers: Vec<_> = (0..WORKERS).map(|_| worker(&server)).collect();
    let race = Race {
        server: &server,
        all: Barrier::new(WORKERS),
        claimed: AtomicUsize::new(0),
        sent: AtomicU64::new(0),
    };
    let before = race.messages();
    let went: Vec<Went> = std::thread::scope(|scope| {
        let starts: Vec<_> = workers
            .iter()
            .map(|(_, manager)| scope.spawn(|| race.start(manager)))
            .collect();
        starts.into_iter().map(|s| s.join().unwrap()).collect()
    });
    let after = race.messages();
    let by_then = race.sent.load(Ordering::SeqCst);
    let ids: BTreeSet<&WorkerId> = went.iter().flatten().map(|(id, _)| id).collect();
    let took: Vec<Duration> = went.iter().flatten().map(|(_, took)| *took).collect();
    let longest = took.iter().max().expect("at least one worker has an id");
    let each = (after - by_then) as f64 / (TIMEOUT - *longest).as_secs_f64();
    println!(
        "{} ids after {longest:.1?} and {} messages; then {each:.0} messages a second from {} \
         workers without an id and {IDS} that beat",
        ids.len(),
        by_then - before,
        WORKERS - IDS
    );
    assert_eq!((ids.len(), took.len()), (IDS, IDS));
    for error in went.iter().filter_map(|went| went.as_ref().err()) {
        assert_eq!(error.code(), Code::IdsExhausted, "{error}");
    }
    // A storm would be: every worker tries every id, with a listing per attempt.
    let storm = (WORKERS * IDS * IDS) as u64;
    assert!(by_then - before < storm / 10, "{}", by_then - before);
    for (store, manager) in workers {
        manager.stop(Departure::Leave, TIMEOUT).unwrap();
        store.stop(soon()).unwrap();
    }
}
