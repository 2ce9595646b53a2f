//! Faults chosen by the seed, and the course of a run.

use std::collections::BTreeSet;
use std::time::Duration;

use divvy::error::Code;
use divvy::machine::calculator::{CalculatorInput, Ticket};
use divvy::runtime::sim::verify;
use divvy::store::memory::Blackout;
use divvy::store::{Bucket, Entry};
use divvy::wire::{COMMIT_KEY, FENCE_KEY, FleetRecord};

use divvy::types::Partition;

use crate::check::Checked;
use crate::fleet::assignments;
use crate::lockstep_publisher::far_future;
use crate::node::{Phase, WATCH_DELAY_MAX};
use crate::world::{Event, Network, World};

/// Maximum number of leaders alive at the same time.
const LEADERS_MAX: usize = 4;

/// Maximum delay of a request. It may arrive after the faults have stopped.
const LATE_MAX: Duration = Duration::from_secs(20);

/// The result of a run.
#[derive(Debug, Default, Clone, Copy)]
pub struct Summary {
    pub commits: u64,
    pub leaders: usize,
    /// Recovery time as a fraction of the bound.
    pub recovery: f64,
    pub fingerprint: u64,
}

impl World {
    /// Runs one simulation: faults, then none, then the check of the recovery.
    pub fn run(&mut self) -> Result<Summary, String> {
        for worker in 0..self.workers.len() {
            if self.rng.bool() {
                self.worker_up(worker);
            }
        }
        self.elect();
        self.after(Duration::ZERO, Event::Chaos);
        self.chaos_ends = self.now() + self.millis(30_000, 240_000);
        self.run_until(self.chaos_ends)?;
        self.become_quiet()?;
        let recovery = self.recover()?;
        if self.nodes.len() > 1 {
            self.tally("several leaders");
        }
        Ok(Summary {
            commits: self.checker.commits,
            leaders: self.nodes.len(),
            recovery,
            fingerprint: self.fingerprint,
        })
    }

    /// Checks that after the last fault the plan becomes correct within the bound and stays
    /// correct. Returns the fraction of the bound that this took.
    pub fn recover(&mut self) -> Result<f64, String> {
        let quiet = self.now();
        let bound = self.recovery_bound();
        self.after(Duration::ZERO, Event::Probe);
        self.run_until(quiet + bound)?;
        self.judge_division()
            .map_err(|why| format!("not recovered within {bound:?}: {why}"))?;
        let commits = self.checker.commits;
        self.run_until(quiet + bound + Duration::from_secs(60))?;
        self.judge_division()
            .map_err(|why| format!("recovered, then: {why}"))?;
        if self.checker.commits != commits {
            return Err("continues to publish although nothing changes".into());
        }
        self.judge_leaders()?;
        let recovered = self.converged_since.unwrap_or(quiet).since(quiet);
        Ok(recovered.as_secs_f64() / bound.as_secs_f64())
    }

    /// The bound from the last fault to a correct plan: requests in flight, the start of a new
    /// leader, the resynchronisation, one restart or cold start with a cooldown, and a subsequent
    /// emergency, all by the slowest clock.
    pub fn recovery_bound(&self) -> Duration {
        let config = &self.config;
        let sum = LATE_MAX
            + Duration::from_secs(15)
            + config.operation_timeout * 3
            + config.heartbeat_ttl * 3
            + config.recovery_grace()
            + config.emergency_grace_period * 2
            + config.cold_start_window * 2
            + config.planned_scale_window
            + config.cooldown * 2
            + config.retry_delay_max * 4
            + self.hold_bound();
        sum * 10 / 9
    }

    /// How long the last change of the list may be held back: by the leader that observed it, and
    /// once more by a successor.
    fn hold_bound(&self) -> Duration {
        match self.config.max_list_shrink < 1.0 {
            true => (self.config.list_shrink_hold + Duration::from_secs(2)) * 2,
            false => Duration::ZERO,
        }
    }

    pub fn become_quiet(&mut self) -> Checked {
        let now = self.now();
        self.is_quiet = true;
        self.network = Network::GOOD;
        self.note(|| "quiet".into());
        self.happen_to_world(Event::Restore);
        for n in 0..self.nodes.len() {
            self.happen_to_world(Event::Recover(n));
            let node = &mut self.nodes[n];
            node.frozen_until = node.frozen_until.min(now);
        }
        for worker in &mut self.workers {
            worker.frozen_until = worker.frozen_until.min(now);
        }
        if self.lifetimes.slots > 0 {
            return self.calm_lives();
        }
        if self.workers.iter().all(|worker| !worker.is_up) {
            self.worker_up(0);
        }
        if self.leader.is_none() && self.starts_due == 0 {
            self.elect();
        }
        self.poll_nodes()
    }

