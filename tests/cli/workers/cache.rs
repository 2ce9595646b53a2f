//! Workers started while the server is down.

use std::time::{Duration, Instant};

use crate::support::nats_binary::NEWEST;
use crate::support::nats_server::Server;
use crate::worker_process::{Fleet, Worker, holdings};

/// Each with its own file.
fn workers(fleet: &Fleet, folder: &tempfile::TempDir, departure: &str) -> Vec<Worker> {
    let worker = |name| {
        let file = folder.path().join(name);
        let file = file.to_str().expect("a plain name");
        // Ids expire soon after the server's return.
        let quick = [
            "worker_id_ttl=6s",
            "heartbeat_interval=1s",
            "heartbeat_ttl=3s",
        ];
        let quick = quick.iter().flat_map(|setting| ["--set", setting]);
        let arguments: Vec<&str> = ["--cache", file].into_iter().chain(quick).collect();
        fleet.worker_with(departure, &arguments)
    };
    vec![worker("one"), worker("two")]
}

/// Each has its former id.
fn ids(workers: &[Worker]) -> Vec<String> {
    workers.iter().map(Worker::id).collect()
}

fn wait_for_cached(fleet: &Fleet, workers: &[Worker]) {
    fleet.wait("served from the files", || {
        let said: Vec<_> = workers.iter().map(Worker::said).collect();
        let is_cached = said.iter().all(|s| s.is_cached && !s.held.is_empty());
        is_cached.then_some(()).ok_or_else(|| format!("{said:#?}"))
    });
}

#[test]
fn workers_restarted_while_server_is_down_serve_cached_assignment() {
    let mut server = Server::start(NEWEST);
    let folder = tempfile::tempdir().unwrap();
    let fleet = Fleet::new(&server.url(), 60);
    let first = workers(&fleet, &folder, "leave");
    fleet.wait_for_cover(&first);
    let before = holdings(&first);
    let written = |name: &str| {
        let id = |worker: &Worker| format!("\"{}\"", worker.id());
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        let versions: Vec<String> = first.iter().map(|w| w.said().version.to_string()).collect();
        first.iter().any(|worker| text.contains(&id(worker)))
            && versions
                .iter()
                .any(|v| text.contains(&format!("\"version\":{v},")))
    };
    fleet.wait("both files", || {
        std::thread::sleep(Duration::from_millis(20));
        (written("one") && written("two"))
            .then_some(())
            .ok_or_else(|| "not yet".into())
    });
    let ids_before = ids(&first);
    server.kill();
    first.into_iter().for_each(Worker::kill);

    let begun = Instant::now();
    let again = workers(&fleet, &folder, "leave");
    wait_for_cached(&fleet, &again);
    eprintln!("served from the files after {:?}", begun.elapsed());
    assert_eq!(
        holdings(&again),
        before,
        "the same ids, the same partitions"
    );

    // Long enough for the ids of the dead workers to expire, so that they are claimed again.
    std::thread::sleep(Duration::from_secs(7));
    server.restart();
    let begun = Instant::now();
    fleet.wait("the store's word", || {
        let said: Vec<_> = again.iter().map(Worker::said).collect();
        let is_over = said.iter().all(|s| !s.is_cached && s.state != "Degraded");
        is_over.then_some(()).ok_or_else(|| format!("{said:#?}"))
    });
    fleet.wait_for_cover(&again);
    eprintln!(
        "no longer degraded {:?} after the server restarted",
        begun.elapsed()
    );
    assert_eq!(ids(&again), ids_before);
    for worker in again {
        worker.terminate();
    }
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0, "a leave removes the file");
}

#[test]
fn restarted_worker_serves_through_outage_and_rejoins() {
    let mut server = Server::start(NEWEST);
    let folder = tempfile::tempdir().unwrap();
    let fleet = Fleet::new(&server.url(), 60);
    let first = workers(&fleet, &folder, "restart");
    fleet.wait_for_cover(&first);
    let (before, ids_before) = (holdings(&first), ids(&first));
    first.into_iter().for_each(Worker::terminate);
    server.kill();
    let again = workers(&fleet, &folder, "restart");
    wait_for_cached(&fleet, &again);
    assert_eq!(holdings(&again), before);
    server.restart();
    fleet.wait("the store's word", || {
        let said: Vec<_> = again.iter().map(Worker::said).collect();
        let is_over = said.iter().all(|s| !s.is_cached);
        is_over.then_some(()).ok_or_else(|| format!("{said:#?}"))
    });
    fleet.wait_for_cover(&again);
    assert_eq!(ids(&again), ids_before);
}
