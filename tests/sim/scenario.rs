//! Whole managers under faults chosen by the seed, and the course of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use divvy::config::OutagePolicy;
use divvy::machine::manager::Departure;
use divvy::store::memory::Blackout;
use divvy::store::{Bucket, BucketConfig, Expect, Outcome, Store, Write};
use divvy::types::Time;
use divvy::wire::{COMMIT_KEY, FENCE_KEY, LEASE_KEY};
use divvy::{ManagerConfig, ManagerState};

use crate::chaos::Summary;
use crate::check::Checked;
use crate::lockstep_publisher::far_future;
use crate::node::WATCH_DELAY_MAX;
use crate::world::{Event, World, make_buckets, store};

/// Interval of the heartbeats and id renewals of the predecessor's worker.
const PARTI_BEAT: Duration = Duration::from_secs(2);

/// Interval of the lease renewals of its leader.
const PARTI_LEASE: Duration = Duration::from_millis(1_500);

/// The state of whole managers in a world.
#[derive(Default)]
pub struct Lifetimes {
    /// Maximum number of workers; 0 if only calculators are simulated.
    pub slots: usize,
    pub config: ManagerConfig,
    /// Members whose process exists.
    pub alive: Vec<usize>,
    /// Whether something happened since the last check.
    pub is_dirty: bool,
    /// Whether every publication of this run is atomic.
    pub is_atomic: bool,
    /// Whether other clients write to the buckets.
    pub has_strangers: bool,
    /// Whether the processes of a slot share an instance.
    pub has_instances: bool,
    /// When another client wrote or removed ids, leases, assignments.
    pub ids_disturbed: Option<Time>,
    pub lease_disturbed: Option<Time>,
    pub plan_disturbed: Option<Time>,
    /// Partitions with two owners, and since when this is unexplained.
    pub overlaps: BTreeMap<String, Time>,
    pub parti: Option<Parti>,
    pub parti_leader: Option<(u64, Time)>,
    pub parti_lives: u64,
    /// Requests sent to an unreachable store.
    pub calls: u64,
}

/// A worker of the predecessor.
#[derive(Clone, Debug)]
pub struct Parti {
    pub life: u64,
    pub id: String,
}

impl World {
    /// A world of whole managers.
    pub fn of_managers(seed: u64, tracing: bool) -> Self {
        let mut world = World::new(seed, tracing);
        world.workers.clear();
        if world.rng.bool() {
            // Atomic publications allow stricter checks.
            (world.store, world.counts_from_time) = store(&world.clock, 1_000, &mut world.rng);
            make_buckets(&world.store, &world.config);
        }
        let is_large = world.rng.u8(0..8) == 0;
        let slots = world.rng.usize(if is_large { 9..=30 } else { 1..=8 });
        let mut config = ManagerConfig::default();
        let calculator = &mut world.config;
        calculator.cold_start_window = calculator
            .cold_start_window
            .max(calculator.planned_scale_window);
        calculator.cooldown = calculator.cooldown.min(calculator.planned_scale_window);
        config.calculator = calculator.clone();
        config.worker_id_prefix = "w".into();
        let spare = if world.rng.bool() { 0 } else { 8 };
        config.worker_id_max = u32::try_from(slots + spare).expect("a small pool");
        if world.rng.bool() {
            config.worker_id_ttl = Duration::from_secs(world.rng.u64(6..=15));
            config.election_timeout = Duration::from_millis(world.rng.u64(1_000..=8_000));
        }
        if world.rng.bool() {
            config.outage_policy = OutagePolicy::Strict;
        }
        config.validate().expect("a valid configuration");
        let batches = world.store.capabilities(Bucket::Assignment, far_future());
        world.lifetimes = Lifetimes {
            slots,
            config,
            is_atomic: batches.is_ok_and(|probe_result| probe_result.batch_max == 1_000),
            has_strangers: world.rng.bool(),
            has_instances: world.rng.bool(),
            ..Lifetimes::default()
        };
        if world.lifetimes.has_strangers {
            // The first worker of the predecessor creates the buckets.
            for bucket in [Bucket::StableId, Bucket::Election] {
                let config = world.bucket_config(bucket);
                let made = world.store.ensure(bucket, config, far_future());
                made.expect("a bucket");
            }
        }
        world
    }

