// Code generated from src/vocabulary by `BLESS=1 cargo test --all-features --test bindings vocabulary`. DO NOT EDIT.

package divvy

// CalculatorState: What a calculator is doing.
type CalculatorState int32

// The values of CalculatorState.
const (
	// CalculatorStateIdle: No work is pending, or the pending work waits for the cooldown or a retry.
	CalculatorStateIdle CalculatorState = 1
	// CalculatorStateScaling: A stabilisation window is open.
	CalculatorStateScaling CalculatorState = 2
	// CalculatorStateRebalancing: A plan is being computed and published.
	CalculatorStateRebalancing CalculatorState = 3
	// CalculatorStateEmergency: A plan without the workers that were declared dead is being computed
	// and published.
	CalculatorStateEmergency CalculatorState = 4
)

// String is the name, the same in logs, JSON and every language.
func (w CalculatorState) String() string {
	switch w {
	case CalculatorStateIdle:
		return "Idle"
	case CalculatorStateScaling:
		return "Scaling"
	case CalculatorStateRebalancing:
		return "Rebalancing"
	case CalculatorStateEmergency:
		return "Emergency"
	default:
		return "unknown"
	}
}

// ManagerState: What a manager is doing.
type ManagerState int32

// The values of ManagerState.
const (
	// ManagerStateInit: Not started, or preparing the buckets.
	ManagerStateInit ManagerState = 1
	// ManagerStateClaimingID: Claiming a stable id.
	ManagerStateClaimingID ManagerState = 2
	// ManagerStateElection: A member of the fleet. No leader is known.
	ManagerStateElection ManagerState = 3
	// ManagerStateWaitingAssignment: A leader is known. This worker has no assignment yet.
	ManagerStateWaitingAssignment ManagerState = 4
	// ManagerStateStable: The assignment is applied.
	ManagerStateStable ManagerState = 5
	// ManagerStateScaling: This worker leads and waits for further workers to join or leave.
	ManagerStateScaling ManagerState = 6
	// ManagerStateRebalancing: This worker leads, and computes and publishes a plan.
	ManagerStateRebalancing ManagerState = 7
	// ManagerStateEmergency: This worker leads, and publishes a plan without the workers that were
	// declared dead.
	ManagerStateEmergency ManagerState = 8
	// ManagerStateDegraded: The store is unreachable: the assignment may be out of date, or ownership
	// is suspended.
	ManagerStateDegraded ManagerState = 9
	// ManagerStateShutdown: Leaving, or stopped.
	ManagerStateShutdown ManagerState = 10
)

// String is the name, the same in logs, JSON and every language.
func (w ManagerState) String() string {
	switch w {
	case ManagerStateInit:
		return "Init"
	case ManagerStateClaimingID:
		return "ClaimingID"
	case ManagerStateElection:
		return "Election"
	case ManagerStateWaitingAssignment:
		return "WaitingAssignment"
	case ManagerStateStable:
		return "Stable"
	case ManagerStateScaling:
		return "Scaling"
	case ManagerStateRebalancing:
		return "Rebalancing"
	case ManagerStateEmergency:
		return "Emergency"
	case ManagerStateDegraded:
		return "Degraded"
	case ManagerStateShutdown:
		return "Shutdown"
	default:
		return "unknown"
	}
}

// Departure: How a worker departs.
type Departure int32

// The values of Departure.
const (
	// Leave: It leaves: its partitions are handed to other workers immediately.
	Leave Departure = 1
	// Restart: It returns soon: heartbeat and id are left to expire, so that a worker that starts
	// within heartbeat TTL and grace keeps the id and its partitions.
	Restart Departure = 2
)

// String is the name, the same in logs, JSON and every language.
func (w Departure) String() string {
	switch w {
	case Leave:
		return "leave"
	case Restart:
		return "restart"
	default:
		return "unknown"
	}
}

// Bucket: A bucket of the fleet. The settings map each to a name in the store.
type Bucket int32

