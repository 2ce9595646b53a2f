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

// hanging is a source that blocks on request, whatever the state of its context.
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

// calls returns the number of goroutines in a blocking call of the library, including
// subscriptions.
func calls() int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return strings.Count(string(stacks), "._Cfunc_divvy_go_") - strings.Count(string(stacks), "._Cfunc_divvy_go_next")
}

// goroutines returns the number of goroutines, except those that block in the host's source.
func goroutines() int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return strings.Count(string(stacks), "\n\n") + 1 - strings.Count(string(stacks), ".(*hanging).ListPartitions")
}

// cancelled makes a blocking call and cancels it.
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
	// Immediately: the goroutine of the call has returned from it.
	if count := calls(); count != 0 {
		t.Fatalf("%s: %d calls of the library continue", what, count)
	}
	until(t, what+" leaves no goroutine", func() bool { return goroutines() <= before })
}

func TestCancelledCalculatorCallLeavesNothingRunning(t *testing.T) {
	store := memory(t)
	// A worker with rare heartbeats, so that no goroutine of the test starts or ends.
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
	cancelled(t, "Start", second.Start, always) // no id is free for it
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
	// It leaves in the background, so the id becomes free.
	must(t, second.Start(patient(t)))
	must(t, first.Stop(patient(t), Leave))
}

// mute is a NATS server that answers only PING and counts its requests. A deaf one does not even
// send INFO, and counts its connections.
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
	// The writes are sent only once.
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
		var received *Error
		if !errors.Is(ended, ErrCancelled) || !errors.As(ended, &received) {
			t.Fatal(ended)
		}
		isWrite := call.what == "Put" || call.what == "Delete"
		if isWrite != strings.Contains(received.Message, "may have been written") {
			t.Fatalf("%s: %v", call.what, ended)
		}
		// A deadline ends them too.
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
	config.Metrics = &transitions{received: func(from, to ManagerState) {
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

// transitions receives the state transitions of a manager and nothing else.
type transitions struct {
	NopMetrics
	received func(from, to ManagerState)
}

func (m *transitions) RecordManagerTransition(from, to ManagerState, _ float64) { m.received(from, to) }

func TestErrorReportsOperationKeyAndAttempts(t *testing.T) {
	store := memory(t)
	config := config(store)
	_, err := store.Get(patient(t), BucketAssignment, "assignment.w-1") // the bucket does not exist
	var received *Error
	if !errors.As(err, &received) || received.Op != "read" || received.Key != "assignment.w-1" || received.Attempts != 1 {
		t.Fatalf("%+v", err)
	}
	if !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrStore) || errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	// Events too.
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
		if !errors.Is(event.Err, ErrSourceFailed) || !errors.As(event.Err, &received) || received.Op == "" || received.Attempts < 1 {
			t.Fatalf("%+v", event.Err)
		}
		return
	}
	t.Fatal("no failure was reported")
}

func TestMalformedAssignmentIsReportedWithBucketKeyAndValue(t *testing.T) {
	config := managerConfig(memory(t))
	worker := manager(t, config)
	must(t, worker.Start(patient(t)))
	until(t, "assigned", func() bool { return covered(t, 12, worker) })
	events, err := worker.Subscribe()
	must(t, err)
	must(t, config.Store.Put(patient(t), BucketAssignment, "assignment.worker-0", []byte("no assignment")))
	limit := time.After(testTimeout)
	for {
		select {
		case event, isOpen := <-events.C:
			if !isOpen {
				t.Fatal(events.Err())
			}
			if event.Kind != EventMalformed {
				continue
			}
			found := event.Calculator
			if found.Bucket != BucketAssignment || found.Key != "assignment.worker-0" ||
				found.Value != "no assignment" || found.Message == "" {
				t.Fatalf("%+v", found)
			}
			return
		case <-limit:
			t.Fatal("no event of a malformed assignment")
		}
	}
}

func TestLaggingWorkerIsReportedWithItsVersions(t *testing.T) {
	store := memory(t)
	must(t, store.Ensure(patient(t), BucketHeartbeat, time.Hour))
	// A worker that sends heartbeats and reports that it has applied nothing.
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

// A wake concurrent with an event was lost once in a few hundred runs: Cancel then blocked forever.
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
		case <-time.After(testTimeout):
			t.Fatal("cycle ", cycle, ": Cancel hangs")
		}
	}
}
