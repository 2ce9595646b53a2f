//go:build cgo

package divvy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// hanging is a source that hangs while it is told to, whatever its context says.
type hanging struct {
	mutex   sync.Mutex
	release chan struct{}
	inside  atomic.Int64
}

func (h *hanging) ListPartitions(context.Context) ([]Partition, error) {
	h.mutex.Lock()
	release := h.release
	h.mutex.Unlock()
	if release != nil {
		h.inside.Add(1)
		<-release
		h.inside.Add(-1)
	}
	return tools(4), nil
}

func (h *hanging) hang() (release func()) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	waits := make(chan struct{})
	h.release = waits
	return func() {
		h.mutex.Lock()
		defer h.mutex.Unlock()
		if h.release == waits {
			h.release = nil
			close(waits)
		}
	}
}

// calls is how many goroutines are inside a call of the library that waits; subscriptions wait, too.
func calls() int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return strings.Count(string(stacks), "._Cfunc_divvy_go_") - strings.Count(string(stacks), "._Cfunc_divvy_go_next")
}

// goroutines is how many there are, those that hang in the host's source left aside.
func goroutines() int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return strings.Count(string(stacks), "\n\n") + 1 - strings.Count(string(stacks), ".(*hanging).ListPartitions")
}

// cancelled makes a call that waits, and cancels it when it does.
func cancelled(t *testing.T, what string, call func(context.Context) error, isWaiting func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	before := goroutines()
	ended := make(chan error)
	go func() { ended <- call(ctx) }()
	until(t, what+" waits", func() bool { return calls() == 1 && isWaiting() })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("%s: %v", what, err)
	}
	// At once: what made the call has returned from it.
	if count := calls(); count != 0 {
		t.Fatalf("%s: %d calls of the library go on", what, count)
	}
	until(t, what+" leaves no goroutine", func() bool { return goroutines() <= before })
}

func TestCancelledCalculatorCallLeavesNothingRunning(t *testing.T) {
	store := memory(t)
	// A worker that need not beat, so that no goroutine of the test comes and goes.
	must(t, store.Ensure(patient(t), BucketHeartbeat, time.Hour))
	must(t, store.Put(patient(t), BucketHeartbeat, "heartbeat.w-1", []byte("alive")))
	source := &hanging{}
	config := config(store)
	config.HeartbeatTTL, config.Source = time.Hour, source
	calculator := calculator(t, config)
	isInside := func() bool { return source.inside.Load() == 1 }

	release := source.hang()
	cancelled(t, "Start", calculator.Start, isInside)
	release()
	must(t, calculator.Stop(patient(t)))

	must(t, calculator.Start(patient(t)))
	must(t, calculator.TriggerRebalance(patient(t)))
	release = source.hang()
	defer release()
	cancelled(t, "TriggerRebalance", calculator.TriggerRebalance, isInside)
	cancelled(t, "Refresh", calculator.Refresh, isInside)
	cancelled(t, "Stop", calculator.Stop, isInside)
	if calculator.IsStarted() {
		t.Fatal("no stop was asked for")
	}
	release()
	must(t, calculator.Stop(patient(t)))
}

func TestCancelledManagerCallLeavesNothingRunning(t *testing.T) {
	config := managerConfig(memory(t))
	source := &hanging{}
	config.Source, config.WorkerIDMax = source, 1
	config.WorkerIDMin = 1
	first, second := manager(t, config), manager(t, config)
	always := func() bool { return true }
	must(t, first.Start(patient(t)))
	until(t, "assigned", func() bool { return covered(t, 4, first) })
	cancelled(t, "Start", second.Start, always) // there is no id for it
	cancelled(t, "WaitState", func(ctx context.Context) error {
		return first.WaitState(ctx, ManagerStateDegraded)
	}, always)
	release := source.hang()
	defer release()
	isInside := func() bool { return source.inside.Load() == 1 }
	cancelled(t, "TriggerRebalance", first.TriggerRebalance, isInside)
	cancelled(t, "RefreshPartitions", first.RefreshPartitions, isInside)
	cancelled(t, "Stop", func(ctx context.Context) error { return first.Stop(ctx, Leave) }, isInside)
	release()
	// It leaves by itself: the id is free.
	must(t, second.Start(patient(t)))
	must(t, first.Stop(patient(t), Leave))
}

