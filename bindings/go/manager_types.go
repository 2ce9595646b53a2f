package divvy

import (
	"context"
	"strconv"
	"time"
)

// Assignment is the assignment of a worker.
type Assignment struct {
	// Version of the plan; 0 before the first assignment.
	Version int64 `json:"version"`
	// Term of the publication; 0 if a parti leader wrote it.
	Term int64 `json:"term"`
	// Lifecycle is the reason of the plan, such as "planned_scale".
	Lifecycle string `json:"lifecycle"`
	// Partitions, in the order written.
	Partitions []Partition `json:"partitions"`
}

// AssignmentChange is a change of an assignment: a new version was applied, possibly with the same
// partitions, or ownership ended.
type AssignmentChange struct {
	// Assignment is the whole assignment after the change.
	Assignment
	// Added are the new partitions, Removed the released ones.
	Added   []Partition `json:"added"`
	Removed []Partition `json:"removed"`
}

// LeaderElection is an election of the host. Both methods may be called concurrently. Campaign is
// called repeatedly while the worker is a member: three times within the last grant or the election
// timeout. After an error or a panic the leader is unknown, and a leader continues until shortly
// before its last grant ends. Inside both methods, Stop and Close of the manager return
// ErrWouldDeadlock.
type LeaderElection interface {
	// Campaign acquires or renews the leadership. It returns how long this worker leads from now
	// on, 0 if another worker leads.
	Campaign(ctx context.Context, worker string) (time.Duration, error)
	// Resign releases the leadership. It is not retried after an error.
	Resign(ctx context.Context, worker string) error
}

// OutagePolicy selects what a worker does with its partitions while it cannot reach the store.
type OutagePolicy string

// The policies.
const (
	// OutageServe (default): the worker keeps its partitions. If only this worker is disconnected,
	// other workers own them too after TTL and grace, until the outage ends.
	OutageServe OutagePolicy = "serve"
	// OutageStrict: the worker releases its partitions and notifies the host before its lease can
	// expire at the leader.
	OutageStrict OutagePolicy = "strict"
)

// ManagerConfig configures a manager and the calculator that it runs while it leads. The zero value
// of every field except Store means its default. Use the same configuration in all workers of a
// fleet.
type ManagerConfig struct {
	// Config configures the calculator. EmergencyGracePeriod defaults to 1.5 x HeartbeatInterval.
	Config

	// WorkerIDPrefix is the prefix of ids: "worker" for worker-7. Default "worker".
	WorkerIDPrefix string
	// WorkerIDMin and WorkerIDMax are the lowest and the highest number of an id. Defaults 0, 99.
	WorkerIDMin, WorkerIDMax int
	// WorkerIDTTL is how long a claim of an id lasts without renewal. Default 30 s.
	WorkerIDTTL time.Duration
	// HeartbeatInterval is the time between heartbeats. Default 2 s.
	HeartbeatInterval time.Duration
	// ElectionTimeout is how long a leader's lease lasts without renewal. Default 5 s.
	ElectionTimeout time.Duration
	// NeverLead excludes this worker from the election.
	NeverLead bool
	// OutagePolicy: default OutageServe.
	OutagePolicy OutagePolicy
	// OutagePreset selects how soon the worker reports Degraded: "conservative", "balanced" or
	// "aggressive". Default "balanced".
	OutagePreset string
	// CacheFile is a file in which this worker keeps its assignment, so that Start can return with
	// it while the store cannot be reached (lifecycle "cached", state Degraded). Use one file per
	// worker. OutageStrict rejects it. Default "": none. To open a store whose server is down, also
	// set "cache_file" in NATSOptions.Settings.
	CacheFile string
	// CacheMaxAge is how long the cached assignment is valid after the store last confirmed it.
	// Default 1 h.
	CacheMaxAge time.Duration

	// Election is an election of the host. Default: the lease in the store.
	Election LeaderElection
	// OnAssignment receives every change of the assignment, the first one included, in order, on
	// one goroutine, from Start until Stop returns nil. It may block: heartbeats continue. A panic
	// in it is logged. Stop and Close of its manager return ErrWouldDeadlock inside it.
	OnAssignment func(AssignmentChange)
}

// SetDefaults replaces zero fields with their defaults.
func (c *ManagerConfig) SetDefaults() {
	duration := func(field *time.Duration, value time.Duration) {
		if *field == 0 {
			*field = value
		}
	}
	text := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	duration(&c.HeartbeatInterval, 2*time.Second)
	duration(&c.EmergencyGracePeriod, c.HeartbeatInterval*3/2)
	duration(&c.WorkerIDTTL, 30*time.Second)
	duration(&c.ElectionTimeout, 5*time.Second)
	duration(&c.CacheMaxAge, time.Hour)
	text(&c.WorkerIDPrefix, "worker")
	text((*string)(&c.OutagePolicy), string(OutageServe))
	text(&c.OutagePreset, "balanced")
	if c.WorkerIDMax == 0 {
		c.WorkerIDMax = 99
	}
	c.Config.SetDefaults()
}

// settings returns every setting by its name in the library.
func (c *ManagerConfig) settings() map[string]string {
	full := *c
	full.SetDefaults()
	own := map[string]string{
		"worker_id_prefix":   full.WorkerIDPrefix,
		"worker_id_min":      strconv.Itoa(full.WorkerIDMin),
		"worker_id_max":      strconv.Itoa(full.WorkerIDMax),
		"worker_id_ttl":      full.WorkerIDTTL.String(),
		"heartbeat_interval": full.HeartbeatInterval.String(),
		"election_timeout":   full.ElectionTimeout.String(),
		"may_lead":           strconv.FormatBool(!full.NeverLead),
		"outage_policy":      string(full.OutagePolicy),
		"outage_preset":      full.OutagePreset,
		"cache_file":         full.CacheFile,
		"cache_max_age":      full.CacheMaxAge.String(),
	}
	for key, value := range full.Config.settings() {
		own[key] = value
	}
	return own
}

// ManagerEvent is an event of a manager. [EventLagged] and [EventFatal] also apply to managers.
// Calculator events are delivered in ManagerEvent.Calculator.
type ManagerEvent struct {
	Kind EventKind
	// State and From: set for EventManagerState; equal in the first event, which carries the current
	// state.
	State, From ManagerState
	// Worker: the id for EventWorkerID (empty: none), EventWorkerIDLost and EventWorkerIDRegained;
	// the leader for EventLeader (empty: none known).
	Worker string
	// IsLeader: set for EventLeader; whether this worker is the leader.
	IsLeader bool
	// Change: set for EventAssignment.
	Change AssignmentChange
	// Calculator: an event of the calculator while this worker leads, or EventBreaker of the worker
	// itself. Kind is its kind.
	Calculator *Event
	// Err: set for EventManagerFailed; the operation is retried.
	Err error
	// Message: set for EventOutage, EventFatal and EventCalculatorFatal.
	Message string
	// Level ("info", "warning", "error", "critical"): set for EventAlert. Lasted: the duration of
	// the outage, for EventAlert and EventRecovered.
	Level  string
	Lasted time.Duration
	// Time is the time of the state change, relative to an arbitrary start.
	Time time.Duration
}
