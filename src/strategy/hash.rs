//! The hashes that divvy and parti agree on.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Hash of a partition's keys: XXH3-64 of the first key under `seed`, then each further key
/// hashed with the previous hash as its seed. 0 when there are no keys.
#[must_use]
pub fn hash_keys<K: AsRef<str>>(keys: &[K], seed: u64) -> u64 {
    let mut keys = keys.iter();
    let Some(first) = keys.next() else { return 0 };
    let first = xxh3_64_with_seed(first.as_ref().as_bytes(), seed);
    keys.fold(first, |hash, key| {
        xxh3_64_with_seed(key.as_ref().as_bytes(), hash)
    })
}

/// Hash of a worker's name, the seed of its virtual nodes.
pub(super) fn hash_worker(name: &str, seed: u64) -> u64 {
    xxh3_64_with_seed(name.as_bytes(), seed)
}

/// Place of a worker's `number`th virtual node on the ring.
pub(super) fn hash_virtual_node(worker_hash: u64, number: u32) -> u64 {
    xxh3_64_with_seed(&u64::from(number).to_le_bytes(), worker_hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct File {
        cases: Vec<Case>,
    }

    #[derive(serde::Deserialize)]
    struct Case {
        keys: Vec<String>,
        seed: String,
        hash: String,
    }

    #[test]
    fn partition_hashes_match_parti() {
        let file: File =
            serde_json::from_str(include_str!("../../tests/vectors/partition_hashes.json"))
                .unwrap();
        assert!(file.cases.len() > 400);
        for case in &file.cases {
            let seed = u64::from_str_radix(&case.seed, 16).unwrap();
            let hash = format!("{:016x}", hash_keys(&case.keys, seed));
            assert_eq!(hash, case.hash, "keys {:?}, seed {}", case.keys, case.seed);
        }
    }
}
