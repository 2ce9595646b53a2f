//! The partition list of an assignment, and how many bytes it has.
//!
//! The form is parti's, which every reader of a fleet must be able to decode: a leader of parti
//! learns versions from any assignment, so that a compressed value is no option. A weight of 0 is
//! omitted, because every reader takes an absent weight for 0.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::types::Partition;

/// Bytes of an assignment around its partitions, at most: version, term and lifecycle.
pub const ASSIGNMENT_OVERHEAD: usize = 128;

#[derive(Serialize)]
struct PartitionToStore<'a> {
    keys: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<i64>,
}

/// The partition list of an assignment as JSON: the part that stays the same while only version,
/// term and lifecycle change.
#[must_use]
pub fn encode_partitions<'a>(partitions: impl Iterator<Item = &'a Partition>) -> Box<RawValue> {
    let stored = partitions.map(|partition| PartitionToStore {
        keys: &partition.keys,
        weight: Some(partition.weight).filter(|&weight| weight != 0),
    });
    let list: Vec<_> = stored.collect();
    serde_json::value::to_raw_value(&list).unwrap_or_else(|error| super::json_never_fails(&error))
}

/// Returns how many bytes a partition has in an assignment, with the comma that follows it.
#[must_use]
pub fn encoded_len(partition: &Partition) -> usize {
    const EMPTY: usize = r#"{"keys":[]},"#.len();
    const WEIGHT: usize = r#","weight":"#.len();
    // Quotation marks and a comma, but the last has none.
    let keys = partition.keys.iter().map(|key| text_len(key) + 3);
    let keys = keys.sum::<usize>().saturating_sub(1);
    let weight = match partition.weight {
        0 => 0,
        weight => WEIGHT + usize::from(weight < 0) + digits(weight.unsigned_abs()),
    };
    EMPTY + keys + weight
}

/// Bytes of a JSON text, without the quotation marks.
fn text_len(text: &str) -> usize {
    let escaped = text.bytes().map(|byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
        0..0x20 => 5,
        _ => 0,
    });
    text.len() + escaped.sum::<usize>()
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Reason;
    use crate::wire::Assignment;

    #[test]
    fn encoded_length_is_that_of_the_encoding() {
        let controls: String = (0..=0x7f).map(char::from).collect();
        let keys = ["", "p", "tool001", "ünï", "\u{2028}", controls.as_str()];
        let mut all = vec![Partition::new(Vec::<String>::new(), 0)];
        for weight in [0, 1, 9, 10, 100, -1, i64::MAX, i64::MIN] {
            all.extend(keys.map(|key| Partition::new([key], weight)));
            all.push(Partition::new(keys, weight));
        }
        for partition in &all {
            let one = encode_partitions([partition].into_iter());
            // Without the brackets, with a comma.
            assert_eq!(encoded_len(partition), one.get().len() - 1, "{one}");
        }
        let list = encode_partitions(all.iter());
        let sum: usize = all.iter().map(encoded_len).sum();
        assert_eq!(sum, list.get().len() - 1);
        for reason in Reason::ALL {
            let bytes = Assignment::encode(i64::MAX, i64::MAX, reason.name(), &list);
            assert!(bytes.len() <= ASSIGNMENT_OVERHEAD + sum, "{reason}");
        }
    }

    #[test]
    fn weight_of_zero_is_omitted_and_read_back() {
        let partitions = [Partition::new(["p"], 0), Partition::new(["q"], 7)];
        let list = encode_partitions(partitions.iter());
        assert_eq!(list.get(), r#"[{"keys":["p"]},{"keys":["q"],"weight":7}]"#);
        let bytes = Assignment::encode(1, 1, "emergency", &list);
        assert_eq!(Assignment::decode(&bytes).unwrap().partitions, partitions);
    }
}