// The values of Bucket.
const (
	// BucketStableID: Claims of stable ids.
	BucketStableID Bucket = 1
	// BucketElection: The leader's lease.
	BucketElection Bucket = 2
	// BucketHeartbeat: Heartbeats of the workers. Entries expire.
	BucketHeartbeat Bucket = 3
	// BucketAssignment: Assignments, the fence record and the commit record. Nothing expires.
	BucketAssignment Bucket = 4
)

// String is the name, the same in logs, JSON and every language.
func (w Bucket) String() string {
	switch w {
	case BucketStableID:
		return "stable_id"
	case BucketElection:
		return "election"
	case BucketHeartbeat:
		return "heartbeat"
	case BucketAssignment:
		return "assignment"
	default:
		return "unknown"
	}
}

// EventKind: The kind of an event. Any release may add kinds: ignore unknown ones.
type EventKind int32

// The values of EventKind.
const (
	// EventCalculatorState: The calculator's state changed. The first event of a subscriber reports
	// the current state: `from` and `state` are equal.
	EventCalculatorState EventKind = 1
	// EventMember: The membership of a worker changed.
	EventMember EventKind = 2
	// EventPublished: A plan was published.
	EventPublished EventKind = 3
	// EventFailed: A job of the calculator failed. It stays pending and is retried.
	EventFailed EventKind = 4
	// EventDegraded: The causes of degradation changed. `message` names each cause and what still
	// works; it is empty if the calculator is no longer degraded. `time_ns` is the time of the first
	// cause.
	EventDegraded EventKind = 5
	// EventLeadershipLost: A newer leader has taken over, or the fence record was removed: this
	// calculator publishes nothing more.
	EventLeadershipLost EventKind = 6
	// EventLagged: The subscriber was too slow, and its subscription is closed. This is its last
	// event.
	EventLagged EventKind = 7
	// EventFatal: A thread panicked, and the handle has failed. This is the last event.
	EventFatal EventKind = 8
	// EventWouldPublish: A shadow (setting `shadow`) would have published a plan.
	EventWouldPublish EventKind = 9
	// EventLeaderPublished: The live leader that a shadow watches published a plan. `message` says
	// how the shadow's plan differs.
	EventLeaderPublished EventKind = 10
	// EventBreaker: The circuit breaker of the store changed its state. `message` is the failure that
	// opened it, or empty if it is closed.
	EventBreaker EventKind = 11
	// EventWorkerLagging: A live worker has not applied its assignment within `apply_timeout`.
	// Reported once, until the worker has caught up.
	EventWorkerLagging EventKind = 12
	// EventMalformed: A malformed value in the store was ignored. Each key is reported once in
	// `malformed_window`, and at most `malformed_threshold` keys.
	EventMalformed EventKind = 13
	// EventConfigMismatch: The configuration of a live worker has differed from the leader's for a
	// heartbeat TTL. Reported again when the parts that differ change. An empty list: it agrees
	// again.
	EventConfigMismatch EventKind = 14
	// EventListHeld: The leader holds a partition list back that lost more than `max_list_shrink` or
	// became empty. `message` says how to confirm it. It is empty, and the counts are 0, if no list
	// is held back any more.
	EventListHeld EventKind = 15
	// EventAssignmentLimit: A published plan leaves `partition_count` partitions without an owner,
	// because an assignment with them would be too large for the store; or the loss of one worker
	// would lead there. `partitions` lists them. `message` says what to do; it is empty if neither is
	// the case any more.
	EventAssignmentLimit EventKind = 16
	// EventManagerState: The manager's state changed. The first event of a subscriber reports the
	// current state: `from` and `state` are equal.
	EventManagerState EventKind = 20
	// EventWorkerID: The id of the worker changed. `worker` is empty if it has none.
	EventWorkerID EventKind = 21
	// EventWorkerIDLost: Another process owns the id. The worker released its partitions and claims
	// another id.
	EventWorkerIDLost EventKind = 22
	// EventWorkerIDRegained: The key of the id had disappeared, and the worker claimed it again.
	EventWorkerIDRegained EventKind = 23
	// EventAssignment: The worker's assignment changed, or a new version of the same partitions was
	// applied.
	EventAssignment EventKind = 24
	// EventLeader: The leader changed. `worker` is empty if there is none.
	EventLeader EventKind = 25
	// EventOutage: Degraded mode begins: the store is unreachable, and the assignment may be out of
	// date.
	EventOutage EventKind = 26
	// EventAlert: Degraded mode has lasted long enough to alert an operator.
	EventAlert EventKind = 27
	// EventRecovered: Degraded mode ended.
	EventRecovered EventKind = 28
	// EventManagerFailed: An operation of the manager failed and is retried. Reported once until it
	// succeeds.
	EventManagerFailed EventKind = 29
	// EventCalculatorFatal: The calculator of this worker panicked: it no longer leads.
	EventCalculatorFatal EventKind = 30
	// EventWorkerIDTakenOver: A newer process with the same `instance` took the id over. The worker
	// released its partitions and claims another id.
	EventWorkerIDTakenOver EventKind = 31
)

