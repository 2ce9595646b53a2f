//! Which fleet the buckets belong to: a record that the first worker of a named fleet writes, and that
//! every worker compares with its own configuration before it joins.

use std::time::Instant;

use crate::error::{Code, Error, Result};
use crate::store::{Bucket, Expect, Outcome, Refusal, Store, Write};
use crate::wire::{FENCE_KEY, FLEET_KEY, FleetRecord};

/// How often the record is read again because another worker wrote it at the same moment.
const ATTEMPTS_MAX: u32 = 3;

/// Checks that the assignment bucket `name` belongs to the fleet `own`.
///
/// A bucket without a record belongs to the fleet without a name as soon as a leader has led there,
/// since that fleet writes no record. Otherwise a named fleet takes it, and so does one with other
/// key prefixes than parti's.
///
/// # Errors
/// `WrongFleet` when the bucket belongs to another fleet; what the store reports otherwise.
pub fn verify(store: &dyn Store, own: &FleetRecord, name: &str, deadline: Instant) -> Result<()> {
    let mut unknown = String::new();
    for _ in 0..ATTEMPTS_MAX {
        let entry = store.read(Bucket::Assignment, FLEET_KEY, deadline)?;
        if let Some(entry) = entry.as_ref().filter(|entry| entry.is_live()) {
            return match FleetRecord::decode(&entry.value) {
                Ok(found) => compare(own, &found, name),
                // A client that can write to the bucket must not be able to stop a fleet.
                Err(error) => {
                    log::warn!(bucket = name; "bucket {name}: {FLEET_KEY} ignored: {error}");
                    Ok(())
                }
            };
        }
        let fence = store.read(Bucket::Assignment, FENCE_KEY, deadline)?;
        if fence.is_some_and(|fence| fence.is_live()) {
            return compare(own, &FleetRecord::default(), name);
        }
        if *own == FleetRecord::default() {
            return Ok(());
        }
        let write = Write {
            key: FLEET_KEY.into(),
            value: Some(own.encode()),
            expect: Expect::Revision(entry.map_or(0, |entry| entry.revision)),
        };
        let outcome = store.write(Bucket::Assignment, &[write], deadline).pop();
        match outcome {
            // A worker that never leads may lack the permission; those that lead write it.
            Some(Outcome::Done(_) | Outcome::Refused(Refusal::Unauthorized(_))) => return Ok(()),
            Some(Outcome::Refused(Refusal::Conflict)) => {}
            Some(Outcome::Refused(refusal)) => {
                return Err(refusal.into_error().with_key(FLEET_KEY));
            }
            Some(Outcome::Unknown(why)) => unknown = why,
            None => unknown = "the store gave no outcome".into(),
        }
    }
    let message = format!("the fleet record could not be written: {unknown}");
    Err(Error::new(Code::Unavailable, message).with_key(FLEET_KEY))
}

fn compare(own: &FleetRecord, found: &FleetRecord, name: &str) -> Result<()> {
    if own == found {
        return Ok(());
    }
    Err(Error::new(
        Code::WrongFleet,
        format!(
            "bucket {name} belongs to {found}, but this worker is configured for {own}: set fleet, \
             or give each fleet buckets of its own"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::BucketConfig;
    use crate::store::memory::{Call, Fault, MemoryStore};
    use crate::wire::Fence;

    fn later() -> Instant {
        Instant::now() + std::time::Duration::from_secs(60)
    }

    fn store() -> MemoryStore {
        let store = MemoryStore::new();
        let config = BucketConfig { ttl: None };
        store.ensure(Bucket::Assignment, config, later()).unwrap();
        store
    }

    fn joins(store: &MemoryStore, fleet: &str, prefix: &str) -> Result<()> {
        let own = FleetRecord {
            fleet: fleet.into(),
            assignment_prefix: prefix.into(),
            ..FleetRecord::default()
        };
        verify(store, &own, "b", later())
    }

    #[test]
    fn another_fleet_is_refused_by_both_names() {
        let store = store();
        joins(&store, "orders", "assignment").unwrap();
        joins(&store, "orders", "assignment").unwrap();
        for (fleet, prefix) in [
            ("payments", "assignment"),
            ("", "assignment"),
            ("orders", "other"),
        ] {
            let error = joins(&store, fleet, prefix).unwrap_err();
            assert_eq!(error.code(), Code::WrongFleet, "{error}");
            assert!(
                error.to_string().contains("belongs to fleet \"orders\""),
                "{error}"
            );
            assert!(!error.is_retriable());
        }
        let error = joins(&store, "payments", "other").unwrap_err().to_string();
        assert!(
            error.contains("configured for fleet \"payments\""),
            "{error}"
        );
    }

    #[test]
    fn fleet_without_a_name_writes_nothing_and_keeps_its_buckets() {
        let store = store();
        joins(&store, "", "assignment").unwrap();
        assert_eq!(
            store.list(Bucket::Assignment, "", later()).unwrap().entries,
            []
        );
        // Once a leader has led there, they are taken.
        store
            .server()
            .put(Bucket::Assignment, FENCE_KEY, &Fence::default().encode());
        joins(&store, "", "assignment").unwrap();
        let error = joins(&store, "orders", "assignment").unwrap_err();
        assert!(
            error.to_string().contains("a fleet without a name"),
            "{error}"
        );
        assert_eq!(
            joins(&store, "", "other").unwrap_err().code(),
            Code::WrongFleet
        );
    }

    #[test]
    fn malformed_record_stops_no_worker_and_is_left_alone() {
        let store = store();
        for garbage in [&b""[..], b"{", b"[]", b"{\"fleet\":7}"] {
            let revision = store.server().put(Bucket::Assignment, FLEET_KEY, garbage);
            joins(&store, "orders", "assignment").unwrap();
            let entry = store.read(Bucket::Assignment, FLEET_KEY, later()).unwrap();
            assert_eq!(entry.unwrap().revision, revision);
        }
    }

    #[test]
    fn record_is_written_once_whatever_becomes_of_the_answer() {
        for fault in [Fault::LoseReply, Fault::LoseRequest] {
            let store = store();
            store.faults().next(&Call::WRITES, 1, fault);
            joins(&store, "orders", "assignment").unwrap();
            joins(&store, "orders", "assignment").unwrap();
            let entries = store.list(Bucket::Assignment, "", later()).unwrap().entries;
            assert_eq!(entries.len(), 1);
        }
        let store = store();
        let denied = Refusal::Unauthorized("read-only".into());
        store.faults().next(&Call::WRITES, 1, Fault::Refuse(denied));
        joins(&store, "orders", "assignment").unwrap();
    }
}
