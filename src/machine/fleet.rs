//! A snapshot of a live fleet, read from its buckets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::plausible::Numbered;
use super::publication::{BucketReading, Content};
use crate::error::{Error, Result};
use crate::store::{Bucket, Entry, Listing};
use crate::time::duration::millis;
use crate::types::{Partition, Term, Version, WorkerId};
use crate::vocabulary::ConfigPart;
use crate::wire::{
    self, Assignment, COMMIT_KEY, Commit, ConfigDigest, FENCE_KEY, FLEET_KEY, Fence, FleetRecord,
    HeldCounts, KeyPrefix, LEASE_KEY, hex,
};

/// Input of a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// The election bucket.
    pub election: &'a Listing,
    /// The heartbeat bucket.
    pub heartbeats: &'a Listing,
    /// The assignment bucket.
    pub assignments: &'a Listing,
    /// Prefix of the heartbeat keys.
    pub heartbeat_prefix: &'a KeyPrefix,
    /// Prefix of the assignment keys.
    pub assignment_prefix: &'a KeyPrefix,
    /// The partitions that should have an owner, in canonical order, where they are known.
    pub partitions: Option<&'a [Partition]>,
}

/// A live fleet. `Display` is a table for people, `Serialize` the same for programs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FleetStatus {
    /// The owner of the leader's lease.
    pub leader: Option<LeaderLease>,
    /// The fleet's name by its record; empty for a fleet without a name.
    pub fleet: String,
    /// The fence record: who took over last, and in which term. A fleet that parti leads has none.
    pub fence: Option<FenceView>,
    /// The newest version that any assignment or the commit record has.
    pub version: Version,
    /// The highest term that was written; 0 without terms.
    pub term: Term,
    /// Why the newest version was made.
    pub lifecycle: String,
    /// Commit time by the leader's clock; empty if unknown.
    pub committed: String,
    /// Whether the assignments are one complete plan.
    pub is_complete: bool,
    /// The workers that have a heartbeat, an assignment, or both, in order.
    pub workers: Vec<WorkerView>,
    /// How many different partitions are assigned.
    pub assigned: usize,
    /// Partitions without a live owner; `None` if the list is unknown.
    pub unassigned: Option<Vec<String>>,
    /// Partitions assigned that are not in the list, if that is known.
    pub unlisted: Vec<String>,
    /// Partitions that more than one worker has.
    pub shared: Vec<String>,
    /// Keys of the assignment bucket under the prefix that are not divvy's: protocol keys of other
    /// programs, and keys that hold no assignment and have no live worker. divvy does not touch
    /// them.
    pub foreign: Vec<String>,
    /// The list that the leader holds back, if its heartbeat reports one.
    pub held_list: Option<HeldCounts>,
    /// In what the live workers and the leader are configured differently.
    pub config_differences: Vec<ConfigDifference>,
    /// What is wrong with the data, a sentence each.
    pub problems: Vec<String>,
}

/// The leader's lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeaderLease {
    /// The owner.
    pub worker: String,
    /// Its age by the store's clock, if the store reports one.
    pub age_ms: Option<u64>,
}

/// The fence record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FenceView {
    /// The term that was opened.
    pub term: Term,
    /// Who opened it.
    pub leader: String,
    /// The publish mode: `A` is atomic, `B` is per key.
    pub class: String,
    /// When, by its own clock.
    pub time: String,
}

/// A part of the configuration in which live replicas differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConfigDifference {
    /// The part: `list`, `strategy` or `settings`.
    pub part: &'static str,
    /// Who has which configuration, the leader's first, then by the number of workers.
    pub variants: Vec<ConfigVariant>,
}

/// One configuration that some replicas have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConfigVariant {
    /// The digest: eight hexadecimal digits.
    pub digest: String,
    /// The workers, in order.
    pub workers: Vec<String>,
}

