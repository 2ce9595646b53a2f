//! Twenty worker processes on a cluster of three servers, for minutes, while workers and servers
//! are killed, frozen, restarted and stopped.
//!
//! Runs for minutes, therefore only on request: `make chaos MINUTES=10`. After each period of
//! faults every partition must have exactly one live owner, no worker may have gone back to an
//! earlier version, and no worker whose heartbeats reached the leader may have been omitted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::nats_binary::NEWEST;
use crate::support::nats_server::Cluster;
use crate::worker_process::{Fleet, Worker};

const WORKERS: usize = 20;
const PARTITIONS: usize = 200;

/// How long faults last before the fleet must recover.
const STRETCH: Duration = Duration::from_secs(30);

/// Three leader leases.
const THREE_LEASES: Duration = Duration::from_secs(15);

struct Chaos {
    cluster: Cluster,
    fleet: Fleet,
    workers: Vec<Worker>,
    done: BTreeMap<&'static str, usize>,
    /// The recovery time after each period.
    heals: Vec<Duration>,
}

#[test]
fn every_partition_has_exactly_one_owner_after_any_faults() {
    let minutes = std::env::var("CHAOS_MINUTES");
    let minutes: f64 = minutes.map_or(10.0, |text| text.parse().expect("a number"));
    let seed = std::env::var("CHAOS_SEED").ok();
    let seed = seed.map_or_else(|| fastrand::u64(..), |text| text.parse().expect("a number"));
    eprintln!("CHAOS_SEED={seed}");
    fastrand::seed(seed);
    let cluster = Cluster::start(NEWEST);
    let fleet = Fleet::new(&cluster.urls().join(","), PARTITIONS).replicas(3);
    let mut chaos = Chaos {
        workers: fleet.workers(WORKERS, "leave"),
        cluster,
        fleet,
        done: BTreeMap::new(),
        heals: Vec::new(),
    };
    chaos.fleet.wait_for_cover(&chaos.workers);
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    while Instant::now() < end {
        chaos.stretch();
        chaos.heal();
        let left = end.saturating_duration_since(Instant::now());
        eprintln!("{left:.0?} left, {:?}", chaos.done);
    }
    chaos.report();
}

impl Chaos {
    fn stretch(&mut self) {
        let end = Instant::now() + STRETCH;
        while Instant::now() < end {
            let (name, fault): (_, fn(&mut Self)) = match fastrand::u32(0..7) {
                0 => ("worker killed", |c| c.replace(Worker::kill)),
                1 => ("worker left", |c| c.replace(Worker::terminate)),
                2 => ("leader killed", Self::kill_leader),
                3 => ("leader frozen for three leases", Self::freeze_leader),
                4 => ("worker frozen", Self::freeze_worker),
                5 => ("server killed and restarted", Self::kill_server),
                _ => ("server frozen", Self::freeze_server),
            };
            fault(self);
            *self.done.entry(name).or_default() += 1;
            std::thread::sleep(Duration::from_millis(fastrand::u64(0..3_000)));
        }
    }

    /// Ends all faults: the fleet must recover within the limit of a wait.
    fn heal(&mut self) {
        let began = Instant::now();
        self.cluster.wait_healthy();
        self.fleet.wait_for_cover(&self.workers);
        self.fleet.wait_for_leader(&self.workers);
        self.heals.push(began.elapsed());
        for worker in &self.workers {
            let said = worker.said();
            let is_sorted = said.versions.is_sorted();
            assert!(is_sorted, "{:?}: {:?}", said.id, said.versions);
        }
    }

    fn replace(&mut self, end: fn(Worker)) {
        let gone = self.workers.remove(fastrand::usize(..self.workers.len()));
        end(gone);
        self.workers.push(self.fleet.worker("leave"));
    }

    fn leader(&self) -> Option<usize> {
        (0..self.workers.len()).find(|&n| self.workers[n].said().is_leader)
    }

    fn kill_leader(&mut self) {
        if let Some(leader) = self.leader() {
            self.workers.remove(leader).kill();
            self.workers.push(self.fleet.worker("leave"));
        }
    }

    fn freeze_leader(&mut self) {
        if let Some(leader) = self.leader() {
            self.workers[leader].signal(libc::SIGSTOP);
            std::thread::sleep(THREE_LEASES);
            self.workers[leader].signal(libc::SIGCONT);
        }
    }

    fn freeze_worker(&mut self) {
        let worker = &self.workers[fastrand::usize(..self.workers.len())];
        worker.signal(libc::SIGSTOP);
        std::thread::sleep(Duration::from_millis(fastrand::u64(100..12_000)));
        worker.signal(libc::SIGCONT);
    }

    fn kill_server(&mut self) {
        let node = &mut self.cluster.nodes[fastrand::usize(0..3)];
        node.kill();
        std::thread::sleep(Duration::from_millis(fastrand::u64(100..6_000)));
        node.restart();
    }

    fn freeze_server(&mut self) {
        let node = &self.cluster.nodes[fastrand::usize(0..3)];
        node.pause();
        std::thread::sleep(Duration::from_millis(fastrand::u64(100..10_000)));
        node.resume();
    }

    fn report(&self) {
        println!("| fault | times |\n| --- | --- |");
        for (name, times) in &self.done {
            println!("| {name} | {times} |");
        }
        let longest = self.heals.iter().max().copied().unwrap_or_default();
        println!(
            "{} periods; recovered after {longest:.1?} at most; 0 violations",
            self.heals.len()
        );
    }
}
