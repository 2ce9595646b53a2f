//! Another client, the crate `nats`, reads what the store writes, and vice versa.
#![allow(
    deprecated,
    reason = "the whole crate is, in favour of an asynchronous one"
)]

use std::time::Duration;

use divvy::store::{Expect, Operation, Outcome, Store, Write};

use crate::support::faults::{BUCKET, FOR_EVER, Reader, connect, put, soon};
use crate::support::nats_binary::{NEWEST, OLDEST};
use crate::support::nats_server::Server;

#[test]
fn crate_nats_and_store_read_each_others_writes() {
    for version in [NEWEST, OLDEST] {
        let server = Server::start(version);
        let store = connect(&server.url());
        store.ensure(BUCKET, FOR_EVER, soon()).unwrap();
        let other = nats::jetstream::new(nats::connect(server.url()).unwrap());
        let bucket = other.key_value("parti-assignment").unwrap();

        let watch = store.watch(BUCKET, "").unwrap();
        let mut reader = Reader::default();
        assert!(reader.until_live(&watch, Duration::from_secs(10)));
        let revision = bucket.put("theirs", "from the crate").unwrap();
        let entry = store.read(BUCKET, "theirs", soon()).unwrap().unwrap();
        assert_eq!(
            (entry.value.as_slice(), entry.revision),
            (&b"from the crate"[..], revision)
        );
        while !reader.live.contains_key("theirs") {
            reader.take(watch.events.recv_timeout(Duration::from_secs(10)).unwrap());
        }

        let outcome = store
            .write(BUCKET, &[put("ours", "from the store")], soon())
            .remove(0);
        let Outcome::Done(revision) = outcome else {
            panic!("{outcome:?}");
        };
        let entry = bucket.entry("ours").unwrap().unwrap();
        assert_eq!(
            (entry.value.as_slice(), entry.revision),
            (&b"from the store"[..], revision)
        );
        let stale = bucket.update("ours", "x", revision - 1);
        assert!(stale.is_err(), "{stale:?}");

        bucket.delete("theirs").unwrap();
        let entry = store.read(BUCKET, "theirs", soon()).unwrap().unwrap();
        assert_eq!(entry.operation, Operation::Delete);
        let delete = Write {
            key: "ours".into(),
            value: None,
            expect: Expect::Revision(revision),
        };
        let outcome = store.write(BUCKET, &[delete], soon()).remove(0);
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        assert_eq!(bucket.get("ours").unwrap(), None);
    }
}
