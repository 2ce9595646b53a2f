//! Invariants of whole managers, at every step and at the end. Kept apart from the code that causes
//! the faults.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use divvy::ManagerState;
use divvy::config::OutagePolicy;
use divvy::store::Bucket;
use divvy::types::Time;
use divvy::wire::LEASE_KEY;

use crate::check::{Checked, names};
use crate::fleet::assignments;
use crate::node::WATCH_DELAY_MAX;
use crate::world::{Network, World};

impl World {
    pub fn check_lives(&mut self) -> Checked {
        if !std::mem::take(&mut self.lifetimes.is_dirty) {
            return Ok(());
        }
        self.check_ids()?;
        self.check_leases()?;
        self.check_owners()
    }

    /// Members whose clock is currently reliable.
    fn awake(&self) -> impl Iterator<Item = usize> {
        let now = self.now();
        let alive = self.lifetimes.alive.iter().copied();
        alive.filter(move |&m| {
            let member = &self.members[m];
            member.frozen_until <= now && member.uncertain_until <= now
        })
    }

    /// Checks that no two members are certain of the same id.
    fn check_ids(&self) -> Checked {
        let now = self.now();
        // A claim confirmed before a foreign write is trusted until it is renewed or expires.
        if is_recent(
            self.lifetimes.ids_disturbed,
            now,
            self.lifetimes.config.worker_id_ttl,
        ) {
            return Ok(());
        }
        let mut certain = BTreeMap::new();
        for m in self.awake() {
            let member = &self.members[m];
            if !member.machine.id_is_certain(member.clock.of(now)) {
                continue;
            }
            let id = member.machine.worker().ok_or("certain of no id")?;
            if let Some(other) = certain.insert(id.clone(), m) {
                return Err(format!("members {other} and {m} are both certain of {id}"));
            }
        }
        Ok(())
    }

    /// Checks that at most one worker believes that it leads, unless their clocks differ by more
    /// than an election allows for. The fence keeps them from publishing even then. The
    /// lease that was won too early may pass on, so no lease is checked for one duration after that.
    fn check_leases(&mut self) -> Checked {
        let now = self.now();
        let lease = self.lifetimes.config.election_timeout;
        if is_recent(self.lifetimes.lease_disturbed, now, lease) {
            return Ok(());
        }
        let leads = |m: &usize| self.members[*m].machine.is_leader();
        let leaders: Vec<usize> = self.awake().filter(leads).collect();
        let rate = |m: usize| self.members[m].clock.rate;
        let are_apart = |a, b| rate(a).max(rate(b)) * 100 > rate(a).min(rate(b)) * 113;
        match leaders[..] {
            [] | [_] => Ok(()),
            [a, b] if are_apart(a, b) => {
                self.lifetimes.lease_disturbed = Some(now);
                Ok(())
            }
            _ => Err(format!("{leaders:?} lead at once")),
        }
    }

    /// Checks that no partition has two owners for longer than can be explained.
    fn check_owners(&mut self) -> Checked {
        let now = self.now();
        let is_strict = self.lifetimes.config.outage_policy == OutagePolicy::Strict;
        let mut owners: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for &m in &self.lifetimes.alive {
            let member = &self.members[m];
            // Its host is paused too.
            if is_strict && member.frozen_until > now {
                continue;
            }
            for partition in member.machine.held().partitions.iter() {
                owners.entry(partition.subject()).or_default().push(m);
            }
        }
        owners.retain(|_, owners| owners.len() > 1);
        let bound = self.overlap_bound(is_strict);
        let is_excused = is_recent(self.lifetimes.plan_disturbed, now, self.recovery_bound());
        let before = std::mem::take(&mut self.lifetimes.overlaps);
        for (partition, &since) in &before {
            // The condition continues or has just ended.
            let owners = owners.get(partition).map_or(&[][..], Vec::as_slice);
            let is_long = since + bound < now;
            if is_long && !is_excused && !self.excuse(owners, is_strict) {
                return Err(format!(
                    "{partition} has had two owners since {since:?}, now {owners:?}"
                ));
            }
        }
        for (partition, owners) in owners {
            let known = before.get(&partition).copied();
            let since = match known {
                Some(since) if !is_excused && !self.excuse(&owners, is_strict) => since,
                _ => now,
            };
            self.lifetimes.overlaps.insert(partition, since);
        }
        Ok(())
    }

