//go:build cgo

package divvy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const testTimeout = 20 * time.Second

func patient(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fleet is a store and workers that send heartbeats until they leave or crash.
type fleet struct {
	t     testing.TB
	store *Store
	mutex sync.Mutex
	stop  map[string]chan struct{}
	beats sync.WaitGroup
}

func newFleet(t testing.TB, store *Store, workers ...string) *fleet {
	t.Helper()
	fleet := &fleet{t: t, store: store, stop: map[string]chan struct{}{}}
	must(t, store.Ensure(patient(t), BucketHeartbeat, 2*time.Second))
	for _, worker := range workers {
		fleet.join(worker)
	}
	t.Cleanup(func() {
		for worker := range fleet.stop {
			fleet.crash(worker)
		}
		fleet.beats.Wait()
	})
	return fleet
}

func (f *fleet) join(worker string) {
	stop := make(chan struct{})
	f.mutex.Lock()
	f.stop[worker] = stop
	f.mutex.Unlock()
	put := func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = f.store.Put(ctx, BucketHeartbeat, "heartbeat."+worker, []byte(time.Now().Format(time.RFC3339Nano)))
	}
	put()
	f.beats.Add(1)
	go func() {
		defer f.beats.Done()
		beat := time.NewTicker(100 * time.Millisecond)
		defer beat.Stop()
		for {
			select {
			case <-beat.C:
				put()
			case <-stop:
				return
			}
		}
	}()
}

func (f *fleet) crash(worker string) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	close(f.stop[worker])
	delete(f.stop, worker)
}

func (f *fleet) leave(worker string) {
	f.crash(worker)
	must(f.t, f.store.Delete(patient(f.t), BucketHeartbeat, "heartbeat."+worker))
}

// held returns the partition ids in a worker's assignment.
func (f *fleet) held(worker string) (int64, []string) {
	value, err := f.store.Get(patient(f.t), BucketAssignment, "assignment."+worker)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	must(f.t, err)
	var assignment struct {
		Version    int64
		Partitions []Partition
	}
	must(f.t, json.Unmarshal(value, &assignment))
	var ids []string
	for _, partition := range assignment.Partitions {
		ids = append(ids, strings.Join(partition.Keys, "-"))
	}
	return assignment.Version, ids
}

// until waits for a condition of the store.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for ctx := patient(t); !holds(); time.Sleep(10 * time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("never: %s", what)
		}
	}
}

// divided reports whether exactly these workers own this many partitions, each once.
func (f *fleet) divided(partitions int, workers ...string) bool {
	seen := map[string]bool{}
	for _, worker := range workers {
		_, ids := f.held(worker)
		if len(ids) == 0 {
			return false
		}
		for _, id := range ids {
			if seen[id] {
				return false
			}
			seen[id] = true
		}
	}
	return len(seen) == partitions
}

type listSource struct {
	mutex sync.Mutex
	list  []Partition
	err   error
	calls int
	block bool
}

