//! The wire format shared with parti: key names and value bytes.
//!
//! Decoding rejects what it does not understand and never guesses; unknown JSON fields are
//! ignored, so that either side may add some. See `DESIGN` in the README for the table of keys.

mod config_digest;
mod fleet_record;
mod held_counts;
mod partitions;

use serde::{Deserialize, Serialize};

pub use self::config_digest::{ConfigDigest, ConfigParts, digest_of_text, hex};
pub use self::fleet_record::FleetRecord;
pub use self::held_counts::HeldCounts;
pub use self::partitions::{ASSIGNMENT_OVERHEAD, encode_partitions, encoded_len};
use crate::error::{Code, Error, Result};
use crate::types::{Partition, Term, Version, WORKER_ID_MAX_BYTES, WorkerId, key_fault, truncated};

/// Key of the fence record in the assignment bucket. parti ignores keys without its prefix.
pub const FENCE_KEY: &str = "divvy.fence";
/// Key of the fleet record in the assignment bucket.
pub const FLEET_KEY: &str = "divvy.fleet";
/// Key of the commit record in the assignment bucket.
pub const COMMIT_KEY: &str = "divvy.commit";
/// Key that carries the fence check of a batch without a commit record.
pub const GUARD_KEY: &str = "divvy.guard";
/// Key of the leader's lease in the election bucket.
pub const LEASE_KEY: &str = "leader";
/// The bucket in which parti v2 keeps the claims of its two-phase hand-over.
pub const PARTI_HANDOFF: &str = "parti-handoff";
/// Prefix of the keys that are divvy's alone.
pub const DIVVY_PREFIX: &str = "divvy";

/// The longest key prefix, in bytes: a key holds at most 512, a worker id
/// [`WORKER_ID_MAX_BYTES`] of them.
pub const PREFIX_MAX_BYTES: usize = 255;

/// Builds and takes apart the keys of workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPrefix(String);

impl KeyPrefix {
    /// Takes a prefix such as `heartbeat`.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] unless it is 1 to [`PREFIX_MAX_BYTES`] bytes that a key may hold
    /// and not `divvy`.
    pub fn new(prefix: &str) -> Result<Self> {
        let fault = key_fault(prefix, PREFIX_MAX_BYTES).or_else(|| {
            let divvys = prefix == DIVVY_PREFIX || prefix.starts_with("divvy.");
            divvys.then_some("is divvy's own")
        });
        match fault {
            None => Ok(Self(prefix.to_owned())),
            Some(fault) => Err(Error::new(
                Code::InvalidArgument,
                format!("key prefix {:?} {fault}", truncated(prefix, 60)),
            )),
        }
    }

    /// The prefix itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The worker's key.
    #[must_use]
    pub fn key(&self, worker: &WorkerId) -> String {
        format!("{}.{worker}", self.0)
    }

    /// The key of the record that decides in a fleet of parti v2.
    #[must_use]
    pub fn v2_commit_key(&self) -> String {
        format!("{}._commit", self.0)
    }

    /// Whether `key` belongs to the protocol of another program, such as parti v2: the part after
    /// the prefix begins with an underscore.
    #[must_use]
    pub fn is_protocol_key(&self, key: &str) -> bool {
        self.suffix(key).is_some_and(|rest| rest.starts_with('_'))
    }

    /// The part of `key` that should be a worker id; `None` for a key of another prefix.
    #[must_use]
    pub fn suffix<'k>(&self, key: &'k str) -> Option<&'k str> {
        key.strip_prefix(self.0.as_str())?.strip_prefix('.')
    }
}

/// What one worker holds, as stored under its assignment key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The plan's version.
    pub version: Version,
    /// The term it was published in; `None` when a leader without terms (parti) wrote it.
    pub term: Option<Term>,
    /// Why the plan was made. Kept as text: newer leaders may know more reasons.
    pub lifecycle: String,
    /// The worker's partitions.
    pub partitions: Vec<Partition>,
}