impl fmt::Display for ConfigDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replicas differ in {}:", self.part)?;
        for (index, variant) in self.variants.iter().enumerate() {
            let semicolon = if index > 0 { ";" } else { "" };
            write!(f, "{semicolon} {} on", variant.digest)?;
            for worker in variant.workers.iter().take(SHOWN_MAX) {
                write!(f, " {}", worker.escape_debug())?;
            }
            if variant.workers.len() > SHOWN_MAX {
                write!(f, " and {} more", variant.workers.len() - SHOWN_MAX)?;
            }
        }
        Ok(())
    }
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerView {
    /// Its id.
    pub worker: String,
    /// Whether it has a heartbeat.
    pub is_alive: bool,
    /// The age of its heartbeat by the store's clock, if the store reports one.
    pub heartbeat_age_ms: Option<u64>,
    /// The version under its key; `None` when it has none, or an unreadable one.
    pub version: Option<Version>,
    /// The term of it; `None` when a leader without terms wrote it.
    pub term: Option<Term>,
    /// The version that it says it has applied; `None` when it says nothing (parti's do not).
    pub applied_version: Option<Version>,
    /// How many versions its key is ahead of what it has applied.
    pub lag: Option<Version>,
    /// How many partitions it has.
    pub partitions: usize,
    /// Their weight, where 0 or less counts as 1.
    pub weight: i128,
    /// That as a share of all weight assigned.
    pub share: f64,
    /// Digests of its configuration, as far as it reports them.
    pub config: ConfigDigest,
}

impl FleetStatus {
    /// Takes the buckets apart. What cannot be understood becomes a problem.
    #[must_use]
    pub fn of(look: &Look<'_>) -> Self {
        let reading = BucketReading::of(look.assignments, look.assignment_prefix);
        let mut status = Self {
            version: reading.highest_version,
            is_complete: reading.is_one_publication(),
            ..Self::default()
        };
        status.take_leader(look.election);
        status.take_records(&reading);
        status.take_workers(look, &reading);
        status.take_partitions(look.partitions, &reading);
        status.take_foreign(look, &reading);
        status.compare_configs(&reading);
        status.find_problems(look, &reading);
        status
    }

    fn take_leader(&mut self, election: &Listing) {
        let lease = election.entries.iter().find(|e| e.key == LEASE_KEY);
        let Some(entry) = lease.filter(|entry| entry.is_live()) else {
            return;
        };
        match wire::lease_holder(&entry.value) {
            Some(worker) => {
                self.leader = Some(LeaderLease {
                    worker: worker.to_string(),
                    age_ms: entry.age.map(millis),
                });
            }
            None => self.problems.push(format!(
                "{LEASE_KEY}: not <worker id>:<unix seconds>, as leaders write it"
            )),
        }
    }

    fn take_records(&mut self, reading: &BucketReading) {
        self.fence = reading.fence.value.as_ref().map(|fence| FenceView {
            term: fence.term,
            leader: fence.leader.clone(),
            class: fence.class.clone(),
            time: fence.time.clone(),
        });
        let terms = reading.stored.iter().filter_map(|(_, a)| a.term);
        let commit = reading.commit.value.as_ref();
        let terms = terms.chain(self.fence.as_ref().map(|fence| fence.term));
        self.term = terms.chain(commit.map(|c| c.term)).max().unwrap_or(0);
        let newest = reading.stored.iter().map(|(_, assignment)| assignment);
        let newest = newest.max_by_key(|assignment| assignment.version);
        if let Some(assignment) = newest {
            self.lifecycle.clone_from(&assignment.lifecycle);
        }
        if let Some(commit) = commit.filter(|commit| commit.version == self.version) {
            self.lifecycle.clone_from(&commit.lifecycle);
            self.committed.clone_from(&commit.time);
        }
    }