    /// Checks that the live workers, and no others, own each partition exactly once and have
    /// applied their assignments.
    fn judge_division(&self) -> Checked {
        self.judge_protocol_keys()?;
        if self.lifetimes.slots > 0 {
            return self.judge_lives();
        }
        let listing = self.listing();
        let holders = self.checker.is_newest_division(&listing)?;
        let up = self.workers.iter().filter(|worker| worker.is_up);
        let up: BTreeSet<String> = up.map(|worker| worker.id.to_string()).collect();
        if holders != up {
            return Err(format!("{holders:?} hold something, {up:?} are alive"));
        }
        for (name, assignment) in assignments(&listing) {
            let worker = self
                .workers
                .iter()
                .find(|worker| worker.id.as_str() == name);
            let Some(worker) = worker else { continue };
            if !worker.accepts(assignment.term, assignment.version) {
                return Err(format!(
                    "{name} applied {:?} and refuses ({:?}, {})",
                    worker.applied, assignment.term, assignment.version
                ));
            }
        }
        Ok(())
    }

    /// Checks that one leader remains, that nothing is pending, and that every subscriber received
    /// every event.
    fn judge_leaders(&mut self) -> Checked {
        let leaders = self.judge_minds()?;
        if leaders.len() == 1 && Some(leaders[0]) == self.leader {
            return Ok(());
        }
        Err(format!(
            "{leaders:?} lead at the end, the host elected {:?}",
            self.leader
        ))
    }

    /// Checks that the leader has nothing pending and that every subscriber received every event.
    pub fn judge_minds(&mut self) -> Result<Vec<usize>, String> {
        let now = self.now();
        let leaders: Vec<usize> = self.alive().filter(|&n| !self.nodes[n].is_over).collect();
        for &n in &leaders {
            let node = &mut self.nodes[n];
            node.listen(usize::MAX)?;
            let local = node.clock.of(now);
            let (state, pending) = (node.machine.position().state, node.machine.pending(local));
            if pending.reason.is_some() || state != divvy::CalculatorState::Idle {
                return Err(format!("node {n} is {state} with {pending:?} at the end"));
            }
            if !node.machine.degraded().is_empty() {
                return Err(format!(
                    "node {n} ends degraded: {:?}",
                    node.machine.degraded()
                ));
            }
            if !node.tickets.is_empty() {
                return Err(format!("node {n} never answered {:?}", node.tickets));
            }
        }
        Ok(leaders)
    }

    /// Handles all due work except the traffic of calls.
    pub fn happen_to_world(&mut self, event: Event) {
        match event {
            Event::StartLeader => {
                self.starts_due -= 1;
                if self.leader.is_none() || self.alive().count() < LEADERS_MAX {
                    let started = self.start_leader();
                    debug_assert!(started.is_ok(), "{started:?}");
                }
            }
            Event::StopNode(n) => {
                let stopped = self.stop_node(n);
                debug_assert!(stopped.is_ok(), "{stopped:?}");
            }
            Event::Restore => {
                self.blackout = None;
                self.workers_store.faults().restore();
                self.note(|| "the store recovers".into());
                self.restore_members();
                for n in 0..self.nodes.len() {
                    if self.nodes[n].blackout.is_none() {
                        self.nodes[n].client.faults().restore();
                    }
                }
            }
            Event::Recover(n) => {
                self.nodes[n].blackout = None;
                let faults = self.nodes[n].client.faults();
                if self.blackout.is_none() {
                    faults.restore();
                }
                faults.recover_watches();
                faults.delay_watch_events(Duration::ZERO);
                self.note(|| format!("the watches of node {n} recover"));
            }
            Event::Calm => {
                self.network = Network::GOOD;
                self.lifetimes.is_dirty = true;
            }
            Event::Thaw => {}
            Event::Probe => {
                match (self.judge_division(), self.converged_since) {
                    (Ok(()), None) => self.converged_since = Some(self.now()),
                    (Err(_), _) => self.converged_since = None,
                    (Ok(()), Some(_)) => {}
                }
                self.after(Duration::from_secs(1), Event::Probe);
            }
            Event::Chaos if self.is_quiet => {}
            Event::Chaos if self.lifetimes.slots > 0 => {
                self.trouble_lives();
                let pause = self.millis(0, 12_000);
                self.after(pause, Event::Chaos);
            }
            Event::Chaos => {
                self.chaos();
                let pause = self.millis(0, 12_000);
                self.after(pause, Event::Chaos);
            }
            _ => unreachable!("traffic is handled elsewhere"),
        }
    }