    /// Returns whether one of the two owners cannot know of the other.
    fn excuse(&self, owners: &[usize], is_strict: bool) -> bool {
        let now = self.now();
        owners.iter().any(|&m| {
            let member = &self.members[m];
            let is_troubled = member.blackout.is_some()
                || self.blackout.is_some()
                || member.is_dim
                || member.frozen_until > now
                || self.network != Network::GOOD;
            member.uncertain_until > now || (!is_strict && is_troubled)
        })
    }

    /// How long the delivery of a plan, or a resynchronisation, explains two owners.
    fn overlap_bound(&self, is_strict: bool) -> Duration {
        if !self.lifetimes.is_atomic {
            return self.recovery_bound();
        }
        let config = &self.lifetimes.config;
        let delivery = WATCH_DELAY_MAX + Duration::from_millis(100);
        let rest = if is_strict {
            // A disconnected member owns nothing by then.
            config.calculator.heartbeat_ttl
        } else {
            // A request that hung, a delay, and the read that shows that another process owns the
            // id.
            config.heartbeat_interval * 3 + Duration::from_secs(2)
        };
        delivery + rest * 10 / 9
    }

    /// Checks that the live workers are those of the store and own exactly the listed partitions.
    pub fn judge_lives(&self) -> Checked {
        self.judge_lives_in(&[ManagerState::Stable])
    }

    /// As above, with the leader in one of these states.
    pub fn judge_lives_in(&self, states: &[ManagerState]) -> Checked {
        let mut ids = BTreeSet::new();
        let mut leaders = Vec::new();
        let now = self.now();
        for &m in &self.lifetimes.alive {
            let member = &self.members[m];
            let machine = &member.machine;
            let id = machine.worker().ok_or(format!("member {m} has no id"))?;
            if !machine.id_is_certain(member.clock.of(now)) || !member.has_joined {
                return Err(format!("member {m} is not certain of {id}"));
            }
            if !states.contains(&machine.state()) {
                return Err(format!("member {m} is {}", machine.state()));
            }
            if machine.is_leader() {
                leaders.push(id.to_string());
            }
            ids.insert(id.to_string());
        }
        if ids.len() != self.lifetimes.alive.len() {
            return Err(format!(
                "{} members have {ids:?}",
                self.lifetimes.alive.len()
            ));
        }
        let [leader] = leaders.as_slice() else {
            return Err(format!("{leaders:?} lead"));
        };
        for &m in &self.lifetimes.alive {
            let known = self.members[m].machine.leader().map(ToString::to_string);
            if known.as_ref() != Some(leader) {
                return Err(format!(
                    "member {m} considers {known:?} the leader instead of {leader}"
                ));
            }
        }
        ids.extend(self.lifetimes.parti.as_ref().map(|parti| parti.id.clone()));
        self.judge_store(&ids, leader)
    }

    fn judge_store(&self, ids: &BTreeSet<String>, leader: &str) -> Checked {
        let listing = self.listing();
        let holders = self.checker.is_newest_division(&listing)?;
        if holders != *ids {
            return Err(format!("{holders:?} hold something, {ids:?} are alive"));
        }
        let plan: BTreeMap<String, _> = assignments(&listing).into_iter().collect();
        for &m in &self.lifetimes.alive {
            let machine = &self.members[m].machine;
            let id = machine.worker().map(ToString::to_string);
            let planned = id.and_then(|id| plan.get(&id));
            let planned = planned.map(|assignment| names(&assignment.partitions));
            let held = names(&machine.held().partitions);
            if planned.as_ref() != Some(&held) {
                return Err(format!("member {m} holds {held:?}, not {planned:?}"));
            }
        }
        let claimed: BTreeSet<String> = self.keys(Bucket::StableId).into_iter().collect();
        if claimed != *ids {
            return Err(format!("{claimed:?} are claimed, {ids:?} are alive"));
        }
        let beating = self.keys(Bucket::Heartbeat).into_iter();
        let beating = beating.map(|key| key.trim_start_matches("heartbeat.").to_owned());
        let beating: BTreeSet<String> = beating.collect();
        if beating != *ids {
            return Err(format!("{beating:?} send heartbeats, {ids:?} are alive"));
        }
        use divvy::store::Store;
        let lease = self.store.read(
            Bucket::Election,
            LEASE_KEY,
            crate::lockstep_publisher::far_future(),
        );
        let lease = lease.ok().flatten().ok_or("no lease")?;
        let holder = divvy::wire::lease_holder(&lease.value).map(|id| id.to_string());
        if holder.as_deref() != Some(leader) {
            return Err(format!("{holder:?} has the lease, {leader} leads"));
        }
        Ok(())
    }
}

fn is_recent(at: Option<Time>, now: Time, within: Duration) -> bool {
    at.is_some_and(|at| now < at + within)
}
