//! A process with an `instance` that is killed and started again.

use crate::support::nats_binary::NEWEST;
use crate::support::nats_server::Server;
use crate::worker_process::{Fleet, Worker, holdings};

fn worker(fleet: &Fleet, instance: &str) -> Worker {
    fleet.worker_with("leave", &["--set", &format!("instance={instance}")])
}

fn has_taken_over(fleet: &Fleet, former: &Worker) {
    fleet.wait("the former process lost its id", || {
        let said = former.said();
        let lost = said
            .lines
            .iter()
            .any(|l| l.contains("worker_id_taken_over"));
        (lost && said.held.is_empty())
            .then_some(())
            .ok_or_else(|| format!("{:#?}", said.lines))
    });
}

#[test]
fn killed_process_of_instance_returns_to_its_id_and_partitions_do_not_move() {
    let server = Server::start(NEWEST);
    let fleet = Fleet::new(&server.url(), 30);
    let mut workers: Vec<Worker> = ["a", "b", "c"].map(|name| worker(&fleet, name)).into();
    fleet.wait_for_cover(&workers);
    let before = holdings(&workers);
    let leader = fleet.wait_for_leader(&workers);
    let survivors: Vec<usize> = (0..3).filter(|&n| n != (leader + 1) % 3).collect();
    let versions: Vec<i64> = survivors
        .iter()
        .map(|&n| workers[n].said().version)
        .collect();

    let name = ["a", "b", "c"][(leader + 1) % 3];
    let again = worker(&fleet, name);
    let killed = std::mem::replace(&mut workers[(leader + 1) % 3], again);
    // It starts while the former process, suspended, still counts as running.
    killed.signal(libc::SIGSTOP);
    fleet.wait_for_cover(&workers);
    assert_eq!(holdings(&workers), before);

    // The former process resumes: it has lost the id.
    killed.signal(libc::SIGCONT);
    has_taken_over(&fleet, &killed);
    killed.kill();

    // Now killed and back within a second.
    let again = worker(&fleet, name);
    let killed = std::mem::replace(&mut workers[(leader + 1) % 3], again);
    killed.kill();
    fleet.wait_for_cover(&workers);
    assert_eq!(holdings(&workers), before);
    let after: Vec<i64> = survivors
        .iter()
        .map(|&n| workers[n].said().version)
        .collect();
    assert_eq!(after, versions, "no plan was needed");
}
