use super::*;
use crate::error::Code;
use crate::store::Operation;

/// What the worker's key holds: an assignment of these partitions.
fn entry(term: Option<Term>, version: Version, partitions: &[&str]) -> Entry {
    let list: Vec<String> = partitions
        .iter()
        .map(|p| format!(r#"{{"keys":["{p}"],"weight":1}}"#))
        .collect();
    let term = term.map_or(String::new(), |term| format!(r#","term":{term}"#));
    let list = list.join(",");
    let text =
        format!(r#"{{"version":{version},"lifecycle":"emergency","partitions":[{list}]{term}}}"#);
    Entry {
        key: "assignment.w-0".into(),
        value: text.into_bytes(),
        revision: 1,
        operation: Operation::Put,
        age: None,
    }
}

fn deleted() -> Entry {
    Entry {
        operation: Operation::Delete,
        value: Vec::new(),
        ..entry(None, 0, &[])
    }
}

fn names(partitions: &[Partition]) -> Vec<String> {
    partitions.iter().map(Partition::subject).collect()
}

/// Added and removed, as names.
fn changes(change: &AssignmentChange) -> (Vec<String>, Vec<String>) {
    (names(&change.added), names(&change.removed))
}

fn applied(assignments: &Assignments) -> (Term, Version) {
    let applied = assignments.applied();
    (applied.term, applied.version)
}

/// Defect 10: the hook gets (old, new) where (added, removed) is promised, and is not called for
/// the first assignment.
#[test]
fn change_reports_acquired_and_released_from_first_assignment() {
    let mut assignments = Assignments::default();
    assert!(!assignments.has_one());
    let first = assignments.apply(&entry(Some(1), 1, &["a", "b"])).unwrap();
    let first = first.expect("the first one counts");
    assert_eq!(changes(&first), (vec!["a".into(), "b".into()], vec![]));
    assert_eq!(first.held.lifecycle, "emergency");
    let second = assignments.apply(&entry(Some(1), 2, &["b", "c"])).unwrap();
    let second = second.expect("a change");
    assert_eq!(changes(&second), (vec!["c".into()], vec!["a".into()]));
    assert_eq!(names(&assignments.held().partitions), ["b", "c"]);
    assert!(assignments.has_one());
}

/// A leader that finds nothing wrong with it leaves it as it is.
#[test]
fn first_assignment_is_applied_whatever_its_version() {
    let mut assignments = Assignments::default();
    assignments.apply(&entry(None, 0, &[])).unwrap();
    assert!(assignments.has_one());
    let second = assignments.apply(&entry(Some(1), 1, &["a"])).unwrap();
    assert!(second.is_some());
}

/// Defect 10: unordered goroutines let v5 overwrite v6.
#[test]
fn assignments_apply_in_order_of_term_and_version() {
    // (applied before, what comes, what is applied then)
    let cases = [
        ((Some(2), 5), (Some(2), 6), (2, 6)),
        ((Some(2), 6), (Some(2), 5), (2, 6)),
        ((Some(2), 6), (Some(1), 7), (2, 6)),
        // Brought under a new term by who took over.
        ((Some(2), 6), (Some(3), 6), (3, 6)),
        // The bucket lost its newest versions, and a leader opened a term above.
        ((Some(2), 6), (Some(3), 4), (3, 4)),
        // A leader without terms: by version alone, and the term does not go back.
        ((Some(2), 6), (None, 7), (2, 7)),
        ((Some(2), 6), (None, 6), (2, 6)),
        ((Some(2), 6), (None, 5), (2, 6)),
        ((None, 6), (Some(1), 7), (1, 7)),
        ((None, 6), (None, 7), (0, 7)),
    ];
    for (before, comes, after) in cases {
        let mut assignments = Assignments::default();
        assignments
            .apply(&entry(before.0, before.1, &["a"]))
            .unwrap();
        let earlier = applied(&assignments);
        let change = assignments.apply(&entry(comes.0, comes.1, &["b"])).unwrap();
        assert_eq!(applied(&assignments), after, "{before:?} then {comes:?}");
        assert_eq!(change.is_some(), earlier != after);
        assert_eq!(assignments.refused(), u64::from(earlier == after));
    }
}

/// A deposed leader's late write, after one without terms has led.
#[test]
fn seen_term_is_remembered_under_leader_without_terms() {
    let mut assignments = Assignments::default();
    assignments.apply(&entry(Some(3), 10, &["a"])).unwrap();
    assignments.apply(&entry(None, 11, &["b"])).unwrap();
    assert_eq!(assignments.held().term, 0);
    assert!(
        assignments
            .apply(&entry(Some(2), 12, &["a"]))
            .unwrap()
            .is_none()
    );
    assert!(
        assignments
            .apply(&entry(Some(3), 11, &["a"]))
            .unwrap()
            .is_none()
    );
    assert!(
        assignments
            .apply(&entry(Some(3), 12, &["a"]))
            .unwrap()
            .is_some()
    );
}

/// Defect 10: deletes are ignored.
#[test]
fn deleted_assignment_releases_all_partitions() {
    let mut assignments = Assignments::default();
    assert!(
        assignments.apply(&deleted()).unwrap().is_none(),
        "nothing was held"
    );
    assignments.apply(&entry(Some(1), 1, &["a"])).unwrap();
    let change = assignments.apply(&deleted()).unwrap().expect("a change");
    assert_eq!(changes(&change), (vec![], vec!["a".into()]));
    assert_eq!(applied(&assignments), (1, 1), "versions stay known");
    assert!(assignments.apply(&deleted()).unwrap().is_none());
    let again = assignments.apply(&entry(Some(1), 1, &["a"])).unwrap();
    assert!(again.is_some(), "the same one, restored");
    let change = assignments.gone().expect("a change");
    assert_eq!(changes(&change), (vec![], vec!["a".into()]));
}

#[test]
fn malformed_value_changes_nothing() {
    let mut assignments = Assignments::default();
    assignments.apply(&entry(Some(1), 1, &["a"])).unwrap();
    let malformed = Entry {
        value: b"{junk".to_vec(),
        ..entry(None, 0, &[])
    };
    assignments.apply(&malformed).unwrap_err();
    assert_eq!(names(&assignments.held().partitions), ["a"]);
}

#[test]
fn repeated_assignment_is_no_change() {
    let mut assignments = Assignments::default();
    assignments.apply(&entry(Some(1), 1, &["a"])).unwrap();
    assert!(
        assignments
            .apply(&entry(Some(1), 1, &["a"]))
            .unwrap()
            .is_none()
    );
    assert_eq!(assignments.refused(), 0);
}

#[test]
fn suspended_ownership_holds_nothing_whatever_store_reports() {
    let mut assignments = Assignments::default();
    assignments.apply(&entry(Some(1), 1, &["a"])).unwrap();
    let change = assignments.suspend().expect("a change");
    assert_eq!(changes(&change), (vec![], vec!["a".into()]));
    assert!(assignments.is_suspended());
    assert!(assignments.suspend().is_none());
    let change = assignments.apply(&entry(Some(1), 2, &["b"])).unwrap();
    assert!(change.expect("a version").held.partitions.is_empty());
    let change = assignments.resume().expect("a change");
    assert_eq!(changes(&change), (vec!["b".into()], vec![]));
}

#[test]
fn new_id_starts_without_assignment() {
    let mut assignments = Assignments::default();
    assignments.apply(&entry(Some(5), 50, &["a"])).unwrap();
    let change = assignments.forget().expect("a change");
    assert_eq!(changes(&change), (vec![], vec!["a".into()]));
    assert_eq!(applied(&assignments), (0, 0));
    assert!(!assignments.has_one());
    let change = assignments.apply(&entry(Some(5), 50, &["b"])).unwrap();
    assert!(change.is_some(), "versions of another id do not count");
}

fn recalled(term: Term, version: Version, partitions: &[&str]) -> Held {
    Held {
        version,
        term,
        lifecycle: "planned_scale".into(),
        partitions: partitions.iter().map(|p| Partition::new([*p], 1)).collect(),
    }
}

#[test]
fn cached_assignment_is_held_and_marked_until_store_confirms() {
    let mut assignments = Assignments::default();
    let change = assignments.recall(recalled(2, 7, &["a", "b"])).unwrap();
    assert_eq!(changes(&change), (vec!["a".into(), "b".into()], vec![]));
    assert!(change.held.is_cached());
    assert!(assignments.is_recalled() && !assignments.has_one());
    assert_eq!(applied(&assignments), (2, 7), "reported to the leader");
    // The very same from the store: confirmed, and nothing came or went.
    let change = assignments.apply(&entry(Some(2), 7, &["a", "b"]));
    let change = change.unwrap().expect("it is confirmed");
    assert_eq!(changes(&change), (vec![], vec![]));
    assert!(!change.held.is_cached() && !assignments.is_recalled());
    assert!(assignments.has_one());
}

#[test]
fn first_assignment_from_store_replaces_cached_one() {
    for (term, version) in [(Some(3), 9), (Some(2), 7), (Some(1), 3), (None, 1)] {
        let mut assignments = Assignments::default();
        assignments.recall(recalled(2, 7, &["a", "b"]));
        let change = assignments.apply(&entry(term, version, &["b", "c"]));
        let change = change.unwrap().expect("the store's word counts");
        assert_eq!(changes(&change), (vec!["c".into()], vec!["a".into()]));
        assert_eq!(applied(&assignments), (term.unwrap_or(0), version));
    }
    let mut assignments = Assignments::default();
    assignments.recall(recalled(2, 7, &["a"]));
    let change = assignments.apply(&deleted()).unwrap().expect("nothing");
    assert_eq!(changes(&change), (vec![], vec!["a".into()]));
    assert_eq!(applied(&assignments), (0, 0));
}

#[test]
fn cached_assignment_never_replaces_one_read_from_store() {
    let mut assignments = Assignments::default();
    assignments.apply(&entry(Some(1), 1, &["a"])).unwrap();
    assert_eq!(assignments.recall(recalled(9, 99, &["b"])), None);
    assert_eq!(names(&assignments.held().partitions), ["a"]);
}

#[test]
fn malformed_value_keeps_cached_assignment() {
    let mut assignments = Assignments::default();
    assignments.recall(recalled(2, 7, &["a"]));
    let mut malformed = entry(None, 1, &[]);
    malformed.value = b"{".to_vec();
    assert!(assignments.apply(&malformed).is_err());
    assert!(assignments.is_recalled());
}

#[test]
fn implausible_term_or_version_is_malformed_and_changes_nothing() {
    let mut assignments = Assignments::default();
    assignments.apply(&entry(Some(3), 7, &["a"])).unwrap();
    for number in [i64::MAX, i64::MAX - 1, i64::MAX / 2 + 1] {
        for (term, version) in [(Some(number), 8), (Some(3), number), (None, number)] {
            let error = assignments.apply(&entry(term, version, &["evil"]));
            let error = error.unwrap_err();
            assert_eq!(error.code(), Code::InvalidData);
            assert!(error.message().contains(&number.to_string()), "{error}");
            assert_eq!(applied(&assignments), (3, 7));
            assert_eq!(names(&assignments.held().partitions), ["a"]);
        }
    }
    let next = assignments.apply(&entry(Some(3), 8, &["b"])).unwrap();
    assert!(next.is_some(), "counts on");
}
