//! The words for workers, plans, the leader and the store.

words! {
    /// What a calculator is doing.
    pub enum CalculatorState {
        /// No work is pending, or the pending work waits for the cooldown or a retry.
        Idle = 1 "Idle",
        /// A stabilisation window is open.
        Scaling = 2 "Scaling",
        /// A plan is being computed and published.
        Rebalancing = 3 "Rebalancing",
        /// A plan without the workers that were declared dead is being computed and published.
        Emergency = 4 "Emergency",
    }

    /// What a manager is doing.
    pub enum ManagerState {
        /// Not started, or preparing the buckets.
        Init = 1 "Init",
        /// Claiming a stable id.
        ClaimingId = 2 "ClaimingID",
        /// A member of the fleet. No leader is known.
        Election = 3 "Election",
        /// A leader is known. This worker has no assignment yet.
        WaitingAssignment = 4 "WaitingAssignment",
        /// The assignment is applied.
        Stable = 5 "Stable",
        /// This worker leads and waits for further workers to join or leave.
        Scaling = 6 "Scaling",
        /// This worker leads, and computes and publishes a plan.
        Rebalancing = 7 "Rebalancing",
        /// This worker leads, and publishes a plan without the workers that were declared dead.
        Emergency = 8 "Emergency",
        /// The store is unreachable: the assignment may be out of date, or ownership is suspended.
        Degraded = 9 "Degraded",
        /// Leaving, or stopped.
        Shutdown = 10 "Shutdown",
    }

    /// Why a plan is made: the `lifecycle` of the assignments that it leads to.
    pub enum Reason {
        /// The end of the window that follows a start without workers.
        ColdStart = 1 "cold_start",
        /// Published when a new leader finds partitions without an owner: immediately, or, for a
        /// fleet without a plan, after `initial_delay`.
        ColdStartImmediate = 2 "cold_start_immediate",
        /// The end of the window that follows the first plan of a fleet.
        ColdStartFinal = 3 "cold_start_final",
        /// Workers joined or left in an orderly way.
        PlannedScale = 4 "planned_scale",
        /// A large part of the fleet disappeared and some of it returned.
        Restart = 5 "restart",
        /// Workers were declared dead.
        Emergency = 6 "emergency",
        /// The host requested it.
        ManualRefresh = 7 "manual-refresh",
        /// The partition list or its weights changed.
        PartitionChange = 8 "partition_change",
    }

    /// How the membership of one worker changed.
    pub enum MemberChange {
        /// Its first heartbeat was observed.
        Joined = 1 "joined",
        /// It deleted its heartbeat: a graceful leave.
        Left = 2 "left",
        /// Its lease expired.
        Suspected = 3 "suspected",
        /// It was suspected, and its heartbeats continue.
        Returned = 4 "returned",
        /// It was suspected for longer than `emergency_grace_period`.
        Dead = 5 "dead",
    }

    /// A part of the configuration that all replicas of a fleet should have in common.
    pub enum ConfigPart (non_exhaustive) {
        /// The keys of the partitions in the list.
        List = 1 "list",
        /// The strategy and its parameters.
        Strategy = 2 "strategy",
        /// The settings by which a leader decides when to publish.
        Settings = 3 "settings",
    }

    /// What keeps a calculator from doing all of its work.
    pub enum DegradationCause {
        /// The heartbeat watch is lost: failure detection is suspended.
        WatchLost = 1 "watch_lost",
        /// The connection to the store is unhealthy.
        Store = 2 "store",
        /// Publishing fails.
        Publishing = 3 "publishing",
        /// The partition source fails, or its list cannot be used.
        Source = 4 "source",
        /// More malformed values than `malformed_threshold` were found in the store.
        Malformed = 5 "malformed",
        /// A newer leader has taken over.
        Deposed = 6 "deposed",
        /// A call of the host's code (source, strategy, election, event callback) has taken longer
        /// than `host_call_timeout` and has not returned.
        HostCall = 7 "host_call",
        /// No plan could be made within `planning_timeout`: the source has never returned a list, or
        /// the strategy fails or hangs. A manager hands leadership over.
        Planning = 8 "planning",
        /// Partitions have no owner, because an assignment with them would be too large for the
        /// store.
        Unassigned = 9 "unassigned",
    }

    /// The state of the circuit breaker that guards the store.
    pub enum BreakerState {
        /// Calls pass.
        Closed = 1 "closed",
        /// One call probes the store; all others fail immediately.
        HalfOpen = 2 "half_open",
        /// Calls fail immediately.
        Open = 3 "open",
    }

    /// How serious it is that degraded mode lasts.
    pub enum AlertLevel {
        /// After 30 s.
        Info = 1 "info",
        /// After 2 min.
        Warning = 2 "warning",
        /// After 5 min.
        Error = 3 "error",
        /// After 10 min.
        Critical = 4 "critical",
    }

    /// How a worker departs.
    pub enum Departure {
        /// It leaves: its partitions are handed to other workers immediately.
        Leave = 1 "leave",
        /// It returns soon: heartbeat and id are left to expire, so that a worker that starts
        /// within heartbeat TTL and grace keeps the id and its partitions.
        Restart = 2 "restart",
    }

    /// A bucket of the fleet. The settings map each to a name in the store.
    pub enum Bucket {
        /// Claims of stable ids.
        StableId = 1 "stable_id",
        /// The leader's lease.
        Election = 2 "election",
        /// Heartbeats of the workers. Entries expire.
        Heartbeat = 3 "heartbeat",
        /// Assignments, the fence record and the commit record. Nothing expires.
        Assignment = 4 "assignment",
    }

    /// The publish mode in use.
    pub enum ActiveMode {
        /// Atomic batches.
        Atomic = 1 "atomic",
        /// One conditional write for each key.
        PerKey = 2 "per_key",
    }

    /// Which events of a calculator a subscriber receives.
    pub enum EventFilter {
        /// All but changes of single members.
        State = 1 "state",
        /// All events.
        StateAndMembers = 2 "state_and_members",
    }

    /// Which events of a manager a subscriber receives. The final events, `lagged` and `fatal`,
    /// are delivered to every subscriber.
    pub enum ManagerEventFilter {
        /// Changes of this worker's assignment only.
        Assignment = 1 "assignment",
        /// Events of this worker: its state, id, assignment, outages, failures, and the leader.
        Worker = 2 "worker",
        /// Those, and the events of its calculator while this worker leads.
        WorkerAndCalculator = 3 "worker_and_calculator",
    }
}

