//go:build cgo

package divvy

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func managerConfig(store *Store) *ManagerConfig {
	config := &ManagerConfig{
		Config:            *config(store),
		HeartbeatInterval: 200 * time.Millisecond,
		WorkerIDTTL:       2 * time.Second,
		ElectionTimeout:   time.Second,
	}
	config.HeartbeatTTL = 1500 * time.Millisecond
	config.Cooldown = 50 * time.Millisecond
	return config
}

func manager(t testing.TB, config *ManagerConfig) *Manager {
	t.Helper()
	manager, err := NewManager(config)
	must(t, err)
	t.Cleanup(func() { must(t, manager.Close()) })
	return manager
}

// covered reports whether these managers own this many partitions, each once and each manager some.
func covered(t testing.TB, partitions int, managers ...*Manager) bool {
	t.Helper()
	var ids []string
	for _, manager := range managers {
		held, err := manager.Assignment()
		must(t, err)
		if len(held.Partitions) == 0 {
			return false
		}
		for _, partition := range held.Partitions {
			ids = append(ids, strings.Join(partition.Keys, "-"))
		}
	}
	slices.Sort(ids)
	return len(ids) == partitions && len(slices.Compact(ids)) == partitions
}

func TestManagersJoinShareHandOverAndLeave(t *testing.T) { managedFleet(t, memory(t)) }

