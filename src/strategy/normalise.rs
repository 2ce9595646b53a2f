//! Canonical order, and refusal of lists that have none.

use crate::error::{Code, Error, Result};
use crate::types::{Partition, WorkerId, truncated};

/// How many offenders a message names.
const OFFENDERS_NAMED_MAX: usize = 3;

/// Sorts partitions into canonical order: key by key, bytewise, shorter first.
///
/// # Errors
/// [`Code::InvalidArgument`] if a partition has no keys or occurs twice; the message names the
/// first few and the total.
pub fn canonical_partitions(mut partitions: Vec<Partition>) -> Result<Vec<Partition>> {
    let nameless = partitions.iter().filter(|p| p.keys.is_empty()).count();
    if nameless > 0 {
        let places = partitions.iter().zip(0_usize..);
        let places = places.filter(|(p, _)| p.keys.is_empty());
        let named = places.map(|(p, place)| format!("number {place} (weight {})", p.weight));
        return Err(refusal(nameless, "without keys", named));
    }

    // A list that was sorted before, the usual case, costs one comparison a partition.
    partitions.sort_unstable();
    let is_repeated = |pair: &&[Partition]| pair[0].keys == pair[1].keys;
    let repeated = || partitions.windows(2).filter(is_repeated);
    match repeated().count() {
        0 => Ok(partitions),
        count => {
            let named = repeated().map(|pair| format!("{:?}", truncated(&pair[0].id(), 60)));
            Err(refusal(count, "with keys that another one has", named))
        }
    }
}

/// Sorts workers bytewise and drops repetitions.
#[must_use]
pub fn canonical_workers(mut workers: Vec<WorkerId>) -> Vec<WorkerId> {
    workers.sort_unstable();
    workers.dedup();
    workers
}

fn refusal(count: usize, fault: &str, named: impl Iterator<Item = String>) -> Error {
    let named: Vec<String> = named.take(OFFENDERS_NAMED_MAX).collect();
    let more = if count > named.len() { ", ..." } else { "" };
    Error::new(
        Code::InvalidArgument,
        format!("{count} partitions {fault}: {}{more}", named.join(", ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_without_keys_are_rejected_by_position_and_count() {
        let mut list = vec![Partition::new(["a"], 1)];
        list.extend((0..50).map(|weight| Partition::new(Vec::<String>::new(), weight)));
        let error = canonical_partitions(list).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(
            error.message(),
            "50 partitions without keys: number 1 (weight 0), number 2 (weight 1), \
             number 3 (weight 2), ..."
        );
    }

    #[test]
    fn duplicate_keys_are_rejected_whatever_their_weights() {
        let long = "é".repeat(100_000);
        let keys = ["b", "a", "b", "a", &long, "c", &long];
        let list: Vec<_> = keys.into_iter().zip(1..).collect();
        let list = list.into_iter().map(|(k, w)| Partition::new([k], w));
        let error = canonical_partitions(list.collect()).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(
            error
                .message()
                .starts_with("3 partitions with keys that another one has: \"a\", \"b\", \"é")
        );
        assert!(error.message().len() < 300);
    }

    #[test]
    fn keys_are_compared_as_lists_not_joined() {
        let list = vec![
            Partition::new(["a-b"], 1),
            Partition::new(["a", "b"], 1),
            Partition::new(["a", ""], 1),
            Partition::new(["a"], 1),
            Partition::new([""], 1),
        ];
        let sorted = canonical_partitions(list).unwrap();
        let keys: Vec<_> = sorted.iter().map(|p| p.keys.join("|")).collect();
        assert_eq!(keys, ["", "a", "a|", "a|b", "a-b"]);
    }

    #[test]
    fn workers_are_sorted_and_unique() {
        let ids = ["w-10", "w-2", "W", "w-10"].map(|id| WorkerId::new(id).unwrap());
        let sorted = canonical_workers(ids.to_vec());
        assert_eq!(format!("{sorted:?}"), r#"["W", "w-10", "w-2"]"#);
    }
}