#[derive(Deserialize)]
struct StoredAssignment {
    version: Version,
    #[serde(default)]
    term: Option<Term>,
    #[serde(default)]
    lifecycle: String,
    #[serde(default)]
    partitions: Option<Vec<StoredPartition>>,
}

#[derive(Deserialize)]
struct StoredPartition {
    #[serde(default)]
    keys: Option<Vec<String>>,
    #[serde(default)]
    weight: i64,
}

#[derive(Serialize)]
struct AssignmentToStore<'a> {
    version: Version,
    lifecycle: &'a str,
    partitions: &'a serde_json::value::RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    term: Option<Term>,
}

impl Assignment {
    /// Reads a stored assignment.
    ///
    /// # Errors
    /// [`Code::InvalidData`], saying what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let stored: StoredAssignment = from_json(bytes)?;
        check_number("version", stored.version)?;
        check_number("term", stored.term.unwrap_or(0))?;
        let partitions = stored
            .partitions
            .unwrap_or_default()
            .into_iter()
            .map(|p| Partition {
                keys: p.keys.unwrap_or_default(),
                weight: p.weight,
            })
            .collect();
        Ok(Self {
            version: stored.version,
            term: stored.term,
            lifecycle: stored.lifecycle,
            partitions,
        })
    }

    /// The bytes to store, around a partition list from [`encode_partitions`]. Only what a leader
    /// without terms wrote has none.
    #[must_use]
    pub fn encode(
        version: Version,
        term: impl Into<Option<Term>>,
        lifecycle: &str,
        partitions: &serde_json::value::RawValue,
    ) -> Vec<u8> {
        to_json(&AssignmentToStore {
            version,
            lifecycle,
            partitions,
            term: term.into(),
        })
    }
}

/// The fence record: who leads, in which term.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The leader's fencing token.
    pub term: Term,
    /// The leader's name.
    #[serde(default)]
    pub leader: String,
    /// When it took over, by its own wall clock (RFC 3339). For people only.
    #[serde(default)]
    pub time: String,
    /// The publish mode: `A` for atomic, `B` for per key. The successor of a per-key leader makes
    /// every revision stale that the former knows.
    #[serde(default)]
    pub class: String,
    /// The highest term in which a per-key leader may have learned the revisions of keys; 0: none.
    /// Copied from fence to fence, because a take-over may end before it has rewritten the keys of
    /// these terms.
    #[serde(default)]
    pub class_b_until: Term,
    /// The highest version that can have been used before this term. A second record of it, in
    /// case the commit record is lost.
    #[serde(default)]
    pub version: Version,
    /// Random for each fence, so that no two leaders ever write the same bytes.
    #[serde(default)]
    pub nonce: u64,
    /// Digests of the leader's configuration.
    #[serde(
        default,
        skip_serializing_if = "ConfigDigest::is_unknown",
        deserialize_with = "config_digest::lenient"
    )]
    pub config: ConfigDigest,
}

/// The commit record: written last (per-key mode) or with the plan (atomic mode).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The term it was published in.
    pub term: Term,
    /// The version that is complete.
    pub version: Version,
    /// Why the plan was made.
    #[serde(default)]
    pub lifecycle: String,
    /// Digest over all assignments of the plan.
    #[serde(default)]
    pub digest: String,
    /// How many workers the plan has.
    #[serde(default)]
    pub workers: u64,
    /// How many partitions the plan has.
    #[serde(default)]
    pub partitions: u64,
    /// How many partitions have no owner, because an assignment with them would be too large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unassigned: Option<u64>,
    /// When it was published, by the leader's wall clock (RFC 3339). For people only.
    #[serde(default)]
    pub time: String,
}

impl Fence {
    /// Reads a stored fence record.
    ///
    /// # Errors
    /// [`Code::InvalidData`], saying what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let fence: Self = from_json(bytes)?;
        check_number("term", fence.term)?;
        check_number("version", fence.version)?;
        Ok(fence)
    }

    /// The bytes to store.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_json(self)
    }
}

