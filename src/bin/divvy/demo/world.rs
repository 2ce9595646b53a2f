//! Where the demo's fleet lives: the embedded store, or a NATS server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use divvy::store::memory::{Blackout, Faults, MemoryStore};
#[cfg(feature = "nats")]
use divvy::store::nats::{NatsOptions, NatsStore, Storage};
use divvy::store::{Bucket, BucketConfig, Expect, Outcome, Store, Write};
use divvy::{CalculatorConfig, Error, ManagerConfig};

use super::Early;

/// How long the demo waits for one answer of the store.
pub const TIMEOUT: Duration = Duration::from_secs(2);

/// How `workers` are set up: their timing is a tenth of the real one or so.
pub fn config(workers: usize) -> ManagerConfig {
    let mut config = ManagerConfig::default();
    config.calculator = timing();
    // One after the other; all of them within the window.
    let starting = Duration::from_millis(15) * u32::try_from(workers).unwrap_or_default();
    config.calculator.cold_start_window += starting;
    config.calculator.min_workers = u32::try_from(workers).unwrap_or(u32::MAX);
    config.heartbeat_interval = Duration::from_millis(250);
    config.worker_id_ttl = Duration::from_secs(4);
    config.election_timeout = Duration::from_millis(1_000);
    config.outage.enter_after = Duration::from_millis(1_000);
    config.outage.leave_after = Duration::from_millis(500);
    config
}

fn timing() -> CalculatorConfig {
    let mut config = CalculatorConfig::default();
    config.heartbeat_ttl = Duration::from_millis(1_500);
    config.emergency_grace_period = Duration::from_millis(500);
    config.cooldown = Duration::from_millis(800);
    config.initial_delay = Duration::from_millis(100);
    config.cold_start_window = Duration::from_millis(1_200);
    config.planned_scale_window = Duration::from_millis(800);
    config.leave_window = Duration::from_millis(150);
    config.join_coalescing = Duration::from_millis(50);
    config.recovery_grace = Some(Duration::from_millis(500));
    config.retry_delay_min = Duration::from_millis(50);
    config.retry_delay_max = Duration::from_millis(500);
    config.operation_timeout = TIMEOUT;
    config
}

/// The store, which every member of the fleet reaches by a connection of its own.
pub enum World {
    /// In this process. Its connections can be cut.
    Memory(MemoryStore),
    /// A real server.
    #[cfg(feature = "nats")]
    Nats {
        /// Where it is.
        url: String,
    },
}

/// One member's connection to the store.
pub struct Connection {
    /// The store.
    pub store: Arc<dyn Store>,
    faults: Option<Faults>,
}

impl Connection {
    /// Freezes the store for this member, if supported: calls hang, watches are lost.
    pub fn freeze(&self) {
        if let Some(faults) = &self.faults {
            faults.blackout(Blackout::Hang);
        }
    }

    /// Disconnects this member permanently.
    pub fn sever(&self) {
        // The store is not used afterwards, stopped or not.
        let _ = self.store.stop(soon());
    }

    /// The store is back for this member.
    pub fn thaw(&self) {
        if let Some(faults) = &self.faults {
            faults.restore();
        }
    }
}

impl World {
    /// The embedded store.
    pub fn memory() -> Self {
        World::Memory(MemoryStore::new())
    }

    /// The NATS server at `url`.
    #[cfg(feature = "nats")]
    pub fn nats(url: &str) -> Result<Self, Early> {
        Ok(World::Nats {
            url: url.to_owned(),
        })
    }

    /// This program cannot reach NATS.
    #[cfg(not(feature = "nats"))]
    pub fn nats(_url: &str) -> Result<Self, Early> {
        Err(Early::Broken(
            "this divvy was built without the feature `nats`".into(),
        ))
    }

    /// Whether connections can be cut.
    pub fn can_freeze(&self) -> bool {
        matches!(self, World::Memory(_))
    }

    /// What the store is, for people.
    pub fn description(&self) -> String {
        match self {
            World::Memory(_) => "embedded store".into(),
            #[cfg(feature = "nats")]
            World::Nats { url } => {
                // Without the credentials, if it carries any.
                let address = url.rsplit_once('@').map_or(url.as_str(), |(_, host)| host);
                format!("NATS at {address}")
            }
        }
    }

    /// Connects a member of the fleet.
    pub fn connect(&self, member: &str) -> Result<Connection, Error> {
        match self {
            World::Memory(store) => {
                let client = store.client(member);
                let faults = client.faults();
                Ok(Connection {
                    store: Arc::new(client),
                    faults: Some(faults),
                })
            }
            #[cfg(feature = "nats")]
            World::Nats { url } => {
                let options = NatsOptions::new([url])
                    .name(format!("divvy demo {member}"))
                    .fleet("demo")
                    .storage(Storage::Memory);
                Ok(Connection {
                    store: Arc::new(NatsStore::connect(options, soon())?),
                    faults: None,
                })
            }
        }
    }

    /// Makes the buckets and removes what an earlier demo left in them. Versions continue from
    /// there: they never go back in a bucket.
    pub fn prepare(&self, config: &ManagerConfig) -> Result<(), Early> {
        let connection = self.connect("demo")?;
        let store = connection.store.as_ref();
        for (bucket, ttl) in [
            (Bucket::StableId, Some(config.worker_id_ttl)),
            (Bucket::Election, Some(config.election_timeout)),
            (Bucket::Heartbeat, Some(config.calculator.heartbeat_ttl)),
            (Bucket::Assignment, None),
        ] {
            let status = store.ensure(bucket, BucketConfig { ttl }, soon())?;
            if status.ttl != ttl {
                return Err(Early::Broken(format!(
                    "bucket {} keeps values for {:?}, the demo wants {ttl:?}; delete the bucket",
                    status.name, status.ttl
                )));
            }
        }
        wait_for_silence(store, config.worker_id_ttl * 2)?;
        remove_assignments(store)
    }
}

/// What an interrupted demo left expires; what a running one writes does not.
fn wait_for_silence(store: &dyn Store, wait: Duration) -> Result<(), Early> {
    let deadline = Instant::now() + wait;
    loop {
        let mut is_silent = true;
        for bucket in [Bucket::StableId, Bucket::Election, Bucket::Heartbeat] {
            let listing = store.list(bucket, "", soon())?;
            is_silent &= !listing.entries.iter().any(|entry| entry.is_live());
        }
        if is_silent {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Early::Broken(
                "another demo is running on this server".into(),
            ));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn remove_assignments(store: &dyn Store) -> Result<(), Early> {
    let listing = store.list(Bucket::Assignment, "assignment", soon())?;
    let live = listing.entries.into_iter().filter(|entry| entry.is_live());
    let deletes: Vec<Write> = live
        .map(|entry| Write {
            key: entry.key,
            value: None,
            expect: Expect::Revision(entry.revision),
        })
        .collect();
    let outcomes = store.write(Bucket::Assignment, &deletes, soon());
    match outcomes
        .into_iter()
        .find(|o| !matches!(o, Outcome::Done(_)))
    {
        None => Ok(()),
        Some(outcome) => Err(Early::Broken(format!(
            "what an earlier demo left cannot be removed: {outcome:?}"
        ))),
    }
}

/// The deadline of one call.
pub fn soon() -> Instant {
    Instant::now() + TIMEOUT
}