    /// Groups the live workers by their digests. The leader's fence counts where its heartbeat
    /// reports nothing, as that of a calculator without a worker.
    fn compare_configs(&mut self, reading: &BucketReading) {
        let live = self.workers.iter().filter(|worker| worker.is_alive);
        let mut configs: BTreeMap<&str, ConfigDigest> =
            live.map(|w| (w.worker.as_str(), w.config)).collect();
        let fence = reading.fence.value.as_ref();
        let leader = self.leader.as_ref().map(|lease| lease.worker.as_str());
        if let Some(fence) = fence.filter(|fence| leader.is_none_or(|l| l == fence.leader)) {
            let known = configs.entry(&fence.leader).or_default();
            if known.is_unknown() {
                *known = fence.config;
            }
        }
        for part in ConfigPart::ALL {
            let mut variants: BTreeMap<u32, Vec<String>> = BTreeMap::new();
            for (worker, config) in &configs {
                if let Some(digest) = config.part(part) {
                    variants.entry(digest).or_default().push((*worker).into());
                }
            }
            if variants.len() < 2 {
                continue;
            }
            let mut variants: Vec<ConfigVariant> = variants
                .into_iter()
                .map(|(digest, workers)| ConfigVariant {
                    digest: hex(digest),
                    workers,
                })
                .collect();
            variants.sort_by_key(|variant| {
                let is_leaders = variant.workers.iter().any(|w| Some(w.as_str()) == leader);
                (!is_leaders, std::cmp::Reverse(variant.workers.len()))
            });
            let part = part.name();
            self.config_differences
                .push(ConfigDifference { part, variants });
        }
    }

    fn take_workers(&mut self, look: &Look<'_>, reading: &BucketReading) {
        let beats: BTreeMap<WorkerId, &Entry> = look
            .heartbeats
            .entries
            .iter()
            .filter(|e| e.is_live() && !look.heartbeat_prefix.is_protocol_key(&e.key))
            .filter_map(|entry| {
                let worker = wire::worker_of_key(look.heartbeat_prefix, &entry.key).ok()?;
                Some((worker, entry))
            })
            .collect();
        let stored: BTreeMap<&WorkerId, &Assignment> =
            reading.stored.iter().map(|(w, a)| (w, a)).collect();
        let max = reading.plausible_max();
        let holding = reading.slots.iter();
        let holding = holding.filter(|(_, slot)| matches!(slot.content, Content::Assigned(_)));
        let ids: BTreeSet<&WorkerId> = beats.keys().chain(holding.map(|(w, _)| w)).collect();
        for worker in ids {
            let beat = beats.get(worker);
            let assignment = stored.get(worker);
            let version = assignment.map(|a| a.version);
            let report = beat.and_then(|beat| wire::decode_heartbeat(&beat.value));
            let report = report.filter(|r| r.highest.check_plausible(max).is_ok());
            let applied_version = report.map(|report| report.applied.version);
            let partitions = assignment.map_or(&[][..], |a| &a.partitions);
            let is_leader = |lease: &LeaderLease| lease.worker == worker.as_str();
            if self.leader.as_ref().is_some_and(is_leader) {
                self.held_list = report.and_then(|report| report.held_list);
            }
            self.workers.push(WorkerView {
                worker: worker.to_string(),
                is_alive: beat.is_some(),
                heartbeat_age_ms: beat.and_then(|beat| beat.age).map(millis),
                version,
                term: assignment.and_then(|a| a.term),
                applied_version,
                lag: wire::lag(version, applied_version),
                partitions: partitions.len(),
                weight: partitions.iter().map(|p| i128::from(p.weight.max(1))).sum(),
                share: 0.0,
                config: report.map(|report| report.config).unwrap_or_default(),
            });
        }
        let total: i128 = self.workers.iter().map(|w| w.weight).sum();
        for worker in &mut self.workers {
            worker.share = worker.weight as f64 / (total as f64).max(1.0);
        }
    }

    fn take_partitions(&mut self, listed: Option<&[Partition]>, reading: &BucketReading) {
        let alive: BTreeSet<&str> = self
            .workers
            .iter()
            .filter(|worker| worker.is_alive)
            .map(|worker| worker.worker.as_str())
            .collect();
        let mut owners: BTreeMap<&[String], usize> = BTreeMap::new();
        let mut served: BTreeSet<&[String]> = BTreeSet::new();
        for (worker, assignment) in &reading.stored {
            for partition in &assignment.partitions {
                *owners.entry(&partition.keys).or_default() += 1;
                if alive.contains(worker.as_str()) {
                    served.insert(&partition.keys);
                }
            }
        }
        let name = |keys: &[String]| keys.join(".");
        self.assigned = owners.len();
        let shared = owners.iter().filter(|(_, count)| **count > 1);
        self.shared = shared.map(|(keys, _)| name(keys)).collect();
        let Some(listed) = listed else { return };
        let unserved = listed.iter().filter(|p| !served.contains(&p.keys[..]));
        self.unassigned = Some(unserved.map(|p| name(&p.keys)).collect());
        let listed: BTreeSet<&[String]> = listed.iter().map(|p| &p.keys[..]).collect();
        let unlisted = owners.keys().filter(|keys| !listed.contains(*keys));
        self.unlisted = unlisted.map(|keys| name(keys)).collect();
    }

