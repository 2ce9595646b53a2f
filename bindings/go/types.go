package divvy

import (
	"context"
	"time"
)

// Partition is a unit of work: at least one key, and a weight (0 or less: the default weight).
type Partition struct {
	Keys   []string `json:"keys"`
	Weight int64    `json:"weight"`
}

// PartitionSource lists all partitions. It is read at the start, before every rebalance and in
// [Calculator.Refresh], one call at a time. After an error or a panic the last plan remains in
// force and the source is read again. The context ends at the calculator's deadline and when the
// calculator stops. Inside it, Stop, Close, TriggerRebalance and Refresh of its calculator return
// ErrWouldDeadlock.
type PartitionSource interface {
	ListPartitions(ctx context.Context) ([]Partition, error)
}

// AssignmentStrategy computes a plan. There is at least one worker, workers are sorted, and
// partitions are in canonical order. Assign every partition to exactly one worker. The same input
// must give the same plan. After an error, a panic or an invalid plan the last plan remains in
// force, and the strategy is called again. It must not call Stop, TriggerRebalance or Refresh of
// its calculator.
type AssignmentStrategy interface {
	Assign(workers []string, partitions []Partition) (map[string][]Partition, error)
}

// Logger receives log records; *slog.Logger implements it. It runs on a thread of the library and
// must not call back into the package.
type Logger interface {
	Debug(msg string, keysAndValues ...any)
	Info(msg string, keysAndValues ...any)
	Warn(msg string, keysAndValues ...any)
	Error(msg string, keysAndValues ...any)
}

// Event is an event of a calculator.
type Event struct {
	Kind EventKind
	// State and From: set for EventCalculatorState; equal in the first event, which carries the current
	// state.
	State, From CalculatorState
	// Reason: set for EventCalculatorState, EventPublished and EventWouldPublish; empty in Idle.
	Reason string
	// Version: set for EventCalculatorState, EventAssignmentLimit and publications; the assigned version for EventWorkerLagging.
	Version int64
	// AppliedVersion: set for EventWorkerLagging.
	AppliedVersion int64
	// Worker: set for EventMember, EventWorkerLagging and EventConfigMismatch. Change ("joined", "left", "suspected",
	// "returned", "dead"): set for EventMember.
	Worker, Change string
	// Workers, Partitions and Moved: set for EventPublished, EventWouldPublish and
	// EventLeaderPublished. Partitions of EventListHeld: those of the held list; of
	// EventAssignmentLimit: those without an owner.
	Workers, Partitions, Moved int
	// Bucket, Key and Value (how it begins): set for EventMalformed.
	Bucket     Bucket
	Key, Value string
	// Err: set for EventFailed; the work is retried.
	Err error
	// Message: set for EventDegraded (reasons and what still works; empty at the end), EventBreaker
	// (why it opened; empty when closed), EventFatal, EventLeaderPublished, EventWorkerLagging,
	// EventConfigMismatch, EventMalformed, EventListHeld (how to confirm it; empty when no list is
	// held back) and EventAssignmentLimit (what to do; empty when within the limit again).
	Message string
	// Time is the time of the event (for EventDegraded: of its beginning), relative to an arbitrary
	// start.
	Time time.Duration
}

// Setting describes one setting; see docs/settings.md.
type Setting struct {
	// Name, such as "cooldown"; Type of its value, Default, Range and Help.
	Name, Type, Default, Range, Help string
	// Value in a configuration, and Origin: where it came from; "default" where it was not set.
	Value, Origin string
}