func (s *listSource) ListPartitions(ctx context.Context) ([]Partition, error) {
	s.mutex.Lock()
	s.calls++
	list, err, block := s.list, s.err, s.block
	s.mutex.Unlock()
	if block {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return list, err
}

func tools(count int) []Partition {
	list := make([]Partition, count)
	for index := range list {
		list[index] = Partition{Keys: []string{fmt.Sprintf("tool%03d", index), "chamber1"}, Weight: 100}
	}
	return list
}

func config(store *Store) *Config {
	return &Config{
		Store:                store,
		Source:               &listSource{list: tools(12)},
		HeartbeatTTL:         time.Second,
		EmergencyGracePeriod: 300 * time.Millisecond,
		Cooldown:             200 * time.Millisecond,
		ColdStartWindow:      200 * time.Millisecond,
		PlannedScaleWindow:   200 * time.Millisecond,
		Settings:             map[string]string{"leave_window": "50ms", "recovery_grace": "200ms"},
	}
}

func memory(t testing.TB) *Store {
	t.Helper()
	store, err := NewMemoryStore()
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	return store
}

func calculator(t testing.TB, config *Config) *Calculator {
	t.Helper()
	calculator, err := NewCalculator(config)
	must(t, err)
	t.Cleanup(func() { must(t, calculator.Close()) })
	return calculator
}

func TestCalculatorRunsFromColdStartToStop(t *testing.T) { life(t, memory(t)) }

func life(t *testing.T, store *Store) {
	fleet := newFleet(t, store, "w-1", "w-2")
	calculator := calculator(t, config(store))
	if calculator.IsStarted() || calculator.GetState() != CalculatorStateIdle || calculator.GetScalingReason() != "" {
		t.Fatal("started before the start")
	}
	must(t, calculator.Start(patient(t)))
	until(t, "cold start", func() bool { return fleet.divided(12, "w-1", "w-2") })
	if !calculator.IsStarted() || calculator.CurrentVersion() == 0 {
		t.Fatal("not started after the start")
	}
	fleet.join("w-3")
	until(t, "planned scale", func() bool { return fleet.divided(12, "w-1", "w-2", "w-3") })
	fleet.leave("w-1")
	until(t, "leave", func() bool { return fleet.divided(12, "w-2", "w-3") })
	fleet.crash("w-2")
	until(t, "emergency", func() bool { return fleet.divided(12, "w-3") })
	before := calculator.CurrentVersion()
	must(t, calculator.TriggerRebalance(patient(t)))
	if calculator.CurrentVersion() <= before {
		t.Fatal("a trigger publishes a new version")
	}
	if err := calculator.Start(patient(t)); !errors.Is(err, ErrAlreadyStarted) {
		t.Fatal(err)
	}
	must(t, calculator.Stop(patient(t)))
	must(t, calculator.Stop(patient(t)))
	if err := calculator.TriggerRebalance(patient(t)); !errors.Is(err, ErrNotRunning) {
		t.Fatal(err)
	}
	// A host may lead more than once.
	must(t, calculator.Start(patient(t)))
	must(t, calculator.TriggerRebalance(patient(t)))
}

func TestSubscriberReceivesCurrentStateThenEveryTransition(t *testing.T) {
	store := memory(t)
	newFleet(t, store, "w-1")
	calculator := calculator(t, config(store))
	states, cancel := calculator.SubscribeToStateChanges()
	if state := <-states; state != CalculatorStateIdle {
		t.Fatal(state)
	}
	must(t, calculator.Start(patient(t)))
	for range 200 {
		must(t, calculator.TriggerRebalance(patient(t)))
	}
	// All events were queued although they were not read.
	var seen []CalculatorState
	for rebalances := 0; rebalances < 200; {
		state := <-states
		seen = append(seen, state)
		if state == CalculatorStateRebalancing {
			rebalances++
		}
	}
	for index, state := range seen[1:] {
		if state == seen[index] {
			t.Fatalf("%v twice in a row", state)
		}
	}
	cancel()
	cancel()
	for range states {
	}
	other, _ := calculator.SubscribeToStateChanges()
	must(t, calculator.Stop(patient(t)))
	for range other { // ends with the stop
	}
}

func TestEventsReportMembershipAndPublications(t *testing.T) {
	store := memory(t)
	fleet := newFleet(t, store, "w-1")
	calculator := calculator(t, config(store))
	subscription, err := calculator.Subscribe()
	must(t, err)
	must(t, calculator.Start(patient(t)))
	until(t, "cold start", func() bool { return fleet.divided(12, "w-1") })
	fleet.join("w-2")
	joined := false
	for event := range subscription.C {
		joined = joined || event.Kind == EventMember && event.Worker == "w-2" && event.Change == "joined"
		if event.Kind == EventPublished && event.Workers == 2 {
			if event.Partitions != 12 || event.Moved != 6 || event.Reason == "" || !joined {
				t.Fatalf("%+v", event)
			}
			break
		}
	}
	must(t, calculator.Stop(patient(t)))
	for range subscription.C {
	}
	must(t, subscription.Err())
}

func TestStalledReaderIsClosedAfterItsBacklog(t *testing.T) {
	store := memory(t)
	newFleet(t, store, "w-1")
	config := config(store)
	config.Settings["subscriber_backlog"] = "10"
	calculator := calculator(t, config)
	subscription, err := calculator.Subscribe()
	must(t, err)
	must(t, calculator.Start(patient(t)))
	for range 30 {
		must(t, calculator.TriggerRebalance(patient(t)))
	}
	count := 0
	for range subscription.C {
		count++
	}
	if count < 10 || count > 12 || !errors.Is(subscription.Err(), ErrLagged) {
		t.Fatal(count, subscription.Err())
	}
}

func TestCloseEndsSubscriptionsWithoutReader(t *testing.T) {
	store := memory(t)
	newFleet(t, store, "w-1")
	made, err := NewCalculator(config(store))
	must(t, err)
	states, _ := made.SubscribeToStateChanges()
	must(t, made.Start(patient(t)))
	must(t, made.TriggerRebalance(patient(t)))
	must(t, made.Close())
	must(t, made.Close())
	for range states {
	}
	if err := made.Start(patient(t)); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	states, cancel := made.SubscribeToStateChanges()
	defer cancel()
	if _, open := <-states; open {
		t.Fatal("a closed calculator has a state")
	}
}

func TestPartitionSourceFailurePanicAndHangAreHandled(t *testing.T) {
	store := memory(t)
	fleet := newFleet(t, store, "w-1")
	source := &listSource{list: tools(12)}
	config := config(store)
	config.Source = source
	calculator := calculator(t, config)
	must(t, calculator.Start(patient(t)))
	until(t, "cold start", func() bool { return fleet.divided(12, "w-1") })

	broken := errors.New("the database is away")
	set := func(change func()) {
		source.mutex.Lock()
		defer source.mutex.Unlock()
		change()
	}
	set(func() { source.err = broken })
	err := calculator.Refresh(patient(t))
	if !errors.Is(err, ErrSourceFailed) || !errors.Is(err, broken) {
		t.Fatal(err)
	}
	var reported *Error
	if !errors.As(err, &reported) || reported.Op != "refresh" || !reported.Retriable || reported.Code.String() != "SOURCE_FAILED" {
		t.Fatalf("%+v", reported)
	}
	set(func() { source.err, source.list = nil, tools(13) })
	until(t, "the new list", func() bool { return fleet.divided(13, "w-1") })
	set(func() { source.block = true })
	cancelled, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := calculator.Refresh(cancelled); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	// A hung source that observes its context does not delay the stop of the calculator.
	must(t, calculator.Stop(patient(t)))

	panics := panicking(0)
	other := calculatorWith(t, store, panics)
	must(t, other.Start(patient(t)))
	if err := other.Refresh(patient(t)); !errors.Is(err, ErrSourceFailed) || !strings.Contains(err.Error(), "panicked: simulated") {
		t.Fatal(err)
	}
}

type panicking int

func (panicking) ListPartitions(context.Context) ([]Partition, error) { panic("simulated") }

func calculatorWith(t testing.TB, store *Store, source PartitionSource) *Calculator {
	config := config(store)
	config.Source = source
	return calculator(t, config)
}

// firstGetsAll is a strategy in a few lines.
type strategyFunc func(workers []string, partitions []Partition) (map[string][]Partition, error)

func (f strategyFunc) Assign(workers []string, partitions []Partition) (map[string][]Partition, error) {
	return f(workers, partitions)
}

func TestHostStrategyDividesPartitionsAndFailuresAreReported(t *testing.T) {
	store := memory(t)
	fleet := newFleet(t, store, "w-1", "w-2")
	var answer atomic.Value
	answer.Store("deal")
	config := config(store)
	config.Strategy = strategyFunc(func(workers []string, partitions []Partition) (map[string][]Partition, error) {
		if !slices.IsSorted(workers) || partitions[0].Keys[1] != "chamber1" || partitions[0].Weight != 100 {
			return nil, fmt.Errorf("%v %v", workers, partitions)
		}
		plan := map[string][]Partition{}
		for index, partition := range partitions {
			switch answer.Load() {
			case "fail":
				return nil, errors.New("no idea")
			case "panic":
				panic("simulated")
			case "copies": // instead of the given ones
				partition = Partition{Keys: slices.Clone(partition.Keys)}
			case "twice":
				plan["w-1"] = append(plan["w-1"], partition)
			case "invent":
				plan["w-9"] = append(plan["w-9"], partition)
				continue
			case "drop":
				if index == 3 {
					continue
				}
			}
			worker := workers[index%len(workers)]
			plan[worker] = append(plan[worker], partition)
		}
		return plan, nil
	})
	calculator := calculator(t, config)
	must(t, calculator.Start(patient(t)))
	until(t, "dealt", func() bool { return fleet.divided(12, "w-1", "w-2") })
	if _, ids := fleet.held("w-1"); len(ids) != 6 || ids[1] != "tool002-chamber1" {
		t.Fatal(ids)
	}
	for way, wanted := range map[string]string{
		"fail": "no idea", "panic": "panicked: simulated", "twice": "twice",
		"invent": "invented 1 workers", "drop": "left out",
	} {
		answer.Store(way)
		short, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
		err := calculator.TriggerRebalance(short)
		cancel()
		if err == nil || calculator.CurrentVersion() > 1000 {
			t.Fatal(way, err)
		}
		if !strings.Contains(calculator.lastFailure(), wanted) {
			t.Fatalf("%s: %q", way, calculator.lastFailure())
		}
	}
	answer.Store("copies")
	must(t, calculator.TriggerRebalance(patient(t)))
}

// lastFailure records the last failure of the host's code.
func (c *Calculator) lastFailure() string {
	c.host.mutex.Lock()
	defer c.host.mutex.Unlock()
	return fmt.Sprint(c.host.failure)
}

// closer closes its own calculator, which is rejected.
type closer struct{ calculator *Calculator }

func (c *closer) ListPartitions(context.Context) ([]Partition, error) {
	return nil, c.calculator.Close()
}

func TestCloseInsideCallbackIsRejectedAndCanBeRepeated(t *testing.T) {
	store := memory(t)
	newFleet(t, store, "w-1")
	source := &closer{}
	source.calculator = calculatorWith(t, store, source)
	must(t, source.calculator.Start(patient(t)))
	if err := source.calculator.Refresh(patient(t)); !errors.Is(err, ErrSourceFailed) || !errors.Is(err, ErrWouldDeadlock) {
		t.Fatal(err)
	}
	must(t, source.calculator.Close())
	must(t, source.calculator.Close())
}

func TestFailedStartLeavesNoGoroutine(t *testing.T) {
	store := memory(t)
	config := config(store)
	config.Metrics = &metrics{}
	calculator := calculator(t, config)
	done, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
	defer cancel()
	before := runtime.NumGoroutine()
	for range 20 {
		if err := calculator.Start(done); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	until(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}

func TestPushedPartitionsArePublished(t *testing.T) {
	store := memory(t)
	fleet := newFleet(t, store, "w-1")
	config := config(store)
	config.Source = nil
	calculator := calculator(t, config)
	must(t, calculator.SetPartitions(tools(3)))
	must(t, calculator.Start(patient(t)))
	until(t, "pushed", func() bool { return fleet.divided(3, "w-1") })
	must(t, calculator.SetPartitions(tools(5)))
	until(t, "pushed again", func() bool { return fleet.divided(5, "w-1") })
	if err := calculator.SetPartitions(append(tools(5), tools(1)...)); !errors.Is(err, ErrInvalidArgument) {
		t.Fatal(err)
	}
	if err := calculator.SetPartitions([]Partition{{}}); !errors.Is(err, ErrInvalidArgument) {
		t.Fatal(err)
	}
	status, err := calculator.Status()
	must(t, err)
	var reported struct {
		Version int64 `json:"version"`
	}
	must(t, json.Unmarshal(status, &reported))
	if reported.Version != calculator.CurrentVersion() {
		t.Fatal(string(status))
	}
}

func TestDoneContextEndsEveryCallAtOnce(t *testing.T) {
	store := memory(t)
	newFleet(t, store, "w-1")
	source := &listSource{list: tools(1), block: true}
	calculator := calculatorWith(t, store, source)
	done, cancel := context.WithCancel(context.Background())
	cancel()
	for _, call := range []func(context.Context) error{
		calculator.Start, calculator.TriggerRebalance, calculator.Refresh,
		func(ctx context.Context) error { return store.Put(ctx, BucketHeartbeat, "heartbeat.x", nil) },
		func(ctx context.Context) error {
			_, err := ConnectNATS(ctx, NATSOptions{URLs: []string{"nats://127.0.0.1:1"}})
			return err
		},
	} {
		if err := call(done); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if calculator.IsStarted() {
		t.Fatal("started although Close was called")
	}
	// In the middle of a start that waits for the source.
	short, cancel := context.WithCancel(context.Background())
	time.AfterFunc(100*time.Millisecond, cancel)
	if err := calculator.Start(short); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	until(t, "stopped", func() bool { return !calculator.IsStarted() })
	must(t, calculator.Stop(patient(t)))
	// There is no server at this address.
	refused, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := ConnectNATS(refused, NATSOptions{URLs: []string{"nats://127.0.0.1:1"}}); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
}

func TestInvalidConfigurationErrorNamesEveryViolation(t *testing.T) {
	config := &Config{
		HeartbeatTTL: -time.Second, RestartRatio: 1.5,
		Settings: map[string]string{"colldown": "1s"},
	}
	err := config.Validate()
	if !errors.Is(err, ErrInvalidConfig) {
		t.Fatal(err)
	}
	for _, word := range []string{"heartbeat_ttl", "cooldown"} {
		if !strings.Contains(err.Error(), word) {
			t.Fatal(err)
		}
	}
	config.HeartbeatTTL, config.Settings = 0, nil
	if err := config.Validate(); !errors.Is(err, ErrInvalidConfig) || !strings.Contains(err.Error(), "restart_ratio") {
		t.Fatal(err)
	}
	// The settings of hosts of the predecessor: short windows, a grace longer than the TTL.
	must(t, (&Config{
		HeartbeatTTL: time.Second, EmergencyGracePeriod: 5 * time.Second,
		Cooldown: 10 * time.Millisecond, ColdStartWindow: 20 * time.Millisecond, PlannedScaleWindow: 30 * time.Millisecond,
	}).Validate())
	if _, err := NewCalculator(&Config{}); !errors.Is(err, ErrInvalidConfig) {
		t.Fatal(err)
	}
	if _, err := ConnectNATS(patient(t), NATSOptions{}); !errors.Is(err, ErrInvalidConfig) {
		t.Fatal(err)
	}
}

func TestEveryLibraryStatusIsKnown(t *testing.T) {
	for code, name := range statusTable() {
		if known := codeName(code); "DIVVY_"+known != name && known != name {
			t.Errorf("%d is %s, not %s", int32(code), name, known)
		}
	}
}

type recorder struct {
	mutex  sync.Mutex
	levels map[string]int
}

func (r *recorder) count(level string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.levels[level]++
}
func (r *recorder) Debug(string, ...any) { r.count("debug") }
func (r *recorder) Info(string, ...any)  { r.count("info"); panic("loggers may panic") }
func (r *recorder) Warn(string, ...any)  { r.count("warn") }
func (r *recorder) Error(string, ...any) { r.count("error") }

type metrics struct {
	NopMetrics
	published, joined, measured, moved atomic.Int64
}

func (m *metrics) RecordRebalanceAttempt(_ string, success bool) {
	if success {
		m.published.Add(1)
	}
}
func (m *metrics) RecordRebalanceDuration(seconds float64, reason string) {
	if seconds > 0 && reason != "" {
		m.measured.Add(1)
	}
}
func (m *metrics) RecordWorkerChange(added, _ int) { m.joined.Add(int64(added)) }
func (m *metrics) RecordPublication(_ int64, _, _, moved int) {
	m.moved.Add(int64(moved))
}

// meanings records the calls of the metrics with parti's names.
type meanings struct {
	NopMetrics
	calls []string
}

func (m *meanings) add(format string, values ...any) {
	m.calls = append(m.calls, fmt.Sprintf(format, values...))
}
func (m *meanings) RecordRebalanceDuration(seconds float64, reason string) {
	m.add("%s took %gs", reason, seconds)
}
func (m *meanings) RecordEmergencyRebalance(disappeared int)  { m.add("%d disappeared", disappeared) }
func (m *meanings) RecordActiveWorkers(count int)             { m.add("%d active", count) }
func (m *meanings) RecordWorkerChange(added, removed int)     { m.add("+%d -%d", added, removed) }
func (m *meanings) RecordRebalanceAttempt(_ string, yes bool) { m.add("attempt %t", yes) }

func TestMetricsMeanWhatTheyMeanInParti(t *testing.T) {
	metrics := &meanings{}
	recorder := metricsRecorder{metrics: metrics, workers: -1}
	second := 0
	state := func(from, to CalculatorState, reason string) Event {
		second++
		return Event{Kind: EventCalculatorState, From: from, State: to, Reason: reason, Time: time.Duration(second) * time.Second}
	}
	member := func(change string) Event { return Event{Kind: EventMember, Change: change} }
	expect := func(what string, events []Event, calls ...string) {
		t.Helper()
		metrics.calls = nil
		for _, event := range events {
			recorder.note(event)
		}
		if !slices.Equal(metrics.calls, calls) {
			t.Fatalf("%s: %q", what, metrics.calls)
		}
	}
	idle, rebalancing, emergency := CalculatorStateIdle, CalculatorStateRebalancing, CalculatorStateEmergency
	expect("first plan", []Event{
		member("joined"), state(idle, rebalancing, "cold_start"),
		{Kind: EventPublished, Reason: "cold_start", Workers: 5}, state(rebalancing, idle, ""),
	}, "+1 -0", "attempt true", "5 active", "cold_start took 1s")
	expect("leave", []Event{member("left")}, "+0 -1", "4 active")
	expect("worker that is late and returns", []Event{member("suspected"), member("returned")})
	expect("emergency that fails at first", []Event{
		member("suspected"), member("suspected"), member("dead"), member("dead"),
		state(idle, emergency, "emergency"), {Kind: EventFailed, Reason: "emergency"}, state(emergency, idle, ""),
		state(idle, emergency, "emergency"),
		{Kind: EventPublished, Reason: "emergency", Workers: 2}, state(emergency, idle, ""),
	}, "+0 -1", "3 active", "+0 -1", "2 active", "2 disappeared", "attempt false", "attempt true", "2 active",
		"emergency took 1s")
	expect("worker that dies while another death is planned for", []Event{
		member("dead"), state(idle, rebalancing, "restart"),
		{Kind: EventPublished, Reason: "restart", Workers: 1}, member("dead"), state(rebalancing, idle, ""),
		state(idle, emergency, "emergency"),
	}, "+0 -1", "1 active", "attempt true", "1 active", "+0 -1", "0 active", "restart took 1s", "1 disappeared")
}

func TestLoggerAndMetricsReceiveEvents(t *testing.T) {
	store := memory(t)
	fleet := newFleet(t, store, "w-1")
	logger, metrics := &recorder{levels: map[string]int{}}, &metrics{}
	config := config(store)
	config.Logger, config.Metrics = logger, metrics
	t.Cleanup(func() { must(t, SetLogger(nil)) })
	calculator := calculator(t, config)
	must(t, calculator.Start(patient(t)))
	until(t, "cold start", func() bool { return fleet.divided(12, "w-1") })
	fleet.join("w-2")
	until(t, "metrics", func() bool {
		return metrics.published.Load() >= 2 && metrics.joined.Load() >= 1 &&
			metrics.measured.Load() >= 2 && metrics.moved.Load() >= 6
	})
	var page strings.Builder
	must(t, calculator.WriteMetrics(&page))
	if !strings.Contains(page.String(), "divvy_plan_workers 2\n") {
		t.Fatal(page.String())
	}
	must(t, calculator.Close())
	if err := calculator.WriteMetrics(&page); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	until(t, "logs", func() bool {
		logger.mutex.Lock()
		defer logger.mutex.Unlock()
		return logger.levels["info"] > 0
	})
}

func TestRepeatedLifecyclesLeaveNothingBehind(t *testing.T) {
	store := memory(t)
	newFleet(t, store, "w-1")
	one := func() {
		made, err := NewCalculator(config(store))
		must(t, err)
		states, cancel := made.SubscribeToStateChanges()
		_, _ = made.SubscribeToStateChanges()
		must(t, made.Start(patient(t)))
		<-states
		cancel()
		must(t, made.Close())
	}
	cycles := 1_000
	if testing.Short() {
		cycles = 100
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

func usage(t testing.TB) (goroutines, threads, files, residentKiB int) {
	t.Helper()
	runtime.GC()
	count := func(folder string) int {
		entries, err := os.ReadDir(folder)
		must(t, err)
		return len(entries)
	}
	text, err := os.ReadFile("/proc/self/statm")
	must(t, err)
	var total, resident int
	_, err = fmt.Sscan(string(text), &total, &resident)
	must(t, err)
	return runtime.NumGoroutine(), count("/proc/self/task"), count("/proc/self/fd"), resident * os.Getpagesize() / 1024
}

// vector is a plan of the Go predecessor, see tests/vectors.
type vector struct {
	Strategy, Weights, Seed string
	Workers, Partitions     int
	VirtualNodes            int `json:"virtual_nodes"`
	Owners                  []int
	Options                 map[string]any
}

func (v *vector) partitions() []Partition {
	list := make([]Partition, v.Partitions)
	for i := range list {
		weight := map[string]int{"equal": 100, "zero": 0, "spread": 50 + i*7919%151, "skew10": 100, "heavy": 100,
			"mixed": []int{-5, 0, 1, 100, 1_000_000}[i%5]}[v.Weights]
		if v.Weights == "skew10" && i%10 == 0 {
			weight = 500
		}
		if v.Weights == "heavy" && i%20 == 0 {
			weight = 10_000 + i/20*7919%40_001
		}
		list[i] = Partition{Keys: []string{"topic", "p", fmt.Sprintf("%07d", i)}, Weight: int64(weight)}
	}
	return list
}

func TestPlansMatchPredecessorBitForBit(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "tests", "vectors", "plans.json"))
	must(t, err)
	var file struct{ Cases []vector }
	must(t, json.Unmarshal(text, &file))
	tried := 0
	for _, vector := range file.Cases {
		if vector.Partitions > 500 || vector.Workers > 12 || vector.VirtualNodes > 0 && vector.VirtualNodes != 150 || vector.Owners == nil || len(vector.Options) > 0 {
			continue
		}
		tried++
		t.Run(fmt.Sprintf("%s %d x %d %s %s", vector.Strategy, vector.Workers, vector.Partitions, vector.Weights, vector.Seed), func(t *testing.T) {
			t.Parallel()
			store := memory(t)
			var workers []string
			for i := range vector.Workers {
				workers = append(workers, fmt.Sprintf("worker-%d", i))
			}
			fleet := newFleet(t, store, workers...)
			config := config(store)
			config.Source = &listSource{list: vector.partitions()}
			seed, err := strconv.ParseUint(vector.Seed, 16, 64)
			must(t, err)
			config.Settings["strategy"], config.Settings["hash_seed"] = vector.Strategy, strconv.FormatUint(seed, 10)
			calculator := calculator(t, config)
			must(t, calculator.Start(patient(t)))
			must(t, calculator.TriggerRebalance(patient(t)))
			want := map[string][]string{}
			for i, owner := range vector.Owners {
				worker := workers[owner]
				want[worker] = append(want[worker], fmt.Sprintf("topic-p-%07d", i))
			}
			for _, worker := range workers {
				if _, ids := fleet.held(worker); !slices.Equal(ids, want[worker]) {
					t.Errorf("%s has %d partitions, other than the predecessor's %d", worker, len(ids), len(want[worker]))
				}
			}
		})
	}
	if tried < 5 {
		t.Errorf("%d plans only", tried)
	}
}