// String is the name, the same in logs, JSON and every language.
func (w EventKind) String() string {
	switch w {
	case EventCalculatorState:
		return "calculator_state"
	case EventMember:
		return "member"
	case EventPublished:
		return "published"
	case EventFailed:
		return "failed"
	case EventDegraded:
		return "degraded"
	case EventLeadershipLost:
		return "leadership_lost"
	case EventLagged:
		return "lagged"
	case EventFatal:
		return "fatal"
	case EventWouldPublish:
		return "would_publish"
	case EventLeaderPublished:
		return "leader_published"
	case EventBreaker:
		return "breaker"
	case EventWorkerLagging:
		return "worker_lagging"
	case EventMalformed:
		return "malformed"
	case EventConfigMismatch:
		return "config_mismatch"
	case EventListHeld:
		return "list_held"
	case EventAssignmentLimit:
		return "assignment_limit"
	case EventManagerState:
		return "manager_state"
	case EventWorkerID:
		return "worker_id"
	case EventWorkerIDLost:
		return "worker_id_lost"
	case EventWorkerIDRegained:
		return "worker_id_regained"
	case EventAssignment:
		return "assignment"
	case EventLeader:
		return "leader"
	case EventOutage:
		return "outage"
	case EventAlert:
		return "alert"
	case EventRecovered:
		return "recovered"
	case EventManagerFailed:
		return "manager_failed"
	case EventCalculatorFatal:
		return "calculator_fatal"
	case EventWorkerIDTakenOver:
		return "worker_id_taken_over"
	default:
		return "unknown"
	}
}

