//! The kinds of events, and which members each has in its JSON form.

words! {
    /// The kind of an event. Any release may add kinds: ignore unknown ones.
    pub enum EventKind (non_exhaustive) {
        /// The calculator's state changed. The first event of a subscriber reports the current
        /// state: `from` and `state` are equal.
        CalculatorState = 1 "calculator_state",
        /// The membership of a worker changed.
        Member = 2 "member",
        /// A plan was published.
        Published = 3 "published",
        /// A job of the calculator failed. It stays pending and is retried.
        Failed = 4 "failed",
        /// The causes of degradation changed. `message` names each cause and what still works; it is
        /// empty if the calculator is no longer degraded. `time_ns` is the time of the first cause.
        Degraded = 5 "degraded",
        /// A newer leader has taken over, or the fence record was removed: this calculator
        /// publishes nothing more.
        LeadershipLost = 6 "leadership_lost",
        /// The subscriber was too slow, and its subscription is closed. This is its last event.
        Lagged = 7 "lagged",
        /// A thread panicked, and the handle has failed. This is the last event.
        Fatal = 8 "fatal",
        /// A shadow (setting `shadow`) would have published a plan.
        WouldPublish = 9 "would_publish",
        /// The live leader that a shadow watches published a plan. `message` says how the shadow's
        /// plan differs.
        LeaderPublished = 10 "leader_published",
        /// The circuit breaker of the store changed its state. `message` is the failure that opened
        /// it, or empty if it is closed.
        Breaker = 11 "breaker",
        /// A live worker has not applied its assignment within `apply_timeout`. Reported once,
        /// until the worker has caught up.
        WorkerLagging = 12 "worker_lagging",
        /// A malformed value in the store was ignored. Each key is reported once in
        /// `malformed_window`, and at most `malformed_threshold` keys.
        Malformed = 13 "malformed",
        /// The configuration of a live worker has differed from the leader's for a heartbeat TTL.
        /// Reported again when the parts that differ change. An empty list: it agrees again.
        ConfigMismatch = 14 "config_mismatch",
        /// The leader holds a partition list back that lost more than `max_list_shrink` or became
        /// empty. `message` says how to confirm it. It is empty, and the counts are 0, if no list is
        /// held back any more.
        ListHeld = 15 "list_held",
        /// A published plan leaves `partition_count` partitions without an owner, because an
        /// assignment with them would be too large for the store; or the loss of one worker would
        /// lead there. `partitions` lists them. `message` says what to do; it is empty if neither is
        /// the case any more.
        AssignmentLimit = 16 "assignment_limit",
        /// The manager's state changed. The first event of a subscriber reports the current state:
        /// `from` and `state` are equal.
        ManagerState = 20 "manager_state",
        /// The id of the worker changed. `worker` is empty if it has none.
        WorkerId = 21 "worker_id",
        /// Another process owns the id. The worker released its partitions and claims another id.
        WorkerIdLost = 22 "worker_id_lost",
        /// The key of the id had disappeared, and the worker claimed it again.
        WorkerIdRegained = 23 "worker_id_regained",
        /// The worker's assignment changed, or a new version of the same partitions was applied.
        Assignment = 24 "assignment",
        /// The leader changed. `worker` is empty if there is none.
        Leader = 25 "leader",
        /// Degraded mode begins: the store is unreachable, and the assignment may be out of date.
        Outage = 26 "outage",
        /// Degraded mode has lasted long enough to alert an operator.
        Alert = 27 "alert",
        /// Degraded mode ended.
        Recovered = 28 "recovered",
        /// An operation of the manager failed and is retried. Reported once until it succeeds.
        ManagerFailed = 29 "manager_failed",
        /// The calculator of this worker panicked: it no longer leads.
        CalculatorFatal = 30 "calculator_fatal",
        /// A newer process with the same `instance` took the id over. The worker released its
        /// partitions and claims another id.
        WorkerIdTakenOver = 31 "worker_id_taken_over",
    }

    /// A member of the JSON form of an event. Every event also has `kind`, `time` (when it
    /// occurred, RFC 3339), `reporter` (the worker or calculator that reports it) and `worker` (the worker that it
    /// is about, by default the reporter).
    pub enum Field (non_exhaustive) {
        /// Text: the state before.
        From = 1 "from",
        /// Text: the state after.
        State = 2 "state",
        /// Text: why the plan is made, a `Reason`; null in Idle.
        Reason = 3 "reason",
        /// Number: the version of the plan or assignment; 0: none.
        Version = 4 "version",
        /// Number: the version that the worker has applied; 0: none.
        AppliedVersion = 5 "applied_version",
        /// Text: a `MemberChange`.
        Change = 6 "change",
        /// Text: the id of the worker that the event is about; empty: none.
        Worker = 7 "worker",
        /// Number: workers of the plan.
        WorkerCount = 8 "worker_count",
        /// Number: partitions of the plan.
        PartitionCount = 9 "partition_count",
        /// Number: partitions that changed their owner.
        MovedCount = 10 "moved_count",
        /// Number: load of the most loaded worker, as a multiple of the mean.
        MaxToMean = 11 "max_to_mean",
        /// Number: events that were not delivered.
        MissedCount = 12 "missed_count",
        /// Text: the error code, a `Code`.
        Code = 13 "code",
        /// Text: a description for people.
        Message = 14 "message",
        /// Text: the operation that failed, such as `publish`.
        Operation = 15 "operation",
        /// Text: the key of the store; empty: none.
        Key = 16 "key",
        /// Number: attempts made so far.
        Attempts = 17 "attempts",
        /// List of texts: a `DegradationCause` each.
        Causes = 18 "causes",
        /// Number: nanoseconds of the monotonic clock: when it happened, or began; 0: unknown.
        TimeNs = 19 "time_ns",
        /// Number: the term of the leader that published the assignment; 0: a leader without terms.
        Term = 20 "term",
        /// Text: why the plan was made, as the leader wrote it; `cached`: from the cache file.
        Lifecycle = 21 "lifecycle",
        /// List of partitions, each with `keys` and `weight`: all that the worker owns, or all
        /// without an owner.
        Partitions = 22 "partitions",
        /// List of partitions: the acquired ones.
        Added = 23 "added",
        /// List of partitions: the released ones.
        Removed = 24 "removed",
        /// True or false: whether the worker leads.
        IsLeader = 25 "is_leader",
        /// Text: an `AlertLevel`.
        Level = 26 "level",
        /// Number: for how long, in milliseconds.
        LastedMs = 27 "lasted_ms",
        /// Object: how the plan of a shadow compares with the leader's.
        Comparison = 28 "comparison",
        /// Text: the bucket of the key, a `Bucket`.
        Bucket = 29 "bucket",
        /// Text: how the ignored value begins.
        Value = 30 "value",
        /// List of texts: the parts that differ, a `ConfigPart` each.
        Parts = 31 "parts",
        /// Number: partitions in force that the list lacks.
        LostCount = 32 "lost_count",
    }
}

