//! Digests of the configuration of one replica, by which the fleet finds replicas that differ.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::vocabulary::ConfigPart;

/// Digests of what each replica should have in common with the leader. A part that is not known
/// has none. In JSON each is a text of eight hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConfigDigest {
    /// Digest of the keys of the partition list.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_hex")]
    pub list: Option<u32>,
    /// Digest of the strategy and its parameters.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_hex")]
    pub strategy: Option<u32>,
    /// Digest of the settings by which a leader decides when to publish.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_hex")]
    pub settings: Option<u32>,
}

impl ConfigDigest {
    /// Whether no part is known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the digest of one part.
    #[must_use]
    pub fn part(&self, part: ConfigPart) -> Option<u32> {
        match part {
            ConfigPart::List => self.list,
            ConfigPart::Strategy => self.strategy,
            ConfigPart::Settings => self.settings,
        }
    }

    /// Returns the parts that both know and that differ.
    #[must_use]
    pub fn differences(&self, other: &Self) -> ConfigParts {
        let differs = |part: ConfigPart| {
            let both = self.part(part).zip(other.part(part));
            both.is_some_and(|(a, b)| a != b)
        };
        let parts = ConfigPart::ALL.iter().zip(0_u8..);
        ConfigParts(parts.fold(0, |bits, (&part, bit)| {
            bits | u8::from(differs(part)) << bit
        }))
    }
}

/// A set of parts of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfigParts(u8);

impl ConfigParts {
    /// Whether it has no part.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the parts, in order.
    pub fn iter(self) -> impl Iterator<Item = ConfigPart> {
        let parts = ConfigPart::ALL.iter().copied().zip(0_u8..);
        parts
            .filter(move |&(_, bit)| self.0 & (1 << bit) != 0)
            .map(|(part, _)| part)
    }
}

impl fmt::Display for ConfigParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{}", part.name())?;
        }
        Ok(())
    }
}

/// Returns the digest of a text: the low half of XXH3-64.
#[must_use]
pub fn digest_of_text(text: &str) -> u32 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes()) as u32
}

/// Shows a digest as people see it.
#[must_use]
pub fn hex(digest: u32) -> String {
    format!("{digest:08x}")
}

fn as_hex<S: Serializer>(digest: &Option<u32>, to: S) -> Result<S::Ok, S::Error> {
    match digest {
        Some(digest) => to.collect_str(&format_args!("{digest:08x}")),
        None => to.serialize_none(),
    }
}

/// Reads the digests of a record. What is malformed counts as unknown, so that it cannot make the
/// rest of the record unreadable. Allocates nothing.
pub(super) fn lenient<'de, D: Deserializer<'de>>(from: D) -> Result<ConfigDigest, D::Error> {
    #[derive(Default, Deserialize)]
    struct Stored<'a> {
        #[serde(borrow, default)]
        list: Option<&'a str>,
        #[serde(borrow, default)]
        strategy: Option<&'a str>,
        #[serde(borrow, default)]
        settings: Option<&'a str>,
    }
    let raw = <&'de RawValue>::deserialize(from)?;
    let stored: Stored<'_> = serde_json::from_str(raw.get()).unwrap_or_default();
    let digest = |text: Option<&str>| {
        let text =
            text.filter(|text| text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit()));
        text.and_then(|text| u32::from_str_radix(text, 16).ok())
    };
    Ok(ConfigDigest {
        list: digest(stored.list),
        strategy: digest(stored.strategy),
        settings: digest(stored.settings),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::WorkerId;
    use crate::wire::{Applied, Fence, Reported, decode_heartbeat, encode_heartbeat};

    #[test]
    fn only_parts_that_both_replicas_know_can_differ() {
        let ours = ConfigDigest {
            list: Some(1),
            strategy: Some(2),
            settings: Some(3),
        };
        let unknown = ConfigDigest::default();
        assert!(ours.differences(&ours).is_empty());
        assert!(ours.differences(&unknown).is_empty());
        let theirs = ConfigDigest {
            list: Some(7),
            strategy: None,
            settings: Some(9),
        };
        let parts = ours.differences(&theirs);
        assert_eq!(parts.to_string(), "list, settings");
        assert_eq!(parts, theirs.differences(&ours));
    }

    #[test]
    fn heartbeat_and_fence_carry_digests_and_survive_malformed_ones() {
        let config = ConfigDigest {
            list: Some(0x00c0_ffee),
            strategy: None,
            settings: Some(u32::MAX),
        };
        let worker = WorkerId::new("worker-7").unwrap();
        let applied = Applied {
            term: 3,
            version: 42,
        };
        let report = Reported {
            config,
            ..applied.into()
        };
        let bytes = encode_heartbeat(&worker, "t", report);
        let text = String::from_utf8(bytes.clone()).unwrap();
        let digests = r#""config":{"list":"00c0ffee","settings":"ffffffff"}"#;
        assert!(text.contains(digests), "{text}");
        assert_eq!(decode_heartbeat(&bytes), Some(report));
        let fence = Fence {
            term: 3,
            config,
            ..Fence::default()
        };
        assert_eq!(Fence::decode(&fence.encode()).unwrap(), fence);
        for malformed in [
            "7",
            "null",
            "[]",
            "{\"list\":7}",
            "{\"list\":\"+0c0ffee\"}",
            "\"\\u0041\"",
        ] {
            let text = text.replace(digests, &format!("\"config\":{malformed}"));
            assert_eq!(
                decode_heartbeat(text.as_bytes()),
                Some(applied.into()),
                "{text}"
            );
            let text = format!("{{\"term\":3,\"config\":{malformed}}}");
            assert_eq!(
                Fence::decode(text.as_bytes()).unwrap().config,
                ConfigDigest::default()
            );
        }
    }
}
