//! Error codes, and the statuses that only the C ABI has.

words! {
    /// What kind of failure occurred. Codes are added, never renumbered.
    pub enum Code (non_exhaustive) {
        /// An argument breaks a rule that its documentation states.
        InvalidArgument = -3 "invalid_argument",
        /// A setting does not exist, cannot be parsed or breaks a rule. The message lists each.
        InvalidConfig = -6 "invalid_config",
        /// The handle is not started, or was stopped.
        NotRunning = -7 "not_running",
        /// The handle is already started.
        AlreadyStarted = -8 "already_started",
        /// The call would wait for its own thread: for example a stop from inside a callback.
        WouldDeadlock = -9 "would_deadlock",
        /// The caller cancelled the call.
        Cancelled = -15 "cancelled",
        /// The deadline passed. The message says what was still in progress.
        TimedOut = -100 "timed_out",
        /// The store is unreachable or does not answer.
        Unavailable = -101 "unavailable",
        /// The store refuses the credentials, or a permission is missing.
        Unauthorized = -102 "unauthorized",
        /// The store, the bucket, the platform or this build does not support the request.
        Unsupported = -103 "unsupported",
        /// A newer leader has taken over: nothing of this term is accepted any more.
        Fenced = -104 "fenced",
        /// A conditional write found another revision than expected.
        Conflict = -105 "conflict",
        /// There is no live worker.
        NoWorkers = -106 "no_workers",
        /// A stored value is malformed, oversized or of a wrong type.
        InvalidData = -107 "invalid_data",
        /// A value is larger than the store accepts.
        TooLarge = -108 "too_large",
        /// Any other failure that the store reported.
        StoreError = -109 "store_error",
        /// The host's partition source failed or returned an unusable list.
        SourceFailed = -110 "source_failed",
        /// The host's strategy failed or panicked.
        StrategyFailed = -111 "strategy_failed",
        /// A strategy returned a plan that cannot be used.
        InvalidPlan = -112 "invalid_plan",
        /// Every stable id of the configured range is taken.
        IdsExhausted = -113 "ids_exhausted",
        /// Another process owns this worker's id.
        IdLost = -114 "id_lost",
        /// This worker does not lead, and only a leader can serve the call.
        NotLeader = -115 "not_leader",
        /// The buckets belong to another fleet: the configured name or key prefixes differ.
        WrongFleet = -116 "wrong_fleet",
        /// A panic was caught: a defect of the library. Please report it with the message.
        Panicked = -200 "panicked",
    }

    /// Statuses that no error of the Rust API has.
    pub enum CallStatus {
        /// Success.
        Ok = 0 "ok",
        /// A required pointer or handle is NULL or {0}.
        NullArgument = -1 "null_argument",
        /// The handle was freed, is of another kind, or was never one.
        BadHandle = -2 "bad_handle",
        /// A text is not UTF-8.
        BadUtf8 = -4 "bad_utf8",
        /// A text, a list or a number of bytes exceeds the stated maximum.
        TooLong = -5 "too_long",
        /// This process was forked from the one that used the library.
        Forked = -10 "forked",
        /// The header that the program was compiled with does not match this library.
        AbiMismatch = -11 "abi_mismatch",
        /// There are no further events. Not a failure.
        Closed = -12 "closed",
        /// A wake ended the wait. Not a failure.
        Woken = -13 "woken",
        /// The key has no value. Not a failure.
        NotFound = -14 "not_found",
    }

    /// How to react to an error.
    pub enum ErrorClass {
        /// The same call may succeed later.
        Retriable = 1 "retriable",
        /// The same call fails again until something is changed.
        Permanent = 2 "permanent",
        /// Another writer was faster or has taken over.
        Conflict = 3 "conflict",
        /// The caller's input is at fault.
        Invalid = 4 "invalid",
    }
}

impl Code {
    /// How to react to this code.
    #[must_use]
    pub fn class(self) -> ErrorClass {
        match self {
            Code::InvalidArgument | Code::InvalidConfig => ErrorClass::Invalid,
            Code::TimedOut
            | Code::Unavailable
            | Code::NoWorkers
            | Code::SourceFailed
            | Code::StrategyFailed
            | Code::InvalidPlan
            | Code::IdsExhausted
            | Code::NotLeader
            | Code::StoreError => ErrorClass::Retriable,
            Code::Fenced | Code::Conflict | Code::IdLost => ErrorClass::Conflict,
            Code::WrongFleet
            | Code::InvalidData
            | Code::TooLarge
            | Code::NotRunning
            | Code::AlreadyStarted
            | Code::WouldDeadlock
            | Code::Cancelled
            | Code::Unauthorized
            | Code::Unsupported
            | Code::Panicked => ErrorClass::Permanent,
        }
    }
}