impl Commit {
    /// Reads a stored commit record.
    ///
    /// # Errors
    /// [`Code::InvalidData`], saying what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let commit: Self = from_json(bytes)?;
        check_number("term", commit.term)?;
        check_number("version", commit.version)?;
        Ok(commit)
    }

    /// The bytes to store.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_json(self)
    }
}

/// What a worker reports in its heartbeat: the assignment it has applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Applied {
    /// Term of the applied assignment; 0 when it had none.
    pub term: Term,
    /// Version of the applied assignment; 0 when none was applied yet.
    pub version: Version,
}

impl Applied {
    /// Whether it holds a higher term or a higher version than `other`.
    #[must_use]
    pub fn exceeds(self, other: Applied) -> bool {
        self.term > other.term || self.version > other.version
    }

    /// Whether a worker that has applied this refuses an assignment as older: by (term, version),
    /// or by the version alone where one of the two has no term.
    #[must_use]
    pub fn refuses(self, term: Option<Term>, version: Version) -> bool {
        match term {
            Some(term) if self.term > 0 => (term, version) < (self.term, self.version),
            _ => version < self.version,
        }
    }

    /// The higher term and the higher version of both.
    #[must_use]
    pub fn highest(self, other: Applied) -> Applied {
        Applied {
            term: self.term.max(other.term),
            version: self.version.max(other.version),
        }
    }
}

/// What a heartbeat reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// What the worker has applied under its present id.
    pub applied: Applied,
    /// The highest term and version that its process has applied under any id, or published as a
    /// leader. Never below `applied`.
    pub highest: Applied,
    /// Digests of its configuration.
    pub config: ConfigDigest,
    /// The list that it holds back as the leader.
    pub held_list: Option<HeldCounts>,
}

impl From<Applied> for Reported {
    fn from(applied: Applied) -> Self {
        Self {
            applied,
            highest: applied,
            config: ConfigDigest::default(),
            held_list: None,
        }
    }
}

/// How many versions a worker's key is ahead of what it has applied; `None` where one of them is
/// not known. Each worker is measured against its own key: what did not change is not rewritten.
#[must_use]
pub fn lag(assigned: Option<Version>, applied: Option<Version>) -> Option<Version> {
    let (assigned, applied) = assigned.zip(applied)?;
    Some(assigned.saturating_sub(applied).max(0))
}

#[derive(Deserialize)]
struct StoredHeartbeat {
    #[serde(default)]
    applied_term: Option<Term>,
    #[serde(default)]
    applied_version: Option<Version>,
    #[serde(default)]
    highest_term: Term,
    #[serde(default)]
    highest_version: Version,
    #[serde(default, deserialize_with = "config_digest::lenient")]
    config: ConfigDigest,
    #[serde(default, deserialize_with = "held_counts::lenient")]
    held_list: Option<HeldCounts>,
}

#[derive(Serialize)]
struct HeartbeatToStore<'a> {
    worker: &'a str,
    time: &'a str,
    applied_term: Term,
    applied_version: Version,
    #[serde(skip_serializing_if = "Option::is_none")]
    highest_term: Option<Term>,
    #[serde(skip_serializing_if = "Option::is_none")]
    highest_version: Option<Version>,
    #[serde(skip_serializing_if = "ConfigDigest::is_unknown")]
    config: ConfigDigest,
    #[serde(skip_serializing_if = "Option::is_none")]
    held_list: Option<HeldCounts>,
}

/// What a heartbeat reports; `None` for parti's (a bare time) and for anything else, since
/// readers accept any value as a sign of life. Allocates nothing.
#[must_use]
pub fn decode_heartbeat(bytes: &[u8]) -> Option<Reported> {
    if bytes.first() != Some(&b'{') {
        return None;
    }
    let stored: StoredHeartbeat = serde_json::from_slice(bytes).ok()?;
    let applied = Applied {
        term: stored.applied_term.unwrap_or(0),
        version: stored.applied_version?,
    };
    let highest = Applied {
        term: stored.highest_term,
        version: stored.highest_version,
    };
    let is_valid = [applied, highest]
        .iter()
        .all(|a| a.term >= 0 && a.version >= 0);
    is_valid.then_some(Reported {
        applied,
        highest: highest.highest(applied),
        config: stored.config,
        held_list: stored.held_list,
    })
}

