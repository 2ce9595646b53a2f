package divvy

import (
	"context"
	"time"
)

// CalculatorState is what a calculator is doing.
type CalculatorState int

// The states of a calculator.
const (
	// CalculatorStateIdle: nothing is pending, or what is pending waits for cooldown or a retry.
	CalculatorStateIdle CalculatorState = iota
	// CalculatorStateScaling: a stabilisation window is open.
	CalculatorStateScaling
	// CalculatorStateRebalancing: a plan is being computed and published.
	CalculatorStateRebalancing
	// CalculatorStateEmergency: a plan without confirmed lost workers is being computed and published.
	CalculatorStateEmergency
)

// String is the state's name: Idle, Scaling, Rebalancing or Emergency.
func (s CalculatorState) String() string {
	switch s {
	case CalculatorStateIdle:
		return "Idle"
	case CalculatorStateScaling:
		return "Scaling"
	case CalculatorStateRebalancing:
		return "Rebalancing"
	case CalculatorStateEmergency:
		return "Emergency"
	default:
		return "Unknown"
	}
}

// Partition is a unit of work: keys that name it, at least one, and a weight (0 or less: the
// default weight).
type Partition struct {
	Keys   []string `json:"keys"`
	Weight int64    `json:"weight"`
}

// PartitionSource tells all partitions. It is read at the start, at every rebalance and at
// [Calculator.Refresh], one call at a time. An error (or a panic) keeps the last plan; the source
// is read again. The context ends with the time that the calculator is willing to wait, and when
// the calculator is stopped. Stop, Close, TriggerRebalance and Refresh of its calculator return
// ErrWouldDeadlock in it.
type PartitionSource interface {
	ListPartitions(ctx context.Context) ([]Partition, error)
}

// AssignmentStrategy divides partitions among workers: workers are sorted and at least one,
// partitions are in canonical order. Every partition must be given to exactly one of the workers.
// The same input must lead to the same plan. An error (or a panic, or an unusable plan) keeps the
// last plan; it is tried again. Must not call Stop, TriggerRebalance or Refresh of its calculator.
type AssignmentStrategy interface {
	Assign(workers []string, partitions []Partition) (map[string][]Partition, error)
}

// Logger takes what the library tells; *slog.Logger is one. It is called from a thread of the
// library and must not call back into the package.
type Logger interface {
	Debug(msg string, keysAndValues ...any)
	Info(msg string, keysAndValues ...any)
	Warn(msg string, keysAndValues ...any)
	Error(msg string, keysAndValues ...any)
}

// Bucket is one of the buckets that a fleet coordinates in.
type Bucket int32

// The buckets.
const (
	BucketStableID   Bucket = 1
	BucketElection   Bucket = 2
	BucketHeartbeat  Bucket = 3
	BucketAssignment Bucket = 4
)

// EventKind is what an event is about.
type EventKind int32

// The kinds of events. More may come; ignore those that you do not know.
const (
	EventState           EventKind = 1
	EventMember          EventKind = 2
	EventPublished       EventKind = 3
	EventFailed          EventKind = 4
	EventDegraded        EventKind = 5
	EventLeadershipLost  EventKind = 6
	EventLagged          EventKind = 7
	EventFatal           EventKind = 8
	EventWouldPublish    EventKind = 9
	EventLeaderPublished EventKind = 10
	EventBreaker         EventKind = 11
	EventWorkerLagging   EventKind = 12
)

// Event is something that happened to a calculator.
type Event struct {
	Kind EventKind
	// State and From: of EventState; equal in the first event, which tells the current state.
	State, From CalculatorState
	// Reason: of EventState, EventPublished and EventWouldPublish; empty in Idle.
	Reason string
	// Version: of EventState, of whatever is published, and the one assigned of EventWorkerLagging.
	Version int64
	// AppliedVersion: of EventWorkerLagging.
	AppliedVersion int64
	// Worker: of EventMember and EventWorkerLagging. Change ("joined", "left", "missing", "back",
	// "lost"): of EventMember.
	Worker, Change string
	// Workers, Partitions and Moved: of EventPublished, EventWouldPublish and EventLeaderPublished.
	Workers, Partitions, Moved int
	// Err: of EventFailed; it is retried.
	Err error
	// Message: of EventDegraded (with what still works; empty when nothing is wrong any more),
	// EventBreaker (why the store is left alone; empty when it answers again), EventFatal and
	// EventLeaderPublished, and EventWorkerLagging in words.
	Message string
	// Time is when it happened (of EventDegraded: since when it lasts), since an arbitrary moment
	// of the past.
	Time time.Duration
}
