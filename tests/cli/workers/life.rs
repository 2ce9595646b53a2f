//! Growth, crashes, pauses and restarts.

use std::time::{Duration, Instant};

use crate::support::nats_binary::{NEWEST, OLDEST};
use crate::support::nats_server::Server;
use crate::worker_process::{Fleet, holdings};

fn lives_on(version: &str) {
    let server = Server::start(version);
    let fleet = Fleet::new(&server.url(), 60);
    let mut workers = fleet.workers(4, "leave");
    fleet.wait_for_cover(&workers);

    // A leader that leaves hands over immediately.
    let leader = fleet.wait_for_leader(&workers);
    let began = Instant::now();
    workers.remove(leader).terminate();
    let successor = fleet.wait_for_leader(&workers);
    fleet.wait_for_cover(&workers);
    eprintln!(
        "{version}: leader left, covered again after {:?}",
        began.elapsed()
    );

    // A killed leader is replaced after its lease, its partitions after its TTL.
    let began = Instant::now();
    workers.remove(successor).kill();
    fleet.wait_for_leader(&workers);
    eprintln!(
        "{version}: leader killed, another one after {:?}",
        began.elapsed()
    );
    fleet.wait_for_cover(&workers);
    eprintln!(
        "{version}: leader killed, covered again after {:?}",
        began.elapsed()
    );

    // New workers receive their share.
    workers.push(fleet.worker("leave"));
    workers.push(fleet.worker("leave"));
    fleet.wait_for_cover(&workers);
    for worker in &workers {
        let versions = worker.said().versions;
        assert!(versions.is_sorted(), "{versions:?}");
    }
    for worker in workers {
        worker.terminate();
    }
}

#[test]
fn fleet_of_processes_runs_on_newest_server() {
    lives_on(NEWEST);
}

#[test]
fn fleet_of_processes_runs_on_oldest_server() {
    lives_on(OLDEST);
}

#[test]
fn rolling_restart_of_processes_moves_nothing() {
    let server = Server::start(NEWEST);
    let fleet = Fleet::new(&server.url(), 60);
    let mut workers = fleet.workers(4, "restart");
    fleet.wait_for_cover(&workers);
    let before = holdings(&workers);
    for _ in 0..workers.len() {
        let worker = workers.remove(0);
        let id = worker.id();
        worker.terminate();
        workers.push(fleet.worker("restart"));
        fleet.wait("the same id and partitions", || {
            let again = workers.last().unwrap();
            let is_back = again.id() == id && again.held() == before[&id];
            is_back
                .then_some(())
                .ok_or_else(|| format!("{:#?}", again.said()))
        });
        fleet.wait_for_cover(&workers);
    }
    assert_eq!(holdings(&workers), before);
}

#[test]
fn leader_stalled_for_three_leases_is_replaced_and_rejoins() {
    let server = Server::start(NEWEST);
    let fleet = Fleet::new(&server.url(), 60);
    let workers = fleet.workers(3, "leave");
    fleet.wait_for_cover(&workers);
    let frozen = fleet.wait_for_leader(&workers);
    workers[frozen].signal(libc::SIGSTOP);
    let others: Vec<usize> = (0..3).filter(|&n| n != frozen).collect();
    fleet.wait("the others take over", || {
        let leads = others.iter().any(|&n| workers[n].said().is_leader);
        let held: usize = others.iter().map(|&n| workers[n].held().len()).sum();
        (leads && held == 60)
            .then_some(())
            .ok_or_else(|| format!("leads: {leads}, held: {held}"))
    });
    std::thread::sleep(Duration::from_secs(5)); // it is paused for three leases in total
    workers[frozen].signal(libc::SIGCONT);
    fleet.wait_for_cover(&workers);
    let leader = fleet.wait_for_leader(&workers);
    assert_ne!(leader, frozen);
}