    fn bucket_config(&self, bucket: Bucket) -> BucketConfig {
        let config = &self.lifetimes.config;
        let ttl = match bucket {
            Bucket::StableId => Some(config.worker_id_ttl),
            Bucket::Election => Some(config.election_timeout),
            Bucket::Heartbeat => Some(config.calculator.heartbeat_ttl),
            Bucket::Assignment => None,
        };
        BucketConfig { ttl }
    }

    /// Runs one simulation: faults, then none, then the check of the recovery, then one leave.
    pub fn run_lives(&mut self) -> Result<Summary, String> {
        for slot in 0..self.lifetimes.slots {
            if self.rng.bool() {
                self.start_member(slot);
            }
        }
        self.after(Duration::ZERO, Event::Chaos);
        self.chaos_ends = self.now() + self.millis(30_000, 180_000);
        self.run_until(self.chaos_ends)?;
        self.become_quiet()?;
        let quiet = self.now();
        let bound = self.recovery_bound_of_lives();
        self.after(Duration::ZERO, Event::Probe);
        self.run_until(quiet + bound)?;
        self.judge_lives()
            .map_err(|why| format!("not recovered within {bound:?}: {why}"))?;
        let commits = self.checker.commits;
        self.run_until(quiet + bound + Duration::from_secs(60))?;
        self.judge_lives()
            .map_err(|why| format!("recovered, then: {why}"))?;
        if self.checker.commits != commits {
            return Err("continues to publish although nothing changes".into());
        }
        self.judge_minds()?;
        let recovered = self.converged_since.unwrap_or(quiet).since(quiet);
        self.farewell()?;
        Ok(Summary {
            commits,
            leaders: self.nodes.len(),
            recovery: recovered.as_secs_f64() / bound.as_secs_f64(),
            fingerprint: self.fingerprint,
        })
    }

    /// The bound for calculators, plus the expiry of the ids and leases of dead workers.
    fn recovery_bound_of_lives(&self) -> Duration {
        let config = &self.lifetimes.config;
        let dead = config.worker_id_ttl + config.election_timeout * 3;
        self.recovery_bound() + (dead + config.outage.leave_after) * 10 / 9
    }

    pub fn calm_lives(&mut self) -> Checked {
        let now = self.now();
        self.restore_members();
        for m in self.lifetimes.alive.clone() {
            let member = &mut self.members[m];
            member.frozen_until = member.frozen_until.min(now);
            self.recover_member(m);
        }
        if let Some((_, until)) = &mut self.lifetimes.parti_leader {
            *until = now;
        }
        self.end_former_processes();
        let stays = |m: &&usize| self.members[**m].departure.is_none();
        if !self.lifetimes.alive.iter().any(|m| stays(&m)) {
            let slot = self.free_slot().unwrap_or(0);
            self.start_member(slot);
        }
        self.poll_nodes()
    }

