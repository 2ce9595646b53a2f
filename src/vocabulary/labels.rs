//! The values of metric labels that are not words of the fleet.

words! {
    /// How an operation ended.
    pub enum Success (non_exhaustive) {
        /// It succeeded.
        Yes = 1 "success",
        /// It failed.
        No = 2 "failure",
    }

    /// A job of `dv-publish`.
    pub enum JobKind (non_exhaustive) {
        /// Take over from a former leader: once for each attempt to start.
        TakeOver = 1 "take_over",
        /// Compute and publish a plan.
        Publish = 2 "publish",
        /// Compare the partition list with the published plan.
        Inspect = 3 "inspect",
        /// Find out whether writes came from another writer.
        Resolve = 4 "resolve",
        /// Probe whether the store answers again.
        Probe = 5 "probe",
    }

    /// A kind of call into the host's code.
    pub enum HostCall (non_exhaustive) {
        /// The partition source.
        Source = 1 "source",
        /// The strategy.
        Strategy = 2 "strategy",
        /// The election of the host.
        Election = 3 "election",
        /// The callback of a subscriber.
        Callback = 4 "callback",
    }

    /// A step of a rebalance.
    pub enum Step (non_exhaustive) {
        /// Read the partitions.
        List = 1 "list",
        /// Compute the plan.
        Compute = 2 "compute",
        /// Publish the plan.
        Publish = 3 "publish",
    }

    /// How the end of a worker's lease was detected.
    pub enum ExpiryCause (non_exhaustive) {
        /// No heartbeat arrived within the TTL, by the local clock.
        Silence = 1 "silence",
        /// The store reported that the heartbeat expired.
        Marker = 2 "marker",
    }

    /// What a watch covers.
    pub enum Watched (non_exhaustive) {
        /// The heartbeats of the workers.
        Heartbeats = 1 "heartbeats",
        /// The assignments, the fence and the commit record.
        Assignments = 2 "assignments",
    }

    /// A call of the store.
    pub enum StoreCall (non_exhaustive) {
        /// Create a bucket unless it exists.
        Ensure = 1 "ensure",
        /// Ask for the capabilities of the store.
        Capabilities = 2 "capabilities",
        /// Read one key.
        Read = 3 "read",
        /// List keys.
        List = 4 "list",
        /// Write keys independently, all in flight at once.
        Write = 5 "write",
        /// Write keys as one batch.
        WriteBatch = 6 "write_batch",
        /// Open a watch.
        Watch = 7 "watch",
    }

    /// How a call of the store, or one write of many, ended.
    pub enum StoreOutcome (non_exhaustive) {
        /// Done.
        Done = 1 "done",
        /// Refused by the store, or failed.
        Refused = 2 "refused",
        /// Indeterminate: no answer in time.
        Unknown = 3 "unknown",
    }

    /// Why the store refused a write.
    pub enum RefusalCause (non_exhaustive) {
        /// Another writer was faster, or the leader was deposed.
        Conflict = 1 "conflict",
        /// The store is busy with another write of the same key or batch.
        Busy = 2 "busy",
        /// The value is too large.
        TooLarge = 3 "too_large",
        /// The store is unreachable, or has no leader.
        Unavailable = 4 "unavailable",
        /// The store was stopped.
        NotRunning = 5 "not_running",
        /// The credentials do not permit it.
        Unauthorized = 6 "unauthorized",
        /// The request is invalid.
        Invalid = 7 "invalid",
        /// The store has no room.
        Full = 8 "full",
        /// Another error of the store.
        Other = 9 "other",
    }

    /// Why a publication was retried.
    pub enum RetryCause (non_exhaustive) {
        /// The store was busy.
        Busy = 1 "busy",
        /// The bucket differed from what was known, or an outcome was indeterminate: it was read
        /// again.
        Indeterminate = 2 "indeterminate",
        /// The store was unreachable, or had no leader.
        Refused = 3 "refused",
    }

    /// How leadership changed.
    pub enum LeadershipChange (non_exhaustive) {
        /// This worker was elected.
        Gained = 1 "gained",
        /// This worker handed leadership over.
        Released = 2 "released",
        /// This worker lost leadership: its lease expired, or another leader took over.
        Lost = 3 "lost",
    }

    /// How a claim of a stable id, or its renewal, ended.
    pub enum IdClaim (non_exhaustive) {
        /// A free id was claimed.
        Claimed = 1 "claimed",
        /// Another worker was faster. The next id is tried.
        Taken = 2 "taken",
        /// Every id is taken.
        Exhausted = 3 "exhausted",
        /// The claim was renewed.
        Renewed = 4 "renewed",
        /// The id had expired or belonged to another worker.
        Lost = 5 "lost",
    }
}
