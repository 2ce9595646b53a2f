use super::*;
use crate::types::Partition;

const HOUR: Duration = Duration::from_secs(3_600);
const NOW: Duration = Duration::from_secs(1_800_000_000);

fn held(version: i64) -> Held {
    Held {
        version,
        term: 3,
        lifecycle: "planned_scale".into(),
        partitions: vec![Partition::new(["p1"], 1)].into(),
    }
}

fn worker(id: &str) -> WorkerId {
    WorkerId::new(id).unwrap()
}

fn pool() -> Pool {
    Pool {
        prefix: "worker".into(),
        min: 0,
        max: 9,
        ttl: Duration::from_secs(30),
    }
}

fn remembered(seen: Duration) -> Remembered {
    Remembered {
        fleet: "ours".into(),
        worker: worker("worker-3"),
        held: held(7),
        seen,
    }
}

fn recalled_at(seen: Duration) -> Result<Recalled> {
    recall(remembered(seen), "ours", &pool(), NOW, HOUR)
}

#[test]
fn recalled_assignment_is_valid_for_rest_of_its_max_age() {
    let recalled = recalled_at(NOW - HOUR / 4).unwrap();
    assert_eq!(recalled.worker, worker("worker-3"));
    assert_eq!(recalled.held, held(7));
    assert_eq!((recalled.age, recalled.left), (HOUR / 4, HOUR * 3 / 4));
}

#[test]
fn too_old_future_or_foreign_cache_is_rejected_by_name() {
    let refused = |result: Result<Recalled>, word: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.code(), Code::InvalidData);
        assert!(error.message().contains(word), "{error}");
    };
    refused(recalled_at(NOW - HOUR), "too old");
    refused(recalled_at(Duration::ZERO), "too old");
    refused(recalled_at(NOW + HOUR), "future");
    refused(recalled_at(Duration::MAX), "future");
    // A clock that was set back by a little makes no difference.
    assert_eq!(
        recalled_at(NOW + Duration::from_secs(2)).unwrap().left,
        HOUR
    );
    let seen = remembered(NOW);
    let other_fleet = recall(seen.clone(), "theirs", &pool(), NOW, HOUR);
    refused(other_fleet, "another fleet");
    let small = Pool { max: 2, ..pool() };
    refused(
        recall(seen.clone(), "ours", &small, NOW, HOUR),
        "worker-3 is outside the range",
    );
    let named = Pool {
        prefix: "node".into(),
        ..pool()
    };
    refused(
        recall(seen, "ours", &named, NOW, HOUR),
        "worker-3 is outside the range",
    );
}

#[test]
fn one_cache_order_runs_at_a_time_and_latest_wins() {
    let mut cache = Cache::new(Some(HOUR));
    let now = Time::ZERO + HOUR;
    cache.stands(now, &worker("worker-3"), &held(1));
    assert!(matches!(
        cache.poll_order(),
        Some(CacheOrder::Save { held, .. }) if held.version == 1
    ));
    cache.stands(now, &worker("worker-3"), &held(2));
    cache.stands(now, &worker("worker-3"), &held(3));
    assert_eq!(cache.poll_order(), None, "the first is under way");
    assert!(!cache.is_settled());
    cache.answered(now, CacheAnswer::Done);
    assert!(matches!(
        cache.poll_order(),
        Some(CacheOrder::Save { held, .. }) if held.version == 3
    ));
    cache.erase();
    cache.answered(now, CacheAnswer::Done);
    assert_eq!(cache.poll_order(), Some(CacheOrder::Erase));
    cache.answered(now, CacheAnswer::Done);
    assert!(cache.is_settled());
}

#[test]
fn cache_is_rewritten_periodically_and_sooner_after_failure() {
    let mut cache = Cache::new(Some(HOUR));
    let (id, plan) = (worker("worker-3"), held(1));
    let mut now = Time::ZERO + HOUR;
    cache.stands(now, &id, &plan);
    assert!(cache.poll_order().is_some());
    cache.answered(now, CacheAnswer::Done);
    now = now + HOUR / 20;
    cache.stands(now, &id, &plan);
    assert_eq!(cache.poll_order(), None);
    now = now + HOUR / 20;
    assert_eq!(cache.refresh_due(), Some(now));
    cache.stands(now, &id, &plan);
    assert!(matches!(
        cache.poll_order(),
        Some(CacheOrder::Save { seen, .. }) if seen == now
    ));
    cache.answered(now, CacheAnswer::Failed);
    assert_eq!(cache.refresh_due(), Some(now + RETRY));
}

#[test]
fn without_cache_file_no_order_is_issued() {
    let mut cache = Cache::new(None);
    cache.load();
    cache.stands(Time::ZERO, &worker("worker-3"), &held(1));
    cache.erase();
    assert_eq!(cache.poll_order(), None);
    assert!(cache.is_settled());
    assert_eq!(cache.refresh_due(), None);
}
