package divvy

import (
	"context"
	"strconv"
	"time"
)

// ManagerState is what a manager is doing.
type ManagerState int

// The states of a manager.
const (
	// ManagerStateInit: not started, or seeing to the buckets.
	ManagerStateInit ManagerState = iota + 1
	// ManagerStateClaimingID: claiming a stable id.
	ManagerStateClaimingID
	// ManagerStateElection: a member, and nobody is known to lead.
	ManagerStateElection
	// ManagerStateWaitingAssignment: somebody leads; nothing was assigned to this worker yet.
	ManagerStateWaitingAssignment
	// ManagerStateStable: what is assigned is applied.
	ManagerStateStable
	// ManagerStateScaling: this worker leads, and waits for more workers to come or go.
	ManagerStateScaling
	// ManagerStateRebalancing: this worker leads, and computes and publishes a plan.
	ManagerStateRebalancing
	// ManagerStateEmergency: this worker leads, and publishes a plan without workers that are lost.
	ManagerStateEmergency
	// ManagerStateDegraded: the store is out of reach; what is held may be out of date, or ownership
	// is suspended.
	ManagerStateDegraded
	// ManagerStateShutdown: leaving, or gone.
	ManagerStateShutdown
)

var managerStateNames = [...]string{
	"Unknown", "Init", "ClaimingID", "Election", "WaitingAssignment", "Stable", "Scaling",
	"Rebalancing", "Emergency", "Degraded", "Shutdown",
}

// String is the state's name as parti prints it.
func (s ManagerState) String() string {
	if s < 0 || int(s) >= len(managerStateNames) {
		return managerStateNames[0]
	}
	return managerStateNames[s]
}

// Departure is how a worker goes.
type Departure int32

// The ways to go.
const (
	// Leave is for good: the worker's partitions go to others at once.
	Leave Departure = 1
	// Restart is to be back soon: whoever claims the id within heartbeat TTL and grace finds its
	// partitions where they were.
	Restart Departure = 2
)

// Assignment is what a worker holds.
type Assignment struct {
	// Version of the plan; 0 before the first assignment.
	Version int64 `json:"version"`
	// Term that it was published in; 0 when a leader without terms (parti) wrote it.
	Term int64 `json:"term"`
	// Lifecycle is why the plan was made, such as "planned_scale".
	Lifecycle string `json:"lifecycle"`
	// Partitions, in the order written.
	Partitions []Partition `json:"partitions"`
}

// AssignmentChange is a change of what a worker holds: a new version was applied, which may hold the
// same partitions, or ownership ended.
type AssignmentChange struct {
	// Assignment is what is held now: all of it.
	Assignment
	// Added were not held before, Removed are held no more.
	Added   []Partition `json:"added"`
	Removed []Partition `json:"removed"`
}

// LeaderElection is an election of the host's. Both methods may be called from several goroutines;
// Campaign again and again while the worker is a member: three times within what it was granted, or
// within the election time-out. An error (or a panic) of it means that it is not known who leads: a
// leader leads on until what it was granted last is nearly over. Stop and Close of its manager return
// ErrWouldDeadlock in them.
type LeaderElection interface {
	// Campaign takes the leadership or prolongs it: for how long from now on this worker leads, 0
	// when another one does.
	Campaign(ctx context.Context, worker string) (time.Duration, error)
	// Resign gives the leadership back; it is not asked again after an error.
	Resign(ctx context.Context, worker string) error
}

// OutagePolicy is what becomes of the partitions of a worker that cannot reach the store.
type OutagePolicy string

// The policies.
const (
	// OutageServe (the default): they are served on; when the worker alone is cut off, others get
	// them after TTL and grace, so that they have two owners for as long as the outage lasts.
	OutageServe OutagePolicy = "serve"
	// OutageStrict: ownership ends, and the host is told, before the worker's lease can run out at
	// the leader.
	OutageStrict OutagePolicy = "strict"
)