    /// One worker leaves a healthy fleet: soon after, other workers own its partitions, its
    /// leadership and its id.
    fn farewell(&mut self) -> Checked {
        if self.lifetimes.alive.len() < 2 {
            return Ok(());
        }
        let leaves_as_leader = self.rng.bool();
        let is_chosen = |m: &usize| self.members[*m].machine.is_leader() == leaves_as_leader;
        let chosen = self.lifetimes.alive.iter().copied().find(is_chosen);
        let m = chosen.ok_or("no member can leave")?;
        self.ask_member_to_go(m, Departure::Leave);
        self.poll_members()?;
        let config = &self.config;
        // A hand-over of the lease and a take-over take a few requests each.
        let mut bound = config.leave_window + config.join_coalescing + Duration::from_secs(1);
        if self.tally.contains_key("restored") || self.has_store_returned_lately() {
            // A leader that detects lost writes, or that takes over just after an outage, waits
            // for the report of every worker.
            bound += config.heartbeat_ttl;
        }
        let bound = bound * 10 / 9;
        self.run_until(self.now() + bound)?;
        // After a take-over, the leader waits for workers that may return.
        self.judge_lives_in(&[ManagerState::Stable, ManagerState::Scaling])
            .map_err(|why| format!("a leave was not completed within {bound:?}: {why}"))?;
        self.tally(if leaves_as_leader {
            "leader left"
        } else {
            "worker left"
        });
        Ok(())
    }

    /// Whether a worker that may lead next has seen an outage end within one TTL.
    fn has_store_returned_lately(&self) -> bool {
        let (now, ttl) = (self.now(), self.config.heartbeat_ttl);
        self.lifetimes.alive.iter().any(|&m| {
            let member = &self.members[m];
            let returned = member.machine.remembered().store_returned;
            returned.is_some_and(|returned| returned + ttl > member.clock.of(now))
        })
    }

    // --- chaos ---

    pub fn trouble_lives(&mut self) {
        self.lifetimes.is_dirty = true;
        match self.rng.u8(0..25) {
            0..=4 => self.start_worker_or_calculator(),
            5..=12 => self.trouble_a_member(),
            13 => self.trouble_all_members(),
            14..=15 => self.trouble_the_network(),
            16 => self.black_out_lives(),
            17..=18 => self.change_partitions(),
            _ if !self.lifetimes.has_strangers => self.trouble_a_member(),
            19 => self.send_parti(),
            20 => self.elect_parti(),
            21 => self.remove_something(),
            22 => self.copy_or_restore(),
            _ => {
                self.lifetimes.plan_disturbed = Some(self.now());
                self.tally("stranger");
                self.write_as_a_stranger();
            }
        }
    }

    fn free_slot(&mut self) -> Option<usize> {
        let taken = self.lifetimes.alive.iter().map(|&m| self.members[m].slot);
        let taken: BTreeSet<usize> = taken.collect();
        let free = (0..self.lifetimes.slots).filter(|slot| !taken.contains(slot));
        let free: Vec<usize> = free.collect();
        free.get(self.rng.usize(0..free.len().max(1))).copied()
    }

    fn start_worker_or_calculator(&mut self) {
        if let Some(slot) = self.free_slot() {
            self.start_member(slot);
        }
    }

    fn trouble_a_member(&mut self) {
        let alive = &self.lifetimes.alive;
        let Some(&m) = alive.get(self.rng.usize(0..alive.len().max(1))) else {
            return;
        };
        // Prefer leaders: they are few and the most relevant.
        let leader = alive.iter().find(|&&m| self.members[m].node.is_some());
        let m = match leader {
            Some(&leader) if self.rng.u8(0..3) == 0 => leader,
            _ => m,
        };
        match self
            .rng
            .u8(0..if self.lifetimes.has_instances { 11 } else { 9 })
        {
            0 => self.crash(m),
            // Killed and started again, or started again while the former process still runs.
            9 => {
                let slot = self.members[m].slot;
                self.crash(m);
                let pause = self.millis(0, 3_000);
                self.after(pause, Event::Return { slot });
            }
            10 => {
                if self.rng.bool() {
                    self.freeze_member(m, 100, 40_000);
                }
                let slot = self.members[m].slot;
                self.start_member(slot);
            }
            1 => self.ask_member_to_go(m, Departure::Leave),
            2 => {
                self.ask_member_to_go(m, Departure::Restart);
                self.tally("kept");
            }
            3 | 4 => self.freeze_member(m, 100, 40_000),
            5 | 6 => {
                let how = self.some_blackout();
                self.members[m].blackout = Some(how);
                self.members[m].client.faults().blackout(how);
                if let Some(node) = self.members[m].node {
                    self.nodes[node].blackout = Some(how);
                    self.nodes[node].client.faults().blackout(how);
                }
                self.note(|| format!("member {m} is cut off: {how:?}"));
                self.tally("cut off");
                let until = self.millis(100, 40_000);
                self.after(until, Event::RecoverMember(m));
            }
            _ => {
                let faults = self.members[m].client.faults();
                self.members[m].is_dim = true;
                if self.rng.bool() {
                    faults.disconnect_watches("simulated");
                } else {
                    faults.delay_watch_events(
                        self.millis(1, u64::try_from(WATCH_DELAY_MAX.as_millis()).unwrap_or(0)),
                    );
                }
                self.note(|| format!("the watches of member {m} are late or lost"));
                let until = self.millis(100, 30_000);
                self.after(until, Event::RecoverMember(m));
            }
        }
    }