/// The bit by which a heartbeat of parti v2 says that its fleet runs two-phase hand-over.
const TWO_PHASE: u64 = 2;

/// Whether a heartbeat says that its fleet hands partitions over in two phases (parti v2).
#[must_use]
pub fn runs_two_phase(heartbeat: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct V2 {
        capabilities: u64,
    }
    heartbeat.first() == Some(&b'{')
        && serde_json::from_slice::<V2>(heartbeat).is_ok_and(|v2| v2.capabilities & TWO_PHASE != 0)
}

/// Why divvy does not lead a fleet in which a commit record of parti v2 decides.
#[must_use]
pub fn foreign_commit(key: &str) -> Error {
    Error::new(
        Code::Unsupported,
        "a leader of parti v2 decides in this bucket: divvy follows it, but does not lead; keep a \
         worker of parti v2 in the fleet, or stop all of them and delete the key",
    )
    .with_key(key.to_owned())
}

/// A heartbeat's bytes.
#[must_use]
pub fn encode_heartbeat(worker: &WorkerId, time: &str, report: impl Into<Reported>) -> Vec<u8> {
    let Reported {
        applied,
        highest,
        config,
        held_list,
    } = report.into();
    to_json(&HeartbeatToStore {
        worker: worker.as_str(),
        time,
        applied_term: applied.term,
        applied_version: applied.version,
        highest_term: (highest.term > applied.term).then_some(highest.term),
        highest_version: (highest.version > applied.version).then_some(highest.version),
        config,
        held_list,
    })
}

/// The numbers in a claim of a stable id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimNonce {
    /// Drawn for each claim, to distinguish claims of the same moment. Below 10^9.
    pub claim: u32,
    /// Drawn once for each process, so that it recognises its own former claims. Below 10^9.
    pub process: u32,
}

/// Digits of each number in a claim, and of its time below a second.
const CLAIM_DIGITS: usize = 9;

/// The bytes of a claimed stable id: RFC 3339 time to the nanosecond, with the numbers of
/// [`ClaimNonce`] as further digits of the fraction, and after it the instance, if there is one.
#[must_use]
pub fn encode_claim(time: &str, nonce: ClaimNonce, instance: Option<&str>) -> Vec<u8> {
    let digits = time.strip_suffix('Z').unwrap_or(time);
    let ClaimNonce { claim, process } = nonce;
    let instance = InstanceSuffix(instance);
    format!("{digits}{claim:09}{process:09}Z{instance}").into_bytes()
}

/// What introduces the instance in the value of a stable id.
const INSTANCE: &str = " instance=";

struct InstanceSuffix<'a>(Option<&'a str>);

impl std::fmt::Display for InstanceSuffix<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0
            .map_or(Ok(()), |instance| write!(f, "{INSTANCE}{instance}"))
    }
}

/// The longest instance, in bytes.
pub const INSTANCE_MAX_BYTES: usize = 253;

/// Why `text` cannot be an instance; `None` if it can.
#[must_use]
pub fn instance_fault(text: &str) -> Option<&'static str> {
    key_fault(text, INSTANCE_MAX_BYTES)
}

/// The instance that wrote the value of a stable id, if it has one.
#[must_use]
pub fn instance_of(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (_, rest) = text.split_once(INSTANCE)?;
    let instance = rest.split(' ').next()?;
    instance_fault(instance).is_none().then_some(instance)
}

/// The process that wrote a claim of a stable id; `None` for the claim of a parti worker.
#[must_use]
pub fn claimant(bytes: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(bytes).ok()?;
    let text = text.split(' ').next()?.strip_suffix('Z')?;
    let (_, fraction) = text.rsplit_once('.')?;
    let is_ours =
        fraction.len() == 3 * CLAIM_DIGITS && fraction.bytes().all(|b| b.is_ascii_digit());
    let process = is_ours.then(|| &fraction[2 * CLAIM_DIGITS..])?;
    process.parse().ok()
}