    fn take_fleet(&mut self, look: &Look<'_>, value: &[u8]) -> Result<()> {
        let record = FleetRecord::decode(value)?;
        let prefixes = [
            look.heartbeat_prefix.as_str(),
            look.assignment_prefix.as_str(),
        ];
        if prefixes != [&record.heartbeat_prefix, &record.assignment_prefix] {
            self.problems.push(format!(
                "the buckets belong to {}, and other key prefixes are configured here",
                record.to_string().escape_debug()
            ));
        }
        self.fleet = record.fleet;
        Ok(())
    }

    fn report(&mut self, bucket: Bucket, entry: &Entry, fault: &Error) {
        let (key, role) = (shown(&entry.key), bucket.role());
        let value = shown(&String::from_utf8_lossy(&entry.value));
        let fault = fault.message();
        self.problems
            .push(format!("{key}: {fault}; {role} bucket, value {value}"));
    }

    /// The keys under the prefix that divvy leaves alone.
    fn take_foreign(&mut self, look: &Look<'_>, reading: &BucketReading) {
        let is_alive = |id: &WorkerId| {
            let workers = &self.workers;
            workers
                .iter()
                .any(|w| w.is_alive && w.worker == id.as_str())
        };
        let no_workers = reading
            .slots
            .iter()
            .filter(|(worker, slot)| slot.content == Content::Malformed && !is_alive(worker))
            .map(|(worker, _)| look.assignment_prefix.key(worker));
        let keys = reading.foreign.iter().cloned().chain(no_workers);
        self.foreign = keys.map(|key| shown(&key)).collect();
        self.foreign.sort();
    }

    fn find_problems(&mut self, look: &Look<'_>, reading: &BucketReading) {
        let max = reading.plausible_max();
        for entry in look.assignments.entries.iter().filter(|e| e.is_live()) {
            let fault = match entry.key.as_str() {
                FENCE_KEY => plausible(Fence::decode(&entry.value), max).err(),
                COMMIT_KEY => plausible(Commit::decode(&entry.value), max).err(),
                FLEET_KEY => self.take_fleet(look, &entry.value).err(),
                key if look.assignment_prefix.is_protocol_key(key) => None,
                key if look.assignment_prefix.suffix(key).is_some() => {
                    let worker = wire::worker_of_key(look.assignment_prefix, key);
                    let assignment = plausible(Assignment::decode(&entry.value), max);
                    worker.and(assignment.map(drop)).err()
                }
                _ => None,
            };
            if let Some(fault) = fault {
                self.report(Bucket::Assignment, entry, &fault);
            }
        }
        for entry in look.heartbeats.entries.iter().filter(|e| e.is_live()) {
            if look.heartbeat_prefix.is_protocol_key(&entry.key) {
                continue;
            }
            let report = wire::decode_heartbeat(&entry.value).unwrap_or_default();
            let worker = wire::worker_of_key(look.heartbeat_prefix, &entry.key);
            if let Err(fault) = worker.and(report.highest.check_plausible(max)) {
                self.report(Bucket::Heartbeat, entry, &fault);
            }
        }
        let commit = reading.commit.value.as_ref();
        if let Some(count) = commit.and_then(|commit| commit.unassigned) {
            self.problems.push(format!(
                "{count} partitions have no owner: an assignment with them exceeds the store's \
                 limit; add workers or raise max_payload"
            ));
        }
        if let (Some(lease), Some(fence)) = (&self.leader, &self.fence)
            && lease.worker != fence.leader
        {
            self.problems.push(format!(
                "the lease is {}'s, the fence {}'s: a take-over is under way, or a leader without \
                 fence leads",
                lease.worker, fence.leader
            ));
        }
        if !self.is_complete && !reading.stored.is_empty() {
            self.problems
                .push("the assignments are not a single complete plan".into());
        }
    }
}