    fn chaos(&mut self) {
        match self.rng.u8(0..24) {
            0..=5 => self.trouble_a_worker(),
            6 => self.trouble_the_fleet(),
            7..=11 => self.trouble_a_leader(),
            12..=13 => self.trouble_the_network(),
            14 => self.black_out(),
            15..=17 => self.ask_a_leader(),
            18..=19 => self.change_partitions(),
            20..=21 => self.write_as_a_stranger(),
            22 => self.listen(),
            _ => {
                for _ in 0..3 {
                    self.trouble_a_worker();
                }
            }
        }
    }

    fn trouble_a_worker(&mut self) {
        let index = self.rng.usize(0..self.workers.len());
        if !self.workers[index].is_up {
            return self.worker_up(index);
        }
        match self.rng.u8(0..4) {
            0 => self.worker_down(index, true),
            1 => self.worker_down(index, false),
            2 => {
                let until = self.now() + self.millis(500, 20_000);
                self.workers[index].frozen_until = until;
                self.note(|| format!("w-{index} freezes until {until:?}"));
            }
            _ => {
                let gracefully = self.rng.bool();
                self.worker_down(index, gracefully);
                self.worker_up(index);
            }
        }
    }

    /// Applies a fault to many workers: a restart of the fleet, a pause of all workers, or purged
    /// heartbeats.
    fn trouble_the_fleet(&mut self) {
        match self.rng.u8(0..4) {
            0 => {
                for index in 0..self.workers.len() {
                    if self.workers[index].is_up && self.chance(0.7) {
                        self.worker_down(index, false);
                    }
                }
            }
            1 => {
                for index in 0..self.workers.len() {
                    if !self.workers[index].is_up {
                        self.worker_up(index);
                    }
                }
            }
            2 => {
                let until = self.now() + self.millis(5_000, 25_000);
                self.note(|| format!("the fleet freezes until {until:?}"));
                for index in 0..self.workers.len() {
                    if self.chance(0.7) {
                        self.workers[index].frozen_until = until;
                    }
                }
            }
            _ => {
                self.note(|| "heartbeats are purged".into());
                self.purged_at = Some(self.now());
                self.store.server().purge(Bucket::Heartbeat);
            }
        }
    }

    fn trouble_a_leader(&mut self) {
        let alive: Vec<usize> = self.alive().collect();
        let Some(&n) = alive.get(self.rng.usize(0..alive.len().max(1))) else {
            return;
        };
        match self.rng.u8(0..7) {
            0 => {
                let stopped = self.stop_node(n);
                debug_assert!(stopped.is_ok(), "{stopped:?}");
            }
            1 | 2 => {
                // The leader is frozen, and another one may be elected: both run when it resumes.
                let until = self.now() + self.millis(100, 40_000);
                self.nodes[n].frozen_until = until;
                self.note(|| format!("node {n} freezes until {until:?}"));
                self.at(until, Event::Thaw);
                if self.rng.bool() {
                    self.elect();
                }
            }
            3 => self.elect(),
            4 => {
                self.nodes[n]
                    .client
                    .faults()
                    .disconnect_watches("simulated");
                self.note(|| format!("the watches of node {n} are lost"));
                let until = self.millis(100, 30_000);
                self.after(until, Event::Recover(n));
            }
            5 => {
                let late = self.millis(1, u64::try_from(WATCH_DELAY_MAX.as_millis()).unwrap_or(0));
                self.nodes[n].client.faults().delay_watch_events(late);
                self.note(|| format!("node {n} sees everything {late:?} late"));
                let until = self.millis(1_000, 20_000);
                self.after(until, Event::Recover(n));
            }
            _ => {
                let how = if self.rng.bool() {
                    Blackout::Refuse
                } else {
                    Blackout::Hang
                };
                self.cut_off_node(n, how);
                let until = self.millis(100, 20_000);
                self.after(until, Event::Recover(n));
            }
        }
    }