/// What follows the time in the value of a stable id that its worker will want again.
const KEPT: &str = " kept";

/// The bytes of a stable id that its worker will want again. To parti it is taken until it
/// expires.
#[must_use]
pub fn encode_kept(time: &str, instance: Option<&str>) -> Vec<u8> {
    let instance = InstanceSuffix(instance);
    format!("{time}{instance}{KEPT}").into_bytes()
}

/// Whether the value of a stable id says that its worker is gone and will want it again.
#[must_use]
pub fn is_kept(bytes: &[u8]) -> bool {
    bytes.ends_with(KEPT.as_bytes())
}

/// The bytes of a leader's lease.
#[must_use]
pub fn encode_lease(worker: &WorkerId, unix_seconds: u64) -> Vec<u8> {
    format!("{worker}:{unix_seconds}").into_bytes()
}

/// The owner of a lease; `None` if its value is not one that a leader writes.
#[must_use]
pub fn lease_holder(bytes: &[u8]) -> Option<WorkerId> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (worker, _) = text.rsplit_once(':')?;
    WorkerId::new(worker).ok()
}

/// Takes the worker id out of a key, saying why where there is none.
///
/// # Errors
/// [`Code::InvalidData`]: the key has another prefix, or what follows is no worker id.
pub fn worker_of_key(prefix: &KeyPrefix, key: &str) -> Result<WorkerId> {
    let suffix = prefix.suffix(key).ok_or_else(|| {
        Error::new(
            Code::InvalidData,
            format!("key {:?} is not a worker's", truncated(key, 60)),
        )
    })?;
    WorkerId::new(suffix).map_err(|fault| Error::new(Code::InvalidData, fault.message()))
}

fn check_number(field: &str, number: i64) -> Result<()> {
    if number >= 0 {
        return Ok(());
    }
    Err(Error::new(
        Code::InvalidData,
        format!("{field} {number} is below 0"),
    ))
}

fn from_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    // The decoder would take an array for a struct, field by field in the order of our source.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Error::new(
            Code::InvalidData,
            "malformed value: not a JSON object",
        ));
    }
    serde_json::from_slice(bytes)
        .map_err(|fault| Error::new(Code::InvalidData, format!("malformed value: {fault}")))
}

fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|error| json_never_fails(&error))
}

/// Serialising plain structs of strings and integers to memory has no way to fail.
fn json_never_fails(error: &serde_json::Error) -> ! {
    unreachable!("a plain struct failed to serialise: {error}")
}