words! {
    /// A property of a setting.
    pub enum SettingField {
        /// Its name, such as `cooldown`. In the environment it is in upper case.
        Name = 1 "name",
        /// The type of its value: text, list, path, duration, number, integer, boolean or choice.
        Type = 2 "type",
        /// Its default.
        Default = 3 "default",
        /// Which values it may have, and how they relate to those of other settings.
        Range = 4 "range",
        /// What it does.
        Help = 5 "help",
        /// Its value; secrets are masked.
        Value = 6 "value",
        /// Where the value came from: default, code, json, or env and the variable.
        Origin = 7 "origin",
    }
}

// The choices of settings.
words! {
    /// How assignments are published.
    pub enum PublishMode {
        /// Atomic batches where the store supports them, per-key writes otherwise.
        Auto = 1 "auto",
        /// Atomic batches. The start fails where the store does not support them.
        Atomic = 2 "atomic",
        /// One conditional write for each key.
        PerKey = 3 "per_key",
    }

    /// What happens to the partitions of a worker that cannot reach the store.
    pub enum OutagePolicy {
        /// The worker continues to serve them. If only this worker is cut off, they are reassigned
        /// after TTL and grace, so they have two owners until the outage ends.
        Serve = 1 "serve",
        /// Ownership ends, and the host is notified, before the leader can see the lease expire:
        /// a partition never has two owners, and none while the store is down.
        Strict = 2 "strict",
    }

    /// How soon a manager enters and leaves degraded mode.
    pub enum OutagePreset {
        /// Slowly: 30 s / 10 s, 10 errors within 30 s, recovery grace 20 s.
        Conservative = 1 "conservative",
        /// 10 s / 5 s, 5 errors within 30 s, recovery grace 15 s.
        Balanced = 2 "balanced",
        /// Quickly: 5 s / 3 s, 3 errors within 15 s, recovery grace 10 s.
        Aggressive = 3 "aggressive",
    }

    /// How partitions are divided among the workers.
    pub enum StrategyKind {
        /// Balanced with the fewest moves: each worker keeps what it owns as far as balance allows.
        Sticky = 1 "sticky",
        /// Partitions in turn; every change of the fleet moves most of them.
        RoundRobin = 2 "round_robin",
        /// A hash ring with 150 virtual nodes for each worker, as parti's.
        ConsistentHash = 3 "consistent_hash",
        /// The same with weights and a limit of load for each worker, as parti's.
        WeightedConsistentHash = 4 "weighted_consistent_hash",
    }

    /// Where a fleet coordinates.
    pub enum StoreKind {
        /// NATS JetStream KV: for real fleets.
        Nats = 1 "nats",
        /// In memory: for demos, tests and fleets inside one process.
        Memory = 2 "memory",
    }

    /// What divvy may do to the buckets of a server.
    pub enum ManageBuckets {
        /// Creates missing buckets and leaves existing ones as they are. Enables nothing that a
        /// later downgrade of a server could take offline.
        Create = 1 "create",
        /// As `create`; also enables the server features that divvy profits from, on the bucket
        /// that needs each, once every server of the cluster is known to support it.
        Upgrade = 2 "upgrade",
        /// Neither creates nor changes a bucket.
        Never = 3 "never",
    }

    /// Where the server keeps the data of a bucket.
    pub enum Storage {
        /// On disk: survives a restart of the server.
        File = 1 "file",
        /// In memory: a restart of a single server loses the bucket.
        Memory = 2 "memory",
    }
}

/// Declares which word of a list stands when none is given.
macro_rules! defaults {
    ($($name:ident::$variant:ident),+ $(,)?) => {$(
        impl Default for $name {
            fn default() -> Self {
                $name::$variant
            }
        }
    )+};
}
defaults!(
    BreakerState::Closed,
    ManageBuckets::Create,
    EventFilter::State,
    ManagerEventFilter::Worker,
    PublishMode::Auto,
    OutagePolicy::Serve,
    OutagePreset::Balanced,
    StoreKind::Nats,
    StrategyKind::Sticky,
    Storage::File,
);