    /// Ends the processes that a newer one of their slot has replaced.
    fn end_former_processes(&mut self) {
        for m in self.lifetimes.alive.clone() {
            if self.shares_slot(m) {
                self.crash(m);
            }
        }
    }

    /// The process of the slot starts again, unless another one has taken the slot.
    pub fn return_member(&mut self, slot: usize) {
        let is_taken = |&m: &usize| self.members[m].slot == slot;
        if !self.lifetimes.alive.iter().any(is_taken) {
            self.tally("instance returned");
            self.start_member(slot);
        }
    }

    fn some_blackout(&mut self) -> Blackout {
        match self.rng.bool() {
            true => Blackout::Refuse,
            false => Blackout::Hang,
        }
    }

    pub fn crash(&mut self, m: usize) {
        self.note(|| format!("member {m} crashes"));
        let ended = self.end_member(m);
        debug_assert!(ended.is_ok(), "{ended:?}");
    }

    fn freeze_member(&mut self, m: usize, from: u64, to: u64) {
        let now = self.now();
        let until = now + self.millis(from, to);
        let stops = self.rng.u8(0..4) == 0;
        let member = &mut self.members[m];
        if member.frozen_until > now {
            return;
        }
        member.frozen_until = until;
        if stops {
            member.stopped_at = Some(now);
        }
        if let Some(node) = member.node {
            self.nodes[node].frozen_until = until;
        }
        self.note(|| format!("member {m} freezes until {until:?}, its clock, too: {stops}"));
        self.tally(if stops { "clock stopped" } else { "frozen" });
        self.at(until, Event::Thaw);
    }

    fn trouble_all_members(&mut self) {
        let how = self.rng.u8(0..4);
        for m in self.lifetimes.alive.clone() {
            match how {
                0 if self.chance(0.7) => self.crash(m),
                1 if self.chance(0.7) => self.freeze_member(m, 5_000, 25_000),
                2 if self.chance(0.5) => self.ask_member_to_go(m, Departure::Restart),
                _ => {}
            }
        }
        if how == 3 {
            for _ in 0..self.lifetimes.slots {
                self.start_worker_or_calculator();
            }
        }
    }

    fn black_out_lives(&mut self) {
        let how = self.some_blackout();
        self.cut_off_members(how);
        let until = self.millis(100, 40_000);
        self.after(until, Event::Restore);
    }

    /// Disconnects all managers from the store until it recovers.
    pub fn cut_off_members(&mut self, how: Blackout) {
        self.blackout = Some(how);
        for m in self.lifetimes.alive.clone() {
            self.members[m].client.faults().blackout(how);
        }
        for n in self.alive().collect::<Vec<_>>() {
            self.nodes[n].client.faults().blackout(how);
        }
        self.note(|| format!("the store fails: {how:?}"));
    }