fn plausible<T: Numbered>(value: Result<T>, max: i64) -> Result<T> {
    let value = value?;
    value.check_plausible(max)?;
    Ok(value)
}

/// A key without control characters, which could move the cursor.
fn shown(key: &str) -> String {
    key.escape_debug().take(120).collect()
}

impl fmt::Display for FleetStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_head(f)?;
        self.write_workers(f)?;
        write_list(f, "unassigned", self.unassigned.as_deref().unwrap_or(&[]))?;
        write_list(f, "owned twice", &self.shared)?;
        write_list(f, "not in the list", &self.unlisted)?;
        write_list(f, "foreign keys", &self.foreign)?;
        if let Some(held) = &self.held_list {
            writeln!(f, "problem: partition list held back: {held}")?;
        }
        for difference in &self.config_differences {
            writeln!(f, "problem: {difference}")?;
        }
        for problem in &self.problems {
            writeln!(f, "problem: {problem}")?;
        }
        Ok(())
    }
}

impl FleetStatus {
    fn write_head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.fleet.is_empty() {
            writeln!(f, "fleet    {}", self.fleet.escape_debug())?;
        }
        match &self.leader {
            Some(lease) => writeln!(
                f,
                "leader   {} (lease {} old)",
                lease.worker.escape_debug(),
                age(lease.age_ms)
            )?,
            None => writeln!(f, "leader   none")?,
        }
        match &self.fence {
            Some(fence) => writeln!(
                f,
                "fence    {} in term {}, class {}, since {}",
                fence.leader.escape_debug(),
                fence.term,
                fence.class.escape_debug(),
                fence.time.escape_debug()
            )?,
            None => writeln!(f, "fence    none (no divvy leader so far)")?,
        }
        write!(
            f,
            "version  {} ({})",
            self.version,
            self.lifecycle.escape_debug()
        )?;
        if self.term > 0 {
            write!(f, ", highest term {}", self.term)?;
        }
        if !self.committed.is_empty() {
            write!(f, ", committed {}", self.committed.escape_debug())?;
        }
        let alive = self.workers.iter().filter(|w| w.is_alive).count();
        writeln!(
            f,
            "\nworkers  {alive} alive, {} without heartbeat; {} partitions assigned",
            self.workers.len() - alive,
            self.assigned
        )
    }

    fn write_workers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.workers.is_empty() {
            return Ok(());
        }
        let width = self.workers.iter().map(|w| w.worker.len()).max();
        let width = width.unwrap_or(0).max("worker".len());
        writeln!(
            f,
            "\n{:width$}  heartbeat  version  applied  lag  partitions  weight   share",
            "worker"
        )?;
        let number = |number: Option<i64>| number.map_or("-".to_owned(), |n| n.to_string());
        for worker in &self.workers {
            let heartbeat = match worker.is_alive {
                true => age(worker.heartbeat_age_ms),
                false => "none".into(),
            };
            writeln!(
                f,
                "{:width$}  {heartbeat:>9}  {:>7}  {:>7}  {:>3}  {:>10}  {:>6}  {:>4.1} %",
                worker.worker,
                number(worker.version),
                number(worker.applied_version),
                number(worker.lag),
                worker.partitions,
                worker.weight,
                worker.share * 100.0,
            )?;
        }
        Ok(())
    }
}

/// Most names that a list shows.
const SHOWN_MAX: usize = 10;

fn write_list(f: &mut fmt::Formatter<'_>, what: &str, names: &[String]) -> fmt::Result {
    if names.is_empty() {
        return Ok(());
    }
    write!(f, "{what}: {}:", names.len())?;
    for name in names.iter().take(SHOWN_MAX) {
        write!(f, " {}", name.escape_debug())?;
    }
    let more = if names.len() > SHOWN_MAX { " …" } else { "" };
    writeln!(f, "{more}")
}

fn age(millis: Option<u64>) -> String {
    millis.map_or("?".into(), |millis| {
        format!("{:.1}s", Duration::from_millis(millis).as_secs_f64())
    })
}
