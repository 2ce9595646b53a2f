//! What a shadow recognises as a publication of the live leader, and what it ignores.

use std::collections::VecDeque;

use super::*;

/// The remaining writes, one key in each pause.
type ToCome = Arc<Mutex<VecDeque<(&'static str, Vec<u8>)>>>;

struct Busy {
    world: MemoryStore,
    to_come: ToCome,
}

impl PublisherEnvironment for Busy {
    fn wall_clock(&self) -> String {
        "2026-01-01T00:00:00Z".into()
    }

    fn pause(&self, _: Duration) -> bool {
        if let Some((key, value)) = self.to_come.lock().pop_front() {
            put(&self.world, key, &value);
        }
        true
    }
}

fn shadow(world: &MemoryStore) -> (Shadow, ToCome) {
    let to_come = ToCome::default();
    let environment = Arc::new(Busy {
        world: world.clone(),
        to_come: Arc::clone(&to_come),
    });
    let client = Arc::new(world.client("shadow"));
    let settings = settings(PublishMode::Auto);
    let reader = Publisher::new(client, environment, settings, Arc::default());
    (Shadow::of(reader), to_come)
}

fn settled(shadow: &mut Shadow) -> Option<Box<Live>> {
    match shadow.resolve(&[], later()).unwrap() {
        Resolved::Live(live) => Some(live),
        Resolved::Known => None,
        Resolved::Foreign => panic!("a shadow answers nothing"),
    }
}

/// Symptom: of a plan with an additional worker, the shadow first saw a complete plan without it.
/// The new worker has no older assignment that would show that its new one is still missing.
#[test]
fn finished_puts_of_leader_without_terms_are_one_publication() {
    let world = world(Kind::A);
    put(&world, "assignment.a", &raw(1, None, &["p"]));
    let (mut shadow, to_come) = shadow(&world);
    assert_eq!(shadow.take_over(later()).unwrap().version, 1);
    put(&world, "assignment.a", &raw(2, None, &["p"]));
    to_come.lock().extend([
        ("assignment.b", raw(2, None, &["q"])),
        ("assignment.c", raw(2, None, &[])),
    ]);
    let live = settled(&mut shadow).unwrap();
    let found = (live.version, live.stored.len(), live.is_whole);
    assert_eq!(found, (2, 3, true));
    assert!(settled(&mut shadow).is_none());
}

#[test]
fn divvy_publication_is_observed_at_once_and_take_over_is_none() {
    for kind in BOTH {
        let world = world(kind);
        let mut leader = Leader::leading(&world);
        leader
            .publish(&plan(&[("a", &["p"]), ("b", &["q"])]))
            .unwrap();
        let (mut shadow, to_come) = shadow(&world);
        // Detected only by reading twice.
        to_come
            .lock()
            .push_back(("assignment.c", raw(99, None, &[])));
        let found = shadow.take_over(later()).unwrap();
        assert_eq!((found.term, found.version, found.consistent), (1, 1, true));
        let next = plan(&[("a", &["p"]), ("b", &[]), ("c", &["q"])]);
        let version = leader.publish(&next).unwrap();
        let live = settled(&mut shadow).unwrap();
        let seen = (live.version, live.term, live.is_whole);
        assert_eq!(seen, (version, Some(1), true));
        let mut successor = Leader::leading(&world);
        assert!(settled(&mut shadow).is_none());
        assert_eq!(shadow.term(), 2);
        successor.publish(&plan(&[("a", &["p", "q"])])).unwrap();
        assert_eq!(settled(&mut shadow).unwrap().stored.len(), 1);
        assert_eq!(to_come.lock().len(), 1);
    }
}