    /// The store recovers: members reach it unless they are disconnected themselves.
    pub fn restore_members(&mut self) {
        self.lifetimes.is_dirty = true;
        for &m in &self.lifetimes.alive {
            if self.members[m].blackout.is_none() {
                self.members[m].client.faults().restore();
            }
        }
    }

    pub fn recover_member(&mut self, m: usize) {
        self.lifetimes.is_dirty = true;
        let is_there = self.blackout.is_none();
        let member = &mut self.members[m];
        member.blackout = None;
        member.is_dim = false;
        let faults = member.client.faults();
        if is_there {
            faults.restore();
        }
        faults.recover_watches();
        faults.delay_watch_events(Duration::ZERO);
        if let Some(node) = member.node {
            self.nodes[node].blackout = None;
            if is_there {
                self.nodes[node].client.faults().restore();
            }
        }
        self.note(|| format!("the watches of member {m} recover"));
    }

    // --- foreign clients ---

    /// An operator copies the data of the store, or restores an earlier copy.
    fn copy_or_restore(&mut self) {
        let now = self.now();
        let server = self.store.server();
        let Some((copy, keys)) = self.copy.take() else {
            self.note(|| "the store's data is copied".into());
            self.copy = Some((server.snapshot(), self.protocol_keys.clone()));
            return;
        };
        self.note(|| "the store's data is replaced by the copy".into());
        self.tally("restored");
        self.lifetimes.ids_disturbed = Some(now);
        self.lifetimes.lease_disturbed = Some(now);
        self.lifetimes.plan_disturbed = Some(now);
        self.purged_at = Some(now);
        self.buckets += 1;
        self.protocol_keys = keys;
        self.checker.restored();
        server.restore(&copy);
    }

    /// An operator removes a key or re-creates a bucket, or a server lost it.
    fn remove_something(&mut self) {
        let now = self.now();
        let bucket = Bucket::ALL[self.rng.usize(0..Bucket::ALL.len())];
        match bucket {
            Bucket::StableId => self.lifetimes.ids_disturbed = Some(now),
            Bucket::Election => self.lifetimes.lease_disturbed = Some(now),
            Bucket::Heartbeat => self.purged_at = Some(now),
            Bucket::Assignment => self.lifetimes.plan_disturbed = Some(now),
        }
        let server = self.store.server();
        let keys = self.keys(bucket);
        let is_whole = self.rng.bool();
        self.note(|| format!("{bucket:?} loses something; all of it: {is_whole}"));
        self.tally("something removed");
        let removed = match is_whole {
            true => keys,
            false => {
                let index = self.rng.usize(0..keys.len().max(1));
                keys.into_iter().skip(index).take(1).collect()
            }
        };
        if bucket == Bucket::Assignment {
            for key in &removed {
                self.checker.foreign(key, None);
            }
        }
        if is_whole {
            if bucket == Bucket::Assignment {
                self.checker.foreign(COMMIT_KEY, None);
                self.checker.foreign(FENCE_KEY, None);
                if !self.counts_from_time {
                    self.checker.all_lost();
                }
                self.protocol_keys.clear();
                self.buckets += 1;
            }
            return server.recreate_bucket(bucket, self.bucket_config(bucket));
        }
        for key in removed {
            self.protocol_keys.remove(&key);
            server.delete(bucket, &key);
        }
    }

    /// Returns the keys that have a value.
    pub fn keys(&self, bucket: Bucket) -> Vec<String> {
        let listing = self.store.list(bucket, "", far_future());
        let entries = listing.map(|listing| listing.entries).unwrap_or_default();
        let live = entries.into_iter().filter(|entry| entry.is_live());
        let mut keys: Vec<String> = live.map(|entry| entry.key).collect();
        keys.sort();
        keys
    }