    pub fn trouble_the_network(&mut self) {
        self.network = Network {
            fault: self.rng.f64() * 0.5,
            delay_max_ms: [5, 200, 3_000][self.rng.usize(0..3)],
            source_fault: self.rng.f64() * 0.4,
            source_hang: self.rng.f64() * 0.4,
            strategy_fault: self.rng.f64() * 0.4,
            think_max_ms: [1, 100, 8_000][self.rng.usize(0..3)],
        };
        let network = self.network;
        self.note(|| format!("{network:?}"));
        let until = self.millis(1_000, 40_000);
        self.after(until, Event::Calm);
    }

    fn black_out(&mut self) {
        let how = if self.rng.bool() {
            Blackout::Refuse
        } else {
            Blackout::Hang
        };
        self.cut_off(how);
        let until = self.millis(100, 30_000);
        self.after(until, Event::Restore);
    }

    /// Disconnects one leader from the store until it recovers.
    pub fn cut_off_node(&mut self, n: usize, how: Blackout) {
        self.nodes[n].blackout = Some(how);
        self.nodes[n].client.faults().blackout(how);
        self.note(|| format!("node {n} is cut off: {how:?}"));
    }

    /// Disconnects every process from the store until it recovers.
    pub fn cut_off(&mut self, how: Blackout) {
        self.blackout = Some(how);
        self.workers_store.faults().blackout(how);
        for n in self.alive().collect::<Vec<_>>() {
            self.nodes[n].client.faults().blackout(how);
        }
        self.note(|| format!("the store fails: {how:?}"));
    }

    fn ask_a_leader(&mut self) {
        let running = |n: &usize| self.nodes[*n].phase == Phase::Running;
        let running: Vec<usize> = self.alive().filter(running).collect();
        let Some(&n) = running.get(self.rng.usize(0..running.len().max(1))) else {
            return;
        };
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let refresh = self.rng.bool();
        let generation = self.nodes[n].partitions.touch();
        let node = &mut self.nodes[n];
        node.tickets.insert(ticket.0);
        node.inbox.push_back(if refresh {
            let ticket = Some(ticket);
            CalculatorInput::PartitionsChanged { generation, ticket }
        } else {
            CalculatorInput::Trigger { ticket }
        });
    }

    /// The source returns this list from now on.
    pub fn give_partitions(&mut self, list: Vec<Partition>) {
        self.partitions = list;
        self.list_changed();
        self.notify_leaders();
    }

    pub fn change_partitions(&mut self) {
        self.set_partitions();
        self.notify_leaders();
    }

    fn notify_leaders(&mut self) {
        let count = self.partitions.len();
        self.note(|| format!("there are {count} partitions now"));
        // The host notifies every running leader.
        for n in self.alive().collect::<Vec<_>>() {
            let generation = self.nodes[n].partitions.touch();
            let ticket = None;
            self.nodes[n]
                .inbox
                .push_back(CalculatorInput::PartitionsChanged { generation, ticket });
        }
    }

    fn listen(&mut self) {
        let alive: Vec<usize> = self.alive().collect();
        for n in alive {
            let count = self.rng.usize(0..20);
            let heard = self.nodes[n].listen(count);
            debug_assert!(heard.is_ok(), "{heard:?}");
            self.nodes[n].subscribe();
        }
    }

