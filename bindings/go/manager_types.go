package divvy

import (
	"context"
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

// ManagerConfig configures a manager and the calculator that it runs while it leads. In a literal, the
// zero value of every field except Store means its default. To use zero itself, such as the id 0
// alone, start from [DefaultManagerConfig]. Use the same configuration in all workers of a fleet.
type ManagerConfig struct {
	// Config configures the calculator. EmergencyGracePeriod defaults to 1.5 x HeartbeatInterval.
	Config

	// WorkerIDPrefix is the prefix of ids: "worker" for worker-7. Default "worker".
	WorkerIDPrefix string
	// WorkerIDMin and WorkerIDMax are the lowest and the highest number of an id. Defaults 0 and
	// 999. For the id 0 alone, set WorkerIDMax to 0 in a [DefaultManagerConfig].
	WorkerIDMin, WorkerIDMax int
	// Instance is the identity of the process that survives its restart, such as the name of its
	// pod: at most 253 letters, digits and -/_=. or "@hostname" or "@pod" (the environment variable
	// POD_NAME). A process takes over the id of a former process with the same instance at once.
	// Each process of a fleet needs its own. Default "", none.
	Instance string
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
	// CacheFile is the file in which this worker keeps its assignment. Default: the CacheFile of the
	// store's [NATSOptions], which is the place to set it: only then can the store be opened while
	// its servers are down.
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

	// managerDefaults is what DefaultManagerConfig returned; nil for a literal.
	managerDefaults *ManagerConfig
}

// DefaultManagerConfig returns a configuration in which every field has its default. Fields that are
// changed afterwards mean what they say, zero included.
func DefaultManagerConfig() ManagerConfig {
	var config ManagerConfig
	config.SetDefaults()
	defaults := config
	config.managerDefaults = &defaults
	config.Config.defaults = &defaults.Config
	return config
}

// SetDefaults replaces zero fields of a literal with their defaults. After [DefaultManagerConfig] it
// does nothing, and without cgo it does nothing either.
func (c *ManagerConfig) SetDefaults() {
	if c.managerDefaults != nil {
		return
	}
	isGraceSet := c.EmergencyGracePeriod != 0 || c.Settings["emergency_grace_period"] != ""
	fill(c.fields(), c.Describe)
	if !isGraceSet {
		c.EmergencyGracePeriod = min(c.HeartbeatInterval*3/2, c.HeartbeatTTL)
	}
}

func (c *ManagerConfig) fields() []configField {
	return append(c.Config.fields(), []configField{
		{"worker_id_prefix", &c.WorkerIDPrefix},
		{"worker_id_min", &c.WorkerIDMin},
		{"worker_id_max", &c.WorkerIDMax},
		{"instance", &c.Instance},
		{"worker_id_ttl", &c.WorkerIDTTL},
		{"heartbeat_interval", &c.HeartbeatInterval},
		{"election_timeout", &c.ElectionTimeout},
		{"outage_policy", &c.OutagePolicy},
		{"outage_preset", &c.OutagePreset},
		{"cache_file", &c.CacheFile},
		{"cache_max_age", &c.CacheMaxAge},
	}...)
}

// settings returns the settings that are set, by name.
func (c *ManagerConfig) settings() map[string]string {
	var defaults []configField
	if c.managerDefaults != nil {
		defaults = c.managerDefaults.fields()
	}
	settings := settingsOf(c.fields(), defaults, nil)
	if c.NeverLead {
		settings["may_lead"] = "false"
	}
	for name, value := range c.Settings {
		settings[name] = value
	}
	return settings
}

// ManagerEvent is an event of a manager. [EventLagged] and [EventFatal] also apply to managers.
// Calculator events are delivered in ManagerEvent.Calculator.
type ManagerEvent struct {
	Kind EventKind
	// State and From: set for EventManagerState; equal in the first event, which carries the current
	// state.
	State, From ManagerState
	// Worker: the id for EventWorkerID (empty: none), EventWorkerIDLost,
	// EventWorkerIDTakenOver and EventWorkerIDRegained;
	// the leader for EventLeader (empty: none known).
	Worker string
	// IsLeader: set for EventLeader; whether this worker is the leader.
	IsLeader bool
	// Change: set for EventAssignment.
	Change AssignmentChange
	// Calculator: an event of the calculator while this worker leads, or EventBreaker or
	// EventMalformed of the worker itself. Kind is its kind.
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
