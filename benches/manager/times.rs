//! Reaction times.

use std::time::{Duration, Instant};

use divvy::Departure;

use crate::eye::Eye;
use crate::support::nats_binary::NEWEST;
use crate::support::nats_server::Server;
use crate::worker_process::{Fleet, Worker};
use crate::{PARTITIONS, connect, manager, soon};

/// The default settings from which the limits follow.
const TTL: Duration = Duration::from_secs(6);
const GRACE: Duration = Duration::from_secs(3);
const LEASE: Duration = Duration::from_secs(5);

const STARTS: usize = 31;
const LEAVES: usize = 11;
const KILLS: usize = 5;

pub fn report() {
    println!(
        "\n| figure | times | median ms | most ms | limit that the configuration implied, then | target |\n\
         | --- | --- | --- | --- | --- | --- |"
    );
    starts();
    let server = Server::start(NEWEST);
    let fleet = Fleet::new(&server.url(), PARTITIONS);
    let store = connect(&server.url());
    let workers = fleet.workers(5, "leave");
    fleet.wait_for_cover(&workers);
    let mut world = World {
        eye: Eye::new(&store),
        server,
        fleet,
        workers,
    };
    world.leaves();
    world.workers_killed();
    world.leaders_killed();
}

/// The measurements, each with its limit.
#[derive(Default)]
struct Row(Vec<(Duration, Duration)>);

impl Row {
    fn add(&mut self, took: Duration, limit: Duration) {
        self.0.push((took, limit));
    }

    fn print(mut self, what: &str, target: &str) {
        self.0.sort_unstable();
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let count = self.0.len();
        let (most, limit_then) = self.0[count - 1];
        let late = self.0.iter().filter(|(took, limit)| took > limit).count();
        println!(
            "| {what} | {count} | {:.1} | {:.1} | {:.0} ms; {late} of {count} above theirs | {target} |",
            ms(self.0[count / 2].0),
            ms(most),
            ms(limit_then),
        );
    }
}

fn starts() {
    let server = Server::start(NEWEST);
    let limit = Duration::from_millis(50);
    let mut first = Row::default();
    let mut running = Row::default();
    let mut with_connection = Row::default();
    let store = connect(&server.url());
    let leader = manager(&store, true);
    let began = Instant::now();
    leader.start(Duration::from_secs(30)).expect("a start");
    first.add(began.elapsed(), Duration::from_millis(625));
    while !leader.is_leader() {
        std::thread::sleep(Duration::from_millis(10));
    }
    for _ in 0..STARTS {
        let began = Instant::now();
        let store = connect(&server.url());
        let follower = manager(&store, true);
        let connected = Instant::now();
        follower.start(Duration::from_secs(30)).expect("a start");
        running.add(connected.elapsed(), limit);
        with_connection.add(began.elapsed(), limit);
        stop(&follower);
    }
    stop(&leader);
    running.print(
        "start of a worker in a running fleet, until id and heartbeat",
        "<= 50 ms",
    );
    with_connection.print("the same, the connection included", "");
    first.print(
        "start of the first worker, which makes the buckets",
        "parti: 625 ms",
    );
}

fn stop(manager: &divvy::Manager) {
    let timeout = Duration::from_secs(10);
    manager.stop(Departure::Leave, timeout).expect("a stop");
}

struct World {
    eye: Eye,
    server: Server,
    fleet: Fleet,
    workers: Vec<Worker>,
}

impl World {
    /// Starts a replacement worker.
    fn replace(&mut self) {
        self.workers.push(self.fleet.worker("leave"));
        self.fleet.wait_for_cover(&self.workers);
    }

    /// A leader in this process that leaves, so that the moment is known.
    fn leaves(&mut self) {
        let mut row = Row::default();
        for _ in 0..LEAVES {
            let leaving = self.lead_here();
            self.eye.catch_up();
            let began = Instant::now();
            let stopping = std::thread::spawn(move || stop(&leaving));
            let fenced = self.eye.until("a fence", |eye| eye.fenced_since(began));
            row.add(fenced - began, Duration::from_millis(100));
            stopping.join().expect("the stop");
            self.fleet.wait_for_cover(&self.workers);
        }
        row.print(
            "leader stopped with `leave`, to the next one's fence record",
            "<= 100 ms",
        );
    }

    /// Returns a manager in this process that leads. Other leaders leave until it does.
    fn lead_here(&mut self) -> divvy::Manager {
        let store = connect(&self.server.url());
        let manager = manager(&store, true);
        manager.start(Duration::from_secs(30)).expect("a start");
        let deadline = soon() + Duration::from_secs(60);
        while !manager.is_leader() {
            assert!(Instant::now() < deadline, "it never leads");
            let leads = self.workers.iter().position(|w| w.said().is_leader);
            if let Some(leader) = leads {
                self.workers.remove(leader).terminate();
                self.workers.push(self.fleet.worker("leave"));
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        while manager.assignment().version == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_secs(2)); // its windows have ended
        manager
    }

    fn workers_killed(&mut self) {
        let mut row = Row::default();
        for _ in 0..KILLS {
            let leader = self.fleet.wait_for_leader(&self.workers);
            let index = (leader + 1) % self.workers.len();
            let id = self.workers[index].id();
            let victim = self.workers.remove(index);
            self.eye.catch_up();
            let had = self.eye.held(&id);
            let began = Instant::now();
            victim.kill();
            let gone = self
                .eye
                .until("its partitions", |eye| eye.is_taken_over(&id, &had));
            let age = self.eye.age_of_beat(&id, began);
            row.add(gone - began, TTL + GRACE - age + Duration::from_millis(100));
            self.replace();
        }
        row.print(
            "worker killed, to its partitions published to others",
            "<= TTL + grace - age of heartbeat + 0.1 s",
        );
    }

    fn leaders_killed(&mut self) {
        let (mut fences, mut taken) = (Row::default(), Row::default());
        for _ in 0..KILLS {
            let index = self.fleet.wait_for_leader(&self.workers);
            let id = self.workers[index].id();
            let victim = self.workers.remove(index);
            self.eye.catch_up();
            let had = self.eye.held(&id);
            let began = Instant::now();
            victim.kill();
            let fenced = self.eye.until("a fence", |eye| eye.fenced_since(began));
            let rest = LEASE.saturating_sub(self.eye.age_of_lease(began));
            fences.add(fenced - began, rest + Duration::from_millis(300));
            let gone = self
                .eye
                .until("its partitions", |eye| eye.is_taken_over(&id, &had));
            let beat = TTL.saturating_sub(self.eye.age_of_beat(&id, began));
            taken.add(gone - began, rest.max(beat) + Duration::from_millis(400));
            self.replace();
        }
        fences.print(
            "leader killed, to the next one's fence record",
            "<= rest of lease + 0.3 s",
        );
        taken.print(
            "leader killed, to its partitions published to others",
            "<= later of rest of lease and TTL + 0.4 s",
        );
    }
}
