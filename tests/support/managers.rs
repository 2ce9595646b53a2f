//! Shared by the tests: scaled-down managers, and waits with a limit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use divvy::runtime::Events;
use divvy::store::Store;
use divvy::store::memory::MemoryStore;
use divvy::{
    CalculatorConfig, Manager, ManagerConfig, ManagerEvent, ManagerEventFilter, Partition, WorkerId,
};

/// Longer than any operation takes on a busy machine.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// A tenth of the default times, and short windows.
pub fn config() -> ManagerConfig {
    let mut calculator = CalculatorConfig::default();
    calculator.heartbeat_ttl = Duration::from_millis(600);
    calculator.emergency_grace_period = Duration::from_millis(300);
    calculator.cooldown = Duration::from_millis(10);
    calculator.cold_start_window = Duration::from_millis(100);
    calculator.planned_scale_window = Duration::from_millis(50);
    calculator.leave_window = Duration::from_millis(10);
    calculator.join_coalescing = Duration::from_millis(5);
    calculator.recovery_grace = Some(Duration::from_millis(200));
    calculator.retry_delay_min = Duration::from_millis(10);
    calculator.retry_delay_max = Duration::from_millis(50);
    let mut config = ManagerConfig::default();
    config.calculator = calculator;
    config.heartbeat_interval = Duration::from_millis(200);
    config.worker_id_ttl = Duration::from_secs(3);
    config.election_timeout = Duration::from_millis(600);
    config
}

pub fn partitions(count: usize) -> Vec<Partition> {
    (0..count)
        .map(|i| Partition::new([format!("p{i:04}")], 1))
        .collect()
}

/// A manager over this client, in a fleet with this many partitions.
pub fn manager_over(store: impl Store + 'static, config: ManagerConfig, count: usize) -> Manager {
    Manager::builder(Arc::new(store))
        .config(config)
        .source(move || Ok(partitions(count)))
        .build()
        .unwrap()
}

/// A manager over its own client.
pub fn manager(store: &MemoryStore) -> Manager {
    manager_over(store.client("worker"), config(), 12)
}

pub fn started(store: &MemoryStore) -> Manager {
    let manager = manager(store);
    manager.start(TIMEOUT).unwrap();
    manager
}

/// Waits for a condition. The panic message names it.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not in {TIMEOUT:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Reads events until one satisfies the condition, and returns that one.
#[track_caller]
pub fn wait_for(
    events: &Events<ManagerEvent>,
    what: &str,
    condition: impl Fn(&ManagerEvent) -> bool,
) -> Arc<ManagerEvent> {
    let deadline = Instant::now() + TIMEOUT;
    let mut seen = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = match events.recv_timeout(left) {
            Ok(event) => event,
            Err(error) => panic!("{what}: {error}; not among {seen:#?}"),
        };
        if condition(&event) {
            return event;
        }
        seen.push(event);
    }
}

/// Returns the partitions of all of them, sorted; a partition with two owners appears twice.
pub fn held(managers: &[&Manager]) -> Vec<String> {
    let mut held: Vec<String> = managers
        .iter()
        .flat_map(|m| {
            m.assignment()
                .partitions
                .iter()
                .map(Partition::id)
                .collect::<Vec<_>>()
        })
        .collect();
    held.sort();
    held
}

/// Waits until each partition has one owner among them, and each of them owns some.
#[track_caller]
pub fn wait_for_cover(managers: &[&Manager], count: usize) {
    let all: Vec<String> = partitions(count).iter().map(Partition::id).collect();
    wait_until("every partition with one owner", || {
        let is_shared = managers
            .iter()
            .all(|m| !m.assignment().partitions.is_empty());
        is_shared && held(managers) == all
    });
}

pub fn events(manager: &Manager) -> Events<ManagerEvent> {
    manager.events(ManagerEventFilter::WorkerAndCalculator)
}

pub fn worker(id: &str) -> WorkerId {
    WorkerId::new(id).unwrap()
}
