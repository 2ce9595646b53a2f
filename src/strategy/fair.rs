//! The fair level: what each worker would hold if partitions could be split at will.

use std::cmp::Reverse;

/// Load per capacity that all workers can be brought to, partitions too heavy for that set
/// apart: one by one from the heaviest, those heavier than the mean of what is left are taken
/// away, each alone with one worker (the largest that is left).
///
/// `weights` are positive and their sum is exact in an `f64` (at most 2^53).
pub(super) fn fair_level(weights: &[i64], capacities: &[f64]) -> f64 {
    let mut weight_left: i64 = weights.iter().sum();
    let mut capacity_left: f64 = capacities.iter().sum();
    let largest = capacities.iter().copied().fold(0.0, f64::max);
    let heaviest = weights.iter().copied().max().unwrap_or(0);
    let level = weight_left as f64 / capacity_left;
    if heaviest as f64 <= level * largest {
        return level;
    }

    // Each takes a worker with it, and the last worker keeps what is left.
    let giants_max = capacities.len() - 1;
    let mut giants = weights.to_vec();
    if giants.len() > giants_max {
        giants.select_nth_unstable_by_key(giants_max, |&weight| Reverse(weight));
        giants.truncate(giants_max);
    }
    giants.sort_unstable_by_key(|&weight| Reverse(weight));
    let mut largest_first = capacities.to_vec();
    largest_first.sort_unstable_by(|a, b| b.total_cmp(a));
    for (weight, capacity) in giants.into_iter().zip(largest_first) {
        if weight as f64 / capacity <= weight_left as f64 / capacity_left {
            break;
        }
        weight_left -= weight;
        capacity_left -= capacity;
    }
    weight_left as f64 / capacity_left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fair_level_of_equal_weights_is_mean() {
        assert_eq!(fair_level(&[3; 10], &[1.0; 4]), 7.5);
        assert_eq!(fair_level(&[], &[1.0; 4]), 0.0);
    }

    #[test]
    fn fair_level_excludes_oversized_partitions() {
        assert_eq!(fair_level(&[100, 40, 6, 6, 6, 6], &[1.0; 4]), 12.0);
        assert_eq!(fair_level(&[5, 1], &[1.0; 2]), 1.0);
        assert_eq!(fair_level(&[5, 3], &[1.0; 4]), 0.0);
        assert_eq!(fair_level(&[7], &[1.0]), 7.0);
    }

    #[test]
    fn fair_level_pairs_heaviest_partition_with_largest_worker() {
        assert_eq!(fair_level(&[80, 10, 10], &[1.0, 4.0, 1.0]), 10.0);
        assert_eq!(fair_level(&[40, 10, 10], &[1.0, 4.0, 1.0]), 10.0);
    }
}