func managedFleet(t *testing.T, store *Store) {
	first, second := manager(t, managerConfig(store)), manager(t, managerConfig(store))
	if first.IsStarted() || first.State() != ManagerStateInit || first.WorkerID() != "" || first.Leader() != "" {
		t.Fatal("a member before the start")
	}
	if err := first.TriggerRebalance(patient(t)); !errors.Is(err, ErrNotLeader) {
		t.Fatal(err)
	}
	must(t, first.Start(patient(t)))
	if err := first.Start(patient(t)); !errors.Is(err, ErrAlreadyStarted) {
		t.Fatal(err)
	}
	until(t, "first assignment", func() bool { return covered(t, 12, first) })
	must(t, first.WaitState(patient(t), ManagerStateStable))
	if !first.IsStarted() || !first.IsLeader() || first.WorkerID() != "worker-0" || first.Leader() != "worker-0" {
		t.Fatal(first.WorkerID(), first.Leader())
	}
	must(t, second.Start(patient(t)))
	until(t, "shared", func() bool { return covered(t, 12, first, second) })
	if second.WorkerID() != "worker-1" || second.IsLeader() {
		t.Fatal(second.WorkerID())
	}
	err := second.RefreshPartitions(patient(t))
	if !errors.Is(err, ErrNotLeader) || !strings.Contains(err.Error(), "worker-0") {
		t.Fatal(err)
	}
	must(t, first.RefreshPartitions(patient(t)))
	newest := func() (newest Assignment) {
		// Unchanged assignments are not rewritten: only one of them observes the version.
		for _, manager := range []*Manager{first, second} {
			held, err := manager.Assignment()
			must(t, err)
			if held.Version > newest.Version {
				newest = held
			}
		}
		return newest
	}
	before := newest()
	must(t, first.TriggerRebalance(patient(t)))
	until(t, "a new version", func() bool {
		held := newest()
		return held.Version > before.Version && held.Term > 0 && held.Lifecycle == "manual-refresh"
	})
	must(t, first.Stop(patient(t), Leave))
	must(t, first.Stop(patient(t), Leave))
	if held, err := first.Assignment(); err != nil || len(held.Partitions) != 0 || first.State() != ManagerStateShutdown {
		t.Fatal(held, err)
	}
	until(t, "handed over", func() bool { return covered(t, 12, second) && second.IsLeader() })
	// Stop again, this time for a restart.
	must(t, first.Start(patient(t)))
	until(t, "shared again", func() bool { return covered(t, 12, first, second) })
	must(t, first.Stop(patient(t), Restart))
	must(t, first.Close())
	if err := first.Start(patient(t)); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if _, err := first.Assignment(); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestHookReceivesEveryChangeInOrderFromFirstAssignmentToStop(t *testing.T) {
	store := memory(t)
	config := managerConfig(store)
	var mutex sync.Mutex
	held := map[string]bool{}
	var version int64
	var problems []string
	calls := 0
	config.OnAssignment = func(change AssignmentChange) {
		mutex.Lock()
		defer mutex.Unlock()
		if calls++; calls == 2 {
			defer func() { panic("hooks may panic") }()
		}
		for _, partition := range change.Added {
			held[strings.Join(partition.Keys, "-")] = true
		}
		for _, partition := range change.Removed {
			delete(held, strings.Join(partition.Keys, "-"))
		}
		if len(held) != len(change.Partitions) || change.Version < version {
			problems = append(problems, change.Lifecycle)
		}
		version = change.Version
	}
	first := manager(t, config)
	must(t, first.Start(patient(t)))
	count := func() int {
		mutex.Lock()
		defer mutex.Unlock()
		return len(held)
	}
	until(t, "the first assignment", func() bool { return count() == 12 })
	second := manager(t, managerConfig(store))
	must(t, second.Start(patient(t)))
	until(t, "half of it", func() bool { return count() == 6 })
	for range 20 {
		must(t, first.TriggerRebalance(patient(t)))
	}
	must(t, first.Stop(patient(t), Leave))
	// All events are delivered by now.
	if count() != 0 || len(problems) != 0 || version < 20 || calls < 20 {
		t.Fatal(count(), problems, version, calls)
	}
	before := calls
	must(t, first.Start(patient(t)))
	until(t, "events of a second lifecycle", func() bool { return count() == 6 })
	if calls <= before {
		t.Fatal(calls)
	}
}

func TestManagerSubscriberReceivesCurrentStateThenEveryEvent(t *testing.T) {
	store := memory(t)
	first := manager(t, managerConfig(store))
	early, err := first.Subscribe()
	must(t, err)
	states, cancel := first.SubscribeToStateChanges()
	defer cancel()
	if state := <-states; state != ManagerStateInit {
		t.Fatal(state)
	}
	must(t, first.Start(patient(t)))
	for state := range states {
		if state == ManagerStateStable {
			break
		}
	}
	until(t, "assigned", func() bool { return covered(t, 12, first) })
	late, err := first.Subscribe()
	must(t, err)
	for _, kind := range []EventKind{EventManagerState, EventWorkerID, EventLeader, EventAssignment} {
		event := <-late.C
		if event.Kind != kind {
			t.Fatalf("%+v is not of kind %d", event, kind)
		}
		if kind == EventAssignment && (len(event.Change.Added) != 12 || len(event.Change.Partitions) != 12) {
			t.Fatalf("%+v", event.Change)
		}
		if kind == EventLeader && (!event.IsLeader || event.Worker != "worker-0") {
			t.Fatalf("%+v", event)
		}
	}
	late.Cancel()
	late.Cancel()
	for range late.C {
	}
	must(t, first.Stop(patient(t), Leave))
	published := false
	var before ManagerState
	for event := range early.C {
		published = published || event.Calculator != nil && event.Calculator.Kind == EventPublished
		if event.Kind == EventManagerState {
			if before != 0 && event.From != before {
				t.Fatalf("%v, but from %v", before, event.From)
			}
			before = event.State
		}
	}
	must(t, early.Err())
	if !published || before != ManagerStateShutdown {
		t.Fatal(published, before)
	}
}

// ballot is a host's election.
type ballot struct {
	elected  atomic.Bool
	asked    atomic.Int64
	resigned atomic.Int64
}

func (b *ballot) Campaign(ctx context.Context, worker string) (time.Duration, error) {
	switch _, limited := ctx.Deadline(); {
	case worker != "worker-0" || !limited:
		return 0, errors.New("who asks?")
	case b.asked.Add(1) == 1:
		panic("elections may panic")
	case !b.elected.Load():
		return 0, nil
	}
	return 2 * time.Second, nil
}

func (b *ballot) Resign(context.Context, string) error {
	b.resigned.Add(1)
	return nil
}

func TestHostElectionDecidesLeadership(t *testing.T) {
	config := managerConfig(memory(t))
	ballot := &ballot{}
	config.Election = ballot
	manager := manager(t, config)
	must(t, manager.Start(patient(t)))
	until(t, "asked again", func() bool { return ballot.asked.Load() > 2 })
	if manager.IsLeader() {
		t.Fatal("leads unelected")
	}
	ballot.elected.Store(true)
	until(t, "elected", func() bool { return manager.IsLeader() && covered(t, 12, manager) })
	must(t, manager.Stop(patient(t), Leave))
	if ballot.resigned.Load() != 1 {
		t.Fatal(ballot.resigned.Load())
	}
}

func TestExhaustedIDPoolIsReportedAndLeadershipCanBeForbidden(t *testing.T) {
	store := memory(t)
	config := managerConfig(store)
	config.WorkerIDMin, config.WorkerIDMax, config.NeverLead = 7, 7, true
	config.Source = nil
	first, second := manager(t, config), manager(t, config)
	must(t, first.SetPartitions(tools(3)))
	must(t, first.Start(patient(t)))
	if first.WorkerID() != "worker-7" {
		t.Fatal(first.WorkerID())
	}
	short, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	// Both: the context that ended it, and why it had not completed.
	if err := second.Start(short); !errors.Is(err, ErrIDsExhausted) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if second.IsStarted() || first.IsLeader() {
		t.Fatal("leads, though it must not")
	}
	must(t, first.WaitState(patient(t), ManagerStateElection))
	done, cancel := context.WithCancel(context.Background())
	cancel()
	if err := first.WaitState(done, ManagerStateStable); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	status, err := first.Status()
	must(t, err)
	var reported struct {
		State, Worker string
		WorkerID      string `json:"worker_id"`
		Calculator    any
	}
	must(t, json.Unmarshal(status, &reported))
	if reported.State != "Election" || reported.WorkerID != "worker-7" || reported.Calculator != nil {
		t.Fatal(string(status))
	}
}

func TestInvalidManagerConfigurationErrorNamesEveryViolation(t *testing.T) {
	must(t, (&ManagerConfig{}).Validate())
	for _, preset := range []string{"conservative", "balanced", "aggressive"} {
		must(t, (&ManagerConfig{OutagePreset: preset, OutagePolicy: OutageStrict}).Validate())
	}
	err := (&ManagerConfig{
		Config:         Config{Cooldown: 400 * 24 * time.Hour},
		WorkerIDPrefix: "a b", WorkerIDMin: 9, WorkerIDMax: 8,
	}).Validate()
	for _, word := range []string{"cooldown", "worker_id_prefix", "worker_id_max"} {
		if !errors.Is(err, ErrInvalidConfig) || !strings.Contains(err.Error(), word) {
			t.Fatal(err)
		}
	}
	if err := (&ManagerConfig{OutagePolicy: "lax"}).Validate(); !errors.Is(err, ErrInvalidConfig) {
		t.Fatal(err)
	}
	if _, err := NewManager(&ManagerConfig{}); !errors.Is(err, ErrInvalidConfig) {
		t.Fatal(err)
	}
}

// workerMetrics implements some methods of each of the four interfaces.
type workerMetrics struct {
	metrics
	states, added, removed atomic.Int64
	led                    atomic.Bool
	id                     atomic.Value
}

func (m *workerMetrics) RecordManagerTransition(from, to ManagerState, seconds float64) {
	if from != to && seconds >= 0 {
		m.states.Add(1)
	}
}
func (m *workerMetrics) RecordLeadershipChange(leader string, isSelf bool) {
	if isSelf && leader != "" {
		m.led.Store(true)
	}
}
func (m *workerMetrics) RecordWorkerID(worker string) {
	if worker != "" {
		m.id.Store(worker)
	}
}
func (m *workerMetrics) RecordAssignmentChange(added, removed int, _ int64) {
	m.added.Add(int64(added))
	m.removed.Add(int64(removed))
}

func TestManagerMetricsReceiveEvents(t *testing.T) {
	config := managerConfig(memory(t))
	reported := &workerMetrics{}
	config.Metrics = reported
	leader, other := manager(t, config), manager(t, managerConfig(config.Store))
	must(t, leader.Start(patient(t)))
	until(t, "first assignment", func() bool { return covered(t, 12, leader) })
	must(t, other.Start(patient(t)))
	until(t, "metrics", func() bool { return reported.published.Load() >= 1 && reported.joined.Load() >= 1 })
	until(t, "shared", func() bool { return covered(t, 12, leader, other) })
	must(t, leader.Stop(patient(t), Leave))
	until(t, "all of a life", func() bool {
		return reported.states.Load() >= 3 && reported.led.Load() && reported.id.Load() == "worker-0" &&
			reported.added.Load() == 12 && reported.removed.Load() == 12
	})
}

func TestRepeatedManagerLifecyclesLeaveNothingBehind(t *testing.T) {
	store := memory(t)
	one := func() {
		config := managerConfig(store)
		config.OnAssignment = func(AssignmentChange) {}
		config.Metrics = NopMetrics{}
		made, err := NewManager(config)
		must(t, err)
		states, cancel := made.SubscribeToStateChanges()
		_, _ = made.SubscribeToStateChanges()
		_, err = made.Subscribe()
		must(t, err)
		must(t, made.Start(patient(t)))
		<-states
		cancel()
		must(t, made.Stop(patient(t), Leave))
		must(t, made.Close())
	}
	cycles := 500
	if testing.Short() {
		cycles = 50
	}
	for range cycles / 5 {
		one()
	}
	goroutines, threads, files, resident := usage(t)
	for range cycles * 4 / 5 {
		one()
	}
	until(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines+2 })
	_, threadsAfter, filesAfter, residentAfter := usage(t)
	if threadsAfter > threads+3 || filesAfter > files {
		t.Errorf("threads %d, then %d; descriptors %d, then %d", threads, threadsAfter, files, filesAfter)
	}
	if !raceEnabled && residentAfter > resident+4096 {
		t.Errorf("memory grew from %d to %d KiB", resident, residentAfter)
	}
}