// The codes of the C ABI.
const (
	// Success.
	codeOk Code = 0
	// A required pointer or handle is NULL or {0}.
	codeNullArgument Code = -1
	// The handle was freed, is of another kind, or was never one.
	codeBadHandle Code = -2
	// An argument breaks a rule that its documentation states.
	codeInvalidArgument Code = -3
	// A text is not UTF-8.
	codeBadUTF8 Code = -4
	// A text, a list or a number of bytes exceeds the stated maximum.
	codeTooLong Code = -5
	// A setting does not exist, cannot be parsed or breaks a rule. The message lists each.
	codeInvalidConfig Code = -6
	// The handle is not started, or was stopped.
	codeNotRunning Code = -7
	// The handle is already started.
	codeAlreadyStarted Code = -8
	// The call would wait for its own thread: for example a stop from inside a callback.
	codeWouldDeadlock Code = -9
	// This process was forked from the one that used the library.
	codeForked Code = -10
	// The header that the program was compiled with does not match this library.
	codeABIMismatch Code = -11
	// There are no further events. Not a failure.
	codeClosed Code = -12
	// A wake ended the wait. Not a failure.
	codeWoken Code = -13
	// The key has no value. Not a failure.
	codeNotFound Code = -14
	// The caller cancelled the call.
	codeCancelled Code = -15
	// The deadline passed. The message says what was still in progress.
	codeTimedOut Code = -100
	// The store is unreachable or does not answer.
	codeUnavailable Code = -101
	// The store refuses the credentials, or a permission is missing.
	codeUnauthorized Code = -102
	// The store, the bucket, the platform or this build does not support the request.
	codeUnsupported Code = -103
	// A newer leader has taken over: nothing of this term is accepted any more.
	codeFenced Code = -104
	// A conditional write found another revision than expected.
	codeConflict Code = -105
	// There is no live worker.
	codeNoWorkers Code = -106
	// A stored value is malformed, oversized or of a wrong type.
	codeInvalidData Code = -107
	// A value is larger than the store accepts.
	codeTooLarge Code = -108
	// Any other failure that the store reported.
	codeStoreError Code = -109
	// The host's partition source failed or returned an unusable list.
	codeSourceFailed Code = -110
	// The host's strategy failed or panicked.
	codeStrategyFailed Code = -111
	// A strategy returned a plan that cannot be used.
	codeInvalidPlan Code = -112
	// Every stable id of the configured range is taken.
	codeIDsExhausted Code = -113
	// Another process owns this worker's id.
	codeIDLost Code = -114
	// This worker does not lead, and only a leader can serve the call.
	codeNotLeader Code = -115
	// The buckets belong to another fleet: the configured name or key prefixes differ.
	codeWrongFleet Code = -116
	// A panic was caught: a defect of the library. Please report it with the message.
	codePanicked Code = -200
)

// codeName is the name of a code in the C ABI, without DIVVY_; empty for an unknown one.
func codeName(code Code) string {
	switch code {
	case codeOk:
		return "OK"
	case codeNullArgument:
		return "NULL_ARGUMENT"
	case codeBadHandle:
		return "BAD_HANDLE"
	case codeInvalidArgument:
		return "INVALID_ARGUMENT"
	case codeBadUTF8:
		return "BAD_UTF8"
	case codeTooLong:
		return "TOO_LONG"
	case codeInvalidConfig:
		return "INVALID_CONFIG"
	case codeNotRunning:
		return "NOT_RUNNING"
	case codeAlreadyStarted:
		return "ALREADY_STARTED"
	case codeWouldDeadlock:
		return "WOULD_DEADLOCK"
	case codeForked:
		return "FORKED"
	case codeABIMismatch:
		return "ABI_MISMATCH"
	case codeClosed:
		return "CLOSED"
	case codeWoken:
		return "WOKEN"
	case codeNotFound:
		return "NOT_FOUND"
	case codeCancelled:
		return "CANCELLED"
	case codeTimedOut:
		return "TIMED_OUT"
	case codeUnavailable:
		return "UNAVAILABLE"
	case codeUnauthorized:
		return "UNAUTHORIZED"
	case codeUnsupported:
		return "UNSUPPORTED"
	case codeFenced:
		return "FENCED"
	case codeConflict:
		return "CONFLICT"
	case codeNoWorkers:
		return "NO_WORKERS"
	case codeInvalidData:
		return "INVALID_DATA"
	case codeTooLarge:
		return "TOO_LARGE"
	case codeStoreError:
		return "STORE_ERROR"
	case codeSourceFailed:
		return "SOURCE_FAILED"
	case codeStrategyFailed:
		return "STRATEGY_FAILED"
	case codeInvalidPlan:
		return "INVALID_PLAN"
	case codeIDsExhausted:
		return "IDS_EXHAUSTED"
	case codeIDLost:
		return "ID_LOST"
	case codeNotLeader:
		return "NOT_LEADER"
	case codeWrongFleet:
		return "WRONG_FLEET"
	case codePanicked:
		return "PANICKED"
	default:
		return ""
	}
}