// mute is a NATS server that answers nothing but pings, and counts what it is asked; a deaf one does
// not even greet, and counts who comes.
func mute(t *testing.T, isDeaf bool) (url string, asked *atomic.Int64) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	asked = &atomic.Int64{}
	serve := func(client net.Conn) {
		_, _ = io.WriteString(client, `INFO {"server_id":"mute","host":"::","port":1,"go":"","client_id":1,"version":"2.11.0","proto":1,"headers":true,`+
			`"max_payload":1048576,"jetstream":true}`+"\r\n")
		for lines := bufio.NewScanner(client); lines.Scan(); {
			switch word, _, _ := strings.Cut(lines.Text(), " "); word {
			case "PING":
				_, _ = io.WriteString(client, "PONG\r\n")
			case "PUB", "HPUB":
				asked.Add(1)
			}
		}
	}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = client.Close() })
			if isDeaf {
				asked.Add(1)
			} else {
				go serve(client)
			}
		}
	}()
	return "nats://" + listener.Addr().String(), asked
}

func TestCancelledStoreCallLeavesNothingRunning(t *testing.T) {
	deaf, came := mute(t, true)
	cancelled(t, "ConnectNATS", func(ctx context.Context) error {
		store, err := ConnectNATS(ctx, NATSOptions{URLs: []string{deaf}})
		if store != nil {
			t.Error("a store that is not connected")
		}
		return err
	}, func() bool { return came.Load() > 0 })

	url, asked := mute(t, false)
	store, err := ConnectNATS(patient(t), NATSOptions{URLs: []string{url}})
	must(t, err)
	defer store.Close()
	// The writes first: they are sent once.
	for _, call := range []struct {
		what string
		make func(context.Context) error
	}{
		{"Put", func(ctx context.Context) error { return store.Put(ctx, BucketHeartbeat, "heartbeat.w-1", []byte("up")) }},
		{"Delete", func(ctx context.Context) error { return store.Delete(ctx, BucketHeartbeat, "heartbeat.w-1") }},
		{"Ensure", func(ctx context.Context) error { return store.Ensure(ctx, BucketHeartbeat, 0) }},
		{"Get", func(ctx context.Context) error { _, err := store.Get(ctx, BucketHeartbeat, "k"); return err }},
	} {
		before := asked.Load()
		var ended error
		cancelled(t, call.what, func(ctx context.Context) error {
			ended = call.make(ctx)
			return ended
		}, func() bool { return asked.Load() > before })
		var told *Error
		if !errors.Is(ended, ErrCancelled) || !errors.As(ended, &told) {
			t.Fatal(ended)
		}
		isWrite := call.what == "Put" || call.what == "Delete"
		if isWrite != strings.Contains(told.Message, "may have been written") {
			t.Fatalf("%s: %v", call.what, ended)
		}
		// A deadline ends them as well.
		short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		if err := call.make(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%s: %v", call.what, err)
		}
		cancel()
	}
}

func TestCloseEndsAllWaitingCalls(t *testing.T) {
	manager := manager(t, managerConfig(memory(t)))
	ended := make(chan error)
	go func() { ended <- manager.WaitState(context.Background(), ManagerStateStable) }()
	until(t, "waits", func() bool { return calls() == 1 })
	must(t, manager.Close())
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if err := manager.WaitState(patient(t), ManagerStateStable); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestStopInsideManagerCallbackIsRejectedAndManagerContinues(t *testing.T) {
	config := managerConfig(memory(t))
	var worker *Manager
	refused := make(chan error, 1_000)
	try := func() {
		refused <- worker.Stop(context.Background(), Leave)
		refused <- worker.Close()
	}
	config.OnAssignment = func(AssignmentChange) { try() }
	config.Source = sourceFunc(func(context.Context) ([]Partition, error) {
		try()
		return tools(12), nil
	})
	config.Metrics = &transitions{told: func(from, to ManagerState) {
		if to == ManagerStateStable {
			try()
		}
	}}
	worker = manager(t, config)
	must(t, worker.Start(patient(t)))
	until(t, "assigned", func() bool { return covered(t, 12, worker) })
	must(t, worker.TriggerRebalance(patient(t)))
	must(t, worker.WaitState(patient(t), ManagerStateStable))
	if !worker.IsStarted() {
		t.Fatal("stopped from inside a callback")
	}
	must(t, worker.Stop(patient(t), Leave))
	if len(refused) < 6 {
		t.Fatal(len(refused))
	}
	for len(refused) > 0 {
		if err := <-refused; !errors.Is(err, ErrWouldDeadlock) {
			t.Fatal(err)
		}
	}
}

type sourceFunc func(context.Context) ([]Partition, error)

func (f sourceFunc) ListPartitions(ctx context.Context) ([]Partition, error) { return f(ctx) }

// transitions are told of a manager's states and of nothing else.
type transitions struct {
	NopMetrics
	told func(from, to ManagerState)
}

func (m *transitions) RecordManagerTransition(from, to ManagerState, _ float64) { m.told(from, to) }

func TestErrorReportsOperationKeyAndAttempts(t *testing.T) {
	store := memory(t)
	config := config(store)
	_, err := store.Get(patient(t), BucketAssignment, "assignment.w-1") // there is no bucket
	var told *Error
	if !errors.As(err, &told) || told.Op != "read" || told.Key != "assignment.w-1" || told.Attempts != 1 {
		t.Fatalf("%+v", err)
	}
	if !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrStore) || errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	// Of events, too.
	newFleet(t, store, "w-1")
	config.Source = sourceFunc(func(context.Context) ([]Partition, error) { return nil, errors.New("no list") })
	failing, err := NewCalculator(config)
	must(t, err)
	defer failing.Close()
	events, err := failing.Subscribe()
	must(t, err)
	must(t, failing.Start(patient(t)))
	for event := range events.C {
		if event.Kind != EventFailed {
			continue
		}
		if !errors.Is(event.Err, ErrSourceFailed) || !errors.As(event.Err, &told) || told.Op == "" || told.Attempts < 1 {
			t.Fatalf("%+v", event.Err)
		}
		return
	}
	t.Fatal("no failure was told")
}