// ManagerConfig is what a manager is made from: the calculator's configuration, by which it works
// where it leads, and its own. The zero value of every field but Store means its default. All
// workers of a fleet should have the same one.
type ManagerConfig struct {
	// Config; EmergencyGracePeriod is 1.5 x HeartbeatInterval by default.
	Config

	// WorkerIDPrefix is what ids begin with: worker for worker-7. Default "worker".
	WorkerIDPrefix string
	// WorkerIDMin and WorkerIDMax are the lowest and the highest number of an id. Defaults 0, 99.
	WorkerIDMin, WorkerIDMax int
	// WorkerIDTTL is how long an id stays claimed without being renewed. Default 30 s.
	WorkerIDTTL time.Duration
	// HeartbeatInterval is the time from one heartbeat to the next. Default 2 s.
	HeartbeatInterval time.Duration
	// ElectionTimeout is how long a leadership lasts without being renewed. Default 5 s.
	ElectionTimeout time.Duration
	// NeverLead keeps this worker from leading.
	NeverLead bool
	// OutagePolicy: default OutageServe.
	OutagePolicy OutagePolicy
	// OutagePreset is how quickly the worker calls itself degraded: conservative, balanced or
	// aggressive. Default balanced.
	OutagePreset string
	// CacheFile is a file in which this worker remembers its assignment, so that Start can return
	// with it while the store is out of reach (lifecycle "cached", state Degraded). One for each
	// worker; refused with OutageStrict. Default "": none. To open a store whose server is down,
	// set "cache_file" in NATSOptions.Settings as well.
	CacheFile string
	// CacheMaxAge is how long what the file says counts after the store was last seen to say it.
	// Default 1 h.
	CacheMaxAge time.Duration

	// Election is the host's own election. Default: the lease in the store.
	Election LeaderElection
	// OnAssignment is called with every change of what the worker holds, the first assignment
	// included, in order, from one goroutine, from Start until Stop has returned nil. It may be slow:
	// heartbeats go on. A panic in it is logged. Stop and Close of its manager return
	// ErrWouldDeadlock in it: they would wait for it.
	OnAssignment func(AssignmentChange)
}

// SetDefaults gives every field that is zero its default.
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

// settings is every setting by its name in the library.
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

// The kinds of a manager's events. [EventLagged] and [EventFatal] are its own, too; those of its
// calculator come in ManagerEvent.Calculator.
const (
	EventWorkerState      EventKind = 20
	EventWorkerID         EventKind = 21
	EventWorkerIDLost     EventKind = 22
	EventWorkerIDRegained EventKind = 23
	EventAssignment       EventKind = 24
	EventLeader           EventKind = 25
	EventOutage           EventKind = 26
	EventAlert            EventKind = 27
	EventRecovered        EventKind = 28
	EventManagerFailed    EventKind = 29
	EventCalculatorFatal  EventKind = 30
)

// ManagerEvent is something that happened to a worker.
type ManagerEvent struct {
	Kind EventKind
	// State and From: of EventWorkerState; equal in the first event, which tells the current state.
	State, From ManagerState
	// Worker: the id of EventWorkerID (empty: none any more), EventWorkerIDLost and
	// EventWorkerIDRegained; who leads, of EventLeader (empty: nobody is known to).
	Worker string
	// IsLeader: of EventLeader, whether that is this worker.
	IsLeader bool
	// Change: of EventAssignment.
	Change AssignmentChange
	// Calculator: an event of the calculator, while this worker leads, and EventBreaker of the worker
	// itself, whether it leads or not; Kind is its kind.
	Calculator *Event
	// Err: of EventManagerFailed; it is tried again.
	Err error
	// Message: of EventOutage, EventFatal and EventCalculatorFatal.
	Message string
	// Level ("info", "warning", "error", "critical"): of EventAlert. Lasted, of EventAlert and
	// EventRecovered: for how long the outage has lasted.
	Level  string
	Lasted time.Duration
	// Time is when the state changed, since an arbitrary moment of the past.
	Time time.Duration
}
