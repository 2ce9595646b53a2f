//! The kinds of events, and which members each has in its JSON form.

words! {
    /// What an event is about. Kinds may be added in any release: ignore unknown ones.
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
        /// What keeps the calculator from doing all of its work changed. `message` names each cause
        /// and what still works; it is empty when nothing is wrong any more. `time_ns` is when the
        /// first cause began.
        Degraded = 5 "degraded",
        /// A newer leader has taken over, or the fence record was removed: this calculator
        /// publishes nothing more.
        LeadershipLost = 6 "leadership_lost",
        /// The subscriber was too slow and is closed. Its last event.
        Lagged = 7 "lagged",
        /// A thread panicked and the handle has failed. The last event.
        Fatal = 8 "fatal",
        /// A shadow (setting `shadow`) would have published a plan.
        WouldPublish = 9 "would_publish",
        /// The live leader that a shadow watches published a plan. `message` says how the shadow's
        /// plan differs.
        LeaderPublished = 10 "leader_published",
        /// The circuit breaker of the store changed its state. `message` is the failure that opened
        /// it, and empty when it is closed.
        Breaker = 11 "breaker",
        /// A live worker has not applied its assignment within `apply_timeout`. Reported once,
        /// until the worker has caught up.
        WorkerLagging = 12 "worker_lagging",
        /// The manager's state changed. The first event of a subscriber reports the current state:
        /// `from` and `state` are equal.
        ManagerState = 20 "manager_state",
        /// The worker is a member under another id. `worker` is empty when it has none.
        WorkerId = 21 "worker_id",
        /// Another process owns the id: nothing is owned any more, and another id is claimed.
        WorkerIdLost = 22 "worker_id_lost",
        /// The key of the id had disappeared and was free: it is claimed again.
        WorkerIdRegained = 23 "worker_id_regained",
        /// The worker's assignment changed, or a new version of the same partitions was applied.
        Assignment = 24 "assignment",
        /// Another leader is known. `worker` is empty when there is none.
        Leader = 25 "leader",
        /// Degraded mode begins: the store is unreachable, and the assignment may be out of date.
        Outage = 26 "outage",
        /// Degraded mode has lasted long enough to alert an operator.
        Alert = 27 "alert",
        /// Degraded mode is over.
        Recovered = 28 "recovered",
        /// An operation of the manager failed and is retried. Reported once until it succeeds.
        ManagerFailed = 29 "manager_failed",
        /// The calculator of this worker panicked: it no longer leads.
        CalculatorFatal = 30 "calculator_fatal",
    }

    /// A member of an event's JSON form. Every event also has `kind`, `time` (RFC 3339,
    /// when it was delivered), `reporter` (the worker or calculator that reports it) and `worker`
    /// (the worker it is about; otherwise the reporter).
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
        /// Number: load of the fullest worker, as a multiple of the mean.
        MaxToMean = 11 "max_to_mean",
        /// Number: events that were not delivered.
        MissedCount = 12 "missed_count",
        /// Text: the error code, a `Code`.
        Code = 13 "code",
        /// Text: what happened, for people.
        Message = 14 "message",
        /// Text: the operation that failed, such as `publish`.
        Operation = 15 "operation",
        /// Text: the key of the store; empty: none.
        Key = 16 "key",
        /// Number: how often the operation was tried.
        Attempts = 17 "attempts",
        /// List of texts: a `DegradationCause` each.
        Causes = 18 "causes",
        /// Number: nanoseconds of the monotonic clock: when it happened, or began; 0: unknown.
        TimeNs = 19 "time_ns",
        /// Number: the term of the leader that published the assignment; 0: a leader without terms.
        Term = 20 "term",
        /// Text: why the plan was made, as the leader wrote it; `cached`: from the cache file.
        Lifecycle = 21 "lifecycle",
        /// List of partitions, each with `keys` and `weight`: all that the worker owns.
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
    }
}

impl EventKind {
    /// The members that its JSON form has besides those of every event.
    #[must_use]
    pub fn fields(self) -> &'static [Field] {
        use Field::{
            Added, AppliedVersion, Attempts, Causes, Change, Code, Comparison, From, IsLeader, Key,
            LastedMs, Level, Lifecycle, MaxToMean, Message, MissedCount, MovedCount, Operation,
            PartitionCount, Partitions, Reason, Removed, State, Term, TimeNs, Version, Worker,
            WorkerCount,
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
            EventKind::Breaker => &[State, Message],
            EventKind::WorkerLagging => &[Worker, Version, AppliedVersion, LastedMs, Message],
            EventKind::ManagerState => &[From, State, TimeNs],
            EventKind::WorkerId | EventKind::WorkerIdLost | EventKind::WorkerIdRegained => {
                &[Worker]
            }
            EventKind::Assignment => &[Version, Term, Lifecycle, Partitions, Added, Removed],
            EventKind::Leader => &[Worker, IsLeader],
            EventKind::Outage => &[Message],
            EventKind::Alert => &[Level, LastedMs],
            EventKind::Recovered => &[LastedMs],
        }
    }
}