    /// A worker of the predecessor joins or leaves.
    fn send_parti(&mut self) {
        self.lifetimes.parti_lives += 1;
        let now = self.now();
        if let Some(parti) = self.lifetimes.parti.take() {
            self.note(|| format!("{parti:?} goes"));
            if self.rng.bool() {
                let server = self.store.server();
                server.delete(Bucket::Heartbeat, &format!("heartbeat.{}", parti.id));
                server.delete(Bucket::StableId, &parti.id);
                self.lifetimes.ids_disturbed = Some(now);
            }
            return;
        }
        let taken = self.keys(Bucket::StableId);
        let steals = self.rng.bool() && !taken.is_empty();
        let id = match steals {
            true => taken[self.rng.usize(0..taken.len())].clone(),
            false => {
                let free = (0..).map(|n| format!("w-{n}"));
                let mut free = free.filter(|id| !taken.contains(id));
                free.next().expect("a free id")
            }
        };
        self.lifetimes.ids_disturbed = Some(now);
        self.tally(if steals { "id stolen" } else { "parti joins" });
        self.note(|| format!("a parti worker joins as {id}, steals: {steals}"));
        let life = self.lifetimes.parti_lives;
        self.lifetimes.parti = Some(Parti { life, id });
        self.after(Duration::ZERO, Event::Parti { life });
    }

    pub fn parti_beats(&mut self, life: u64) {
        let Some(parti) = &mut self.lifetimes.parti else {
            return;
        };
        if parti.life != life {
            return;
        }
        let server = self.store.server();
        server.put(Bucket::StableId, &parti.id, b"2026-01-01T00:00:00Z");
        let key = format!("heartbeat.{}", parti.id);
        server.put(Bucket::Heartbeat, &key, b"2026-01-01T00:00:00.5Z");
        self.after(PARTI_BEAT, Event::Parti { life });
    }

    /// A worker of the predecessor acquires the lease if it is free, and leads for a while.
    fn elect_parti(&mut self) {
        if self.lifetimes.parti_leader.is_some() {
            return;
        }
        let before = self.store.read(Bucket::Election, LEASE_KEY, far_future());
        let marker = before.ok().flatten().filter(|entry| !entry.is_live());
        let create = Write {
            key: LEASE_KEY.to_owned(),
            value: Some(b"parti-1:0".to_vec()),
            expect: Expect::Revision(marker.map_or(0, |entry| entry.revision)),
        };
        let outcome = self.store.write(Bucket::Election, &[create], far_future());
        let until = self.now() + self.millis(0, 20_000);
        // Some have led before and do not know that they were deposed.
        let leads = matches!(outcome[0], Outcome::Done(_));
        self.tally(if leads {
            "parti leads"
        } else {
            "parti deposed"
        });
        self.note(|| format!("parti leads ({leads}) until {until:?}"));
        self.lifetimes.parti_lives += 1;
        let life = self.lifetimes.parti_lives;
        self.lifetimes.parti_leader = Some((life, until));
        self.after(Duration::ZERO, Event::PartiLeads { life });
    }

    pub fn parti_leads(&mut self, life: u64) {
        let Some((_, until)) = self.lifetimes.parti_leader.filter(|(now, _)| *now == life) else {
            return;
        };
        let now = self.now();
        let server = self.store.server();
        let lease = self.store.read(Bucket::Election, LEASE_KEY, far_future());
        let lease = lease.ok().flatten().filter(divvy::store::Entry::is_live);
        let is_its_own = lease.is_some_and(|entry| entry.value.starts_with(b"parti-1"));
        if until <= now {
            // The current holder.
            self.lifetimes.parti_leader = None;
            if !is_its_own {
                self.lifetimes.lease_disturbed = Some(now);
            }
            server.delete(Bucket::Election, LEASE_KEY);
            return;
        }
        if is_its_own {
            server.put(Bucket::Election, LEASE_KEY, b"parti-1:1");
        }
        self.lifetimes.plan_disturbed = Some(now);
        self.write_as_a_stranger();
        self.after(PARTI_LEASE, Event::PartiLeads { life });
    }
}