    /// A leader of the Go library that has not noticed its deposition, or an operator, writes an
    /// assignment.
    pub fn write_as_a_stranger(&mut self) {
        let kind = self.rng.u8(0..15);
        let workers = self.workers.len() + self.lifetimes.slots;
        let worker = self.rng.usize(0..workers + 2);
        let key = format!("assignment.w-{worker}");
        let newest = self.newest_version();
        let version = match self.rng.u8(0..4) {
            0 => newest.saturating_sub(2).max(1),
            1 => newest,
            2 => newest + 1,
            _ => newest + self.rng.i64(2..1_000),
        };
        let held = self.rng.usize(0..=self.partitions.len());
        let list = &self.partitions[..held];
        let partitions = serde_json::to_string(list).expect("partitions as JSON");
        // A Go leader writes no term, but malformed data may contain one. It must not equal the
        // current term: its writer would count as the leader.
        let bogus = self.rng.i64(0..9);
        let term = match self.rng.u8(0..8) {
            0 if bogus != self.checker.fence => format!(r#","term":{bogus}"#),
            _ => String::new(),
        };
        // Near the limit of the number range: must be ignored in every record.
        let huge = i64::MAX - self.rng.i64(0..1 << 60);
        let (version, term) = match self.rng.u8(0..10) {
            0 => (huge, term),
            1 => (version, format!(r#","term":{huge}"#)),
            _ => (version, term),
        };
        let plan = format!(
            r#"{{"version":{version},"lifecycle":"emergency","partitions":{partitions}{term}}}"#
        );
        let mut record = || {
            let both = format!(r#"{{"term":{huge},"version":{huge}}}"#);
            let version = format!(r#"{{"term":1,"version":{huge}}}"#);
            let rewrite = format!(r#"{{"term":1,"class":"A","class_b_until":{huge}}}"#);
            let values = [
                None,
                Some("{}".to_owned()),
                Some(both),
                Some(version),
                Some(rewrite),
            ];
            values[self.rng.usize(0..values.len())].clone()
        };
        let (key, value) = match kind {
            0..=6 => (key, Some(plan)),
            7 | 8 => (key, None),
            9 => (key, Some("{junk".to_owned())),
            10 => (COMMIT_KEY.to_owned(), record()),
            11 => (FENCE_KEY.to_owned(), record()),
            12 => return self.leave_protocol_key(),
            13 => return self.join_as_another_fleet(),
            _ => return self.overstate_a_heartbeat(huge),
        };
        self.note(|| format!("a foreign client writes {key}: {value:?}"));
        let value = value.map(String::into_bytes);
        self.checker.foreign(&key, value.as_deref());
        let server = self.store.server();
        match value {
            Some(value) => server.put(Bucket::Assignment, &key, &value),
            None => server.delete(Bucket::Assignment, &key),
        };
    }

    fn newest_version(&self) -> i64 {
        let listing = self.listing();
        let versions = assignments(&listing).into_iter().map(|(_, a)| a.version);
        versions.max().unwrap_or(0)
    }

    /// Another program writes its own record to the assignment bucket.
    fn leave_protocol_key(&mut self) {
        let key = format!("assignment._commit_log.{}", self.rng.u8(0..4));
        let value = format!("{{\"version\":{}}}", self.rng.u8(..)).into_bytes();
        self.note(|| format!("a foreign client writes {key}"));
        self.store.server().put(Bucket::Assignment, &key, &value);
        self.protocol_keys.insert(key, value);
    }

    /// A worker of a fleet with another name or other key prefixes starts on these buckets. It is
    /// refused as long as a fence says whose they are.
    fn join_as_another_fleet(&mut self) {
        let listing = self.listing();
        let is_led = |entry: &&Entry| entry.key == FENCE_KEY && entry.is_live();
        if !listing.entries.iter().any(|entry| is_led(&entry)) {
            return;
        }
        let mut other = FleetRecord::default();
        match self.rng.bool() {
            true => other.fleet = "other".into(),
            false => other.assignment_prefix = "other".into(),
        }
        self.note(|| format!("a worker of {other} starts"));
        self.tally("other fleet refused");
        let verified = verify(&self.store.client("other"), &other, "bucket", far_future());
        let error = verified.expect_err("a worker of another fleet joined");
        assert_eq!(error.code(), Code::WrongFleet, "{error}");
        assert_eq!(
            self.listing().last_sequence,
            listing.last_sequence,
            "it wrote something"
        );
    }

    /// A heartbeat reports implausibly high numbers.
    fn overstate_a_heartbeat(&mut self, huge: i64) {
        let keys = self.keys(Bucket::Heartbeat);
        let Some(key) = keys.get(self.rng.usize(0..keys.len().max(1))) else {
            return;
        };
        let names = match self.rng.bool() {
            true => ["applied_term", "applied_version"],
            false => ["highest_term", "highest_version"],
        };
        let value = format!(
            r#"{{"applied_version":1,"{}":{huge},"{}":{huge}}}"#,
            names[0], names[1]
        );
        let value = match names[1] {
            "applied_version" => value.replace(r#""applied_version":1,"#, ""),
            _ => value,
        };
        self.note(|| format!("a foreign client writes {key}: {value}"));
        self.tally("overstated heartbeat");
        let server = self.store.server();
        server.put(Bucket::Heartbeat, key, value.as_bytes());
    }

    /// Checks that the records of other programs are unchanged.
    pub fn judge_protocol_keys(&self) -> Checked {
        let listing = self.listing();
        for (key, value) in &self.protocol_keys {
            let found = listing.entries.iter().find(|entry| entry.key == *key);
            if found.is_none_or(|entry| entry.value != *value) {
                return Err(format!("{key} was touched"));
            }
        }
        Ok(())
    }
}