impl EventKind {
    /// Returns the members of the JSON form, in addition to those of every event.
    #[must_use]
    pub fn fields(self) -> &'static [Field] {
        use Field::{
            Added, AppliedVersion, Attempts, Bucket, Causes, Change, Code, Comparison, From,
            IsLeader, Key, LastedMs, Level, Lifecycle, LostCount, MaxToMean, Message, MissedCount,
            MovedCount, Operation, PartitionCount, Partitions, Parts, Reason, Removed, State, Term,
            TimeNs, Value, Version, Worker, WorkerCount,
        };
        match self {
            EventKind::CalculatorState => &[From, State, Reason, Version, TimeNs],
            EventKind::Member => &[Change, Worker],
            EventKind::Published | EventKind::WouldPublish => &[
                Version,
                Reason,
                WorkerCount,
                PartitionCount,
                MovedCount,
                MaxToMean,
            ],
            EventKind::Failed | EventKind::ManagerFailed => {
                &[Code, Message, Operation, Key, Attempts]
            }
            EventKind::Degraded => &[Causes, Message, TimeNs],
            EventKind::LeadershipLost => &[],
            EventKind::Lagged => &[MissedCount],
            EventKind::Fatal | EventKind::CalculatorFatal => &[Code, Message],
            EventKind::LeaderPublished => &[
                Version,
                Term,
                Lifecycle,
                WorkerCount,
                PartitionCount,
                MovedCount,
                MaxToMean,
                Message,
                Comparison,
            ],
            EventKind::AssignmentLimit => &[Version, PartitionCount, Partitions, Message],
            EventKind::Breaker => &[State, Message],
            EventKind::WorkerLagging => &[Worker, Version, AppliedVersion, LastedMs, Message],
            EventKind::Malformed => &[Bucket, Key, Value, Message],
            EventKind::ListHeld => &[PartitionCount, LostCount, Message],
            EventKind::ConfigMismatch => &[Worker, Parts, Message],
            EventKind::ManagerState => &[From, State, TimeNs],
            EventKind::WorkerId
            | EventKind::WorkerIdLost
            | EventKind::WorkerIdTakenOver
            | EventKind::WorkerIdRegained => &[Worker],
            EventKind::Assignment => &[Version, Term, Lifecycle, Partitions, Added, Removed],
            EventKind::Leader => &[Worker, IsLeader],
            EventKind::Outage => &[Message],
            EventKind::Alert => &[Level, LastedMs],
            EventKind::Recovered => &[LastedMs],
        }
    }
}