func TestFailureEventReportsKey(t *testing.T) {
	config := managerConfig(memory(t))
	worker := manager(t, config)
	must(t, worker.Start(patient(t)))
	until(t, "assigned", func() bool { return covered(t, 12, worker) })
	events, err := worker.Subscribe()
	must(t, err)
	must(t, config.Store.Put(patient(t), BucketAssignment, "assignment.worker-0", []byte("no assignment")))
	for event := range events.C {
		var told *Error
		if event.Kind != EventManagerFailed || !errors.As(event.Err, &told) {
			continue
		}
		if !errors.Is(event.Err, ErrInvalidData) || told.Key != "assignment.worker-0" || told.Attempts != 1 {
			t.Fatalf("%+v", told)
		}
		return
	}
	t.Fatal(events.Err())
}

func TestLaggingWorkerIsReportedWithItsVersions(t *testing.T) {
	store := memory(t)
	must(t, store.Ensure(patient(t), BucketHeartbeat, time.Hour))
	// A worker that beats, and says that it has applied nothing.
	must(t, store.Put(patient(t), BucketHeartbeat, "heartbeat.w-1",
		[]byte(`{"worker":"w-1","time":"2026-01-01T00:00:00Z","applied_term":0,"applied_version":0}`)))
	config := config(store)
	config.HeartbeatTTL = time.Hour
	config.Settings["apply_timeout"] = "200ms"
	calculator := calculator(t, config)
	events, err := calculator.Subscribe()
	must(t, err)
	must(t, calculator.Start(patient(t)))
	for event := range events.C {
		if event.Kind != EventWorkerLagging {
			continue
		}
		if event.Worker != "w-1" || event.Version < 1 || event.AppliedVersion != 0 || !strings.Contains(event.Message, "w-1") {
			t.Fatalf("%+v", event)
		}
		return
	}
	t.Fatal(events.Err())
}

// A wake that met an event was lost once in some hundred times: Cancel then waited forever.
func TestCancelThatMeetsAnEventReturns(t *testing.T) {
	cycles := 20_000
	if testing.Short() {
		cycles = 1_000
	}
	store := memory(t)
	must(t, store.Ensure(patient(t), BucketHeartbeat, 0))
	must(t, store.Put(patient(t), BucketHeartbeat, "heartbeat.w-1", []byte("up")))
	config := config(store)
	config.HeartbeatTTL = time.Hour
	calculator := calculator(t, config)
	must(t, calculator.Start(patient(t)))
	for cycle := range cycles {
		subscription, err := calculator.Subscribe()
		must(t, err)
		go func() {
			for range subscription.C {
			}
		}()
		must(t, calculator.TriggerRebalance(context.Background()))
		cancelled := make(chan struct{})
		go func() {
			subscription.Cancel()
			close(cancelled)
		}()
		select {
		case <-cancelled:
		case <-time.After(patience):
			t.Fatal("cycle ", cycle, ": Cancel hangs")
		}
	}
}