func TestZeroAndNotSetDifferAfterDefaultConfig(t *testing.T) {
	value := func(settings []Setting, name string) string {
		for _, setting := range settings {
			if setting.Name == name {
				return setting.Value
			}
		}
		t.Fatal("no setting", name)
		return ""
	}
	literal, err := (&ManagerConfig{WorkerIDMax: 0}).Describe()
	must(t, err)
	config := DefaultManagerConfig()
	if config.WorkerIDMax != 999 || config.HeartbeatTTL != 6*time.Second || config.EmergencyGracePeriod != 3*time.Second {
		t.Fatalf("%+v", config)
	}
	config.WorkerIDMax, config.MinThreshold, config.RestartRatio, config.RecoveryGrace = 0, 0, 0, 0
	explicit, err := config.Describe()
	must(t, err)
	for name, want := range map[string][2]string{
		"worker_id_max":           {"999", "0"},
		"min_rebalance_threshold": {"0.2", "0"},
		"restart_ratio":           {"0.5", "0"},
		"recovery_grace":          {"15s", "0s"},
	} {
		if got := [2]string{value(literal, name), value(explicit, name)}; got != want {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
}

func TestDefaultsFollowTheFieldsThatAreSet(t *testing.T) {
	config := ManagerConfig{Config: Config{ColdStartWindow: time.Second, HeartbeatTTL: 3 * time.Second}}
	config.SetDefaults()
	if config.PlannedScaleWindow != time.Second || config.Cooldown != time.Second {
		t.Fatalf("%+v", config)
	}
	if config.HeartbeatInterval != time.Second || config.RecoveryGrace != 7500*time.Millisecond {
		t.Fatalf("%+v", config)
	}
}