const _: () = assert!(PREFIX_MAX_BYTES + 1 + WORKER_ID_MAX_BYTES <= 512);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Reason;

    #[test]
    fn encoded_assignment_round_trips_and_keeps_parti_fields() {
        let partitions = vec![Partition::new(["tool001", "chamber1"], 100)];
        let bytes = Assignment::encode(
            42,
            3,
            Reason::PlannedScale.name(),
            &encode_partitions(partitions.iter()),
        );
        assert_eq!(
            String::from_utf8(bytes.clone()).unwrap(),
            r#"{"version":42,"lifecycle":"planned_scale","partitions":[{"keys":["tool001","chamber1"],"weight":100}],"term":3}"#
        );
        let read = Assignment::decode(&bytes).unwrap();
        assert_eq!((read.version, read.term), (42, Some(3)));
        assert_eq!(read.partitions, partitions);
    }

    #[test]
    fn values_of_other_shape_are_rejected_with_reason() {
        for bytes in [
            &b""[..],
            b"{",
            b"null",
            b"[]",
            b"[7]",
            b"{\"version\":\"1\"}",
            b"{\"version\":1.5}",
            b"{\"version\":-1}",
            b"{\"version\":9223372036854775808}",
            b"{\"version\":1,\"partitions\":{}}",
            b"{\"version\":1,\"partitions\":[{\"keys\":[1]}]}",
            b"\xff\xfe",
            b"{\"version\":1,\"version\":2}",
        ] {
            let error = Assignment::decode(bytes).unwrap_err();
            assert_eq!(error.code(), Code::InvalidData, "{bytes:?}");
        }
        assert!(Assignment::decode("[".repeat(100_000).as_bytes()).is_err());
        assert!(Fence::decode(b"{\"term\":-4}").is_err());
        assert!(Commit::decode(b"{\"term\":1}").is_err());
        assert!(Commit::decode(b"[1,2]").is_err());
        assert!(Fence::decode(b"[4]").is_err());
    }

    #[test]
    fn claims_of_same_moment_differ_and_are_valid_times() {
        let time = "2026-11-26T15:03:12.123456789Z";
        let nonce = |claim| ClaimNonce { claim, process: 42 };
        let claim = encode_claim(time, nonce(7), None);
        assert_eq!(claimant(&claim), Some(42));
        assert_eq!(claimant(time.as_bytes()), None, "parti's");
        assert_eq!(claimant(b"2026-01-01T00:00:00Z"), None, "parti's");
        assert_eq!(claim, b"2026-11-26T15:03:12.123456789000000007000000042Z");
        assert_ne!(claim, encode_claim(time, nonce(8), None));
        assert!(!is_kept(&claim) && is_kept(&encode_kept(time, None)));
    }

    #[test]
    fn claim_with_instance_names_process_and_instance() {
        let time = "2026-11-26T15:03:12.123456789Z";
        let nonce = ClaimNonce {
            claim: 7,
            process: 42,
        };
        let claim = encode_claim(time, nonce, Some("pod-7.ns"));
        assert!(claim.ends_with(b"042Z instance=pod-7.ns"));
        assert_eq!(claimant(&claim), Some(42));
        assert_eq!(instance_of(&claim), Some("pod-7.ns"));
        let kept = encode_kept(time, Some("pod-7.ns"));
        assert!(is_kept(&kept) && !is_kept(&claim));
        assert_eq!(instance_of(&kept), Some("pod-7.ns"));
        for none in [
            encode_claim(time, nonce, None),
            encode_kept(time, None),
            b"2026-01-01T00:00:00Z instance=".to_vec(),
            b"2026-01-01T00:00:00Z instance=\x07".to_vec(),
            b"\xff instance=a".to_vec(),
        ] {
            assert_eq!(instance_of(&none), None, "{none:?}");
        }
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let bytes =
            br#"{"version":7,"term":2,"lifecycle":"of_the_future","partitions":null,"x":{}}"#;
        let read = Assignment::decode(bytes).unwrap();
        assert_eq!(read.lifecycle, "of_the_future");
        assert!(read.partitions.is_empty());
    }

    #[test]
    fn any_heartbeat_value_is_sign_of_life() {
        assert_eq!(decode_heartbeat(b"2026-01-01T00:00:00Z"), None);
        assert_eq!(decode_heartbeat(b""), None);
        assert_eq!(decode_heartbeat(b"{\"applied_version\":-1}"), None);
        let worker = WorkerId::new("worker-7").unwrap();
        let applied = Applied {
            term: 3,
            version: 42,
        };
        let bytes = encode_heartbeat(&worker, "t", applied);
        assert_eq!(decode_heartbeat(&bytes), Some(applied.into()));
    }

    #[test]
    fn worker_keys_are_distinguished_from_others() {
        let prefix = KeyPrefix::new("heartbeat").unwrap();
        assert_eq!(
            worker_of_key(&prefix, "heartbeat.w-1").unwrap().as_str(),
            "w-1"
        );
        for key in [
            "heartbeatx.w",
            "heartbeat",
            "heartbeat.",
            "heartbeat.a b",
            "divvy.fence",
        ] {
            assert!(worker_of_key(&prefix, key).is_err(), "{key}");
        }
        assert!(KeyPrefix::new("divvy").is_err());
        assert!(KeyPrefix::new("a b").is_err());
    }
}
