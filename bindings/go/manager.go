//go:build cgo

package divvy

// #include "bridge.h"
import "C"

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"time"
)

// Manager is one worker's whole life: it joins the fleet under a stable id, sends heartbeats, takes
// part in the election, is told what to work on, runs a calculator while it leads, and leaves well.
// Close it when it is no longer needed.
type Manager struct {
	lifetime
	handle       C.divvy_manager
	metrics      CalculatorMetrics
	onAssignment func(AssignmentChange)
	// Reads for the hook, from a start to the next stop; under the mutex.
	hook *feed
}

// Validate reports every rule that the configuration breaks: ErrInvalidConfig. Store is not looked
// at. Durations of zero count as their defaults.
func (c *ManagerConfig) Validate() error {
	store, err := NewMemoryStore()
	if err != nil {
		return err
	}
	defer store.Close()
	bare := *c
	bare.Config.Store, bare.Config.Logger = store, nil
	manager, err := NewManager(&bare)
	if err != nil {
		return err
	}
	return manager.Close()
}

// NewManager makes a manager that is not started yet. ErrInvalidConfig lists every rule that the
// configuration breaks.
func NewManager(config *ManagerConfig) (*Manager, error) {
	if config == nil || config.Store == nil {
		return nil, &Error{Code: codeInvalidConfig, Op: "new", Message: "Store is nil: give one"}
	}
	manager := &Manager{metrics: config.Metrics, onAssignment: config.OnAssignment}
	made, err := manager.prepare(&config.Config, config.settings(), config.Election)
	if err != nil {
		return nil, err
	}
	defer C.divvy_config_free(made)
	var text errorText
	buffer, size := text.at()
	status := C.divvy_manager_new(made, config.Store.handle, &manager.handle, buffer, size)
	if err := check(status, "new", &text); err != nil {
		return nil, err
	}
	handle := manager.handle
	manager.isStarted = func() bool { return C.divvy_manager_is_started(handle) == 1 }
	manager.startCall = func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_go_manager_start(cancel, handle, wait, buffer, size)
	}
	manager.stopCall = departing(handle, Leave)
	manager.freeCall = func(buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_manager_free(handle, buffer, size)
	}
	runtime.SetFinalizer(manager, func(m *Manager) {
		if !m.isClosed {
			slog.Warn("divvy: a manager was not closed; it is now", "handle", uint64(handle.id))
			_ = m.Close()
		}
	})
	return manager, nil
}

func departing(handle C.divvy_manager, departure Departure) waitingCall {
	return func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_go_manager_stop(cancel, handle, C.int32_t(departure), wait, buffer, size)
	}
}

// Start joins the fleet: claims an id, and returns once the first heartbeat is stored. Election and
// assignment follow; see [Manager.WaitState]. Waits until the context is done, 30 s by default; after
// an error nothing is left behind. ErrIDsExhausted: all ids stayed taken.
func (m *Manager) Start(ctx context.Context) error {
	defer runtime.KeepAlive(m)
	return m.begin(ctx, func() func() {
		listeners := []*feed{m.attendHook(), m.attendMetrics()}
		return func() {
			for _, listener := range listeners {
				if listener != nil {
					listener.Cancel()
				}
			}
		}
	})
}

// Stop leaves the fleet, for good (Leave) or to be back soon (Restart). When it returns nil nothing is
// held any more, OnAssignment was told so and is not called again, and the subscriptions end after
// what is in their backlog. Stopping what is not started is fine, from any goroutine, at the same
// time. Waits until the context is done, 10 s by default; ErrTimedOut names what is still busy. Ended
// by its context it has asked the worker to leave, which goes on by itself, and nothing waits for that
// any more: Stop can be called again, and so can Close. ErrWouldDeadlock from inside OnAssignment, a
// source, strategy or election.
func (m *Manager) Stop(ctx context.Context, departure Departure) error {
	defer runtime.KeepAlive(m)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := m.end(ctx, departing(m.handle, departure)); err != nil {
		return err
	}
	return m.awaitHook(ctx)
}

// Close stops the manager with Leave, waiting up to 10 s, ends its subscriptions whether they are
// read or not, and frees it; every call afterwards is ErrClosed. A second call does nothing.
// ErrTimedOut and ErrWouldDeadlock (from inside OnAssignment, a source, strategy or election) leave it
// as it is: call again.
func (m *Manager) Close() error {
	if err := m.close(); err != nil {
		return err
	}
	runtime.SetFinalizer(m, nil)
	return nil
}

// IsStarted is whether it is started: not before Start has succeeded, not once a stop was asked for.
func (m *Manager) IsStarted() bool {
	defer runtime.KeepAlive(m)
	return m.isStarted()
}

// WorkerID is the id under which this worker is a member; empty when it has none.
func (m *Manager) WorkerID() string {
	defer runtime.KeepAlive(m)
	id, _ := readText("worker id", func(out *C.divvy_text, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_manager_worker_id(m.handle, out, buffer, size)
	})
	return string(id)
}

// IsLeader is whether this worker leads.
func (m *Manager) IsLeader() bool {
	defer runtime.KeepAlive(m)
	return C.divvy_manager_is_leader(m.handle) == 1
}

// Leader is who leads, as far as is known; empty when nobody is known to.
func (m *Manager) Leader() string {
	defer runtime.KeepAlive(m)
	leader, _ := readText("leader", func(out *C.divvy_text, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_manager_leader(m.handle, out, buffer, size)
	})
	return string(leader)
}

// State is what it is doing; ManagerStateShutdown once it is closed.
func (m *Manager) State() ManagerState {
	defer runtime.KeepAlive(m)
	if state := C.divvy_manager_get_state(m.handle); state > 0 {
		return ManagerState(state)
	}
	return ManagerStateShutdown
}

// WaitState waits until it is in that state, or the context is done. A state that was passed through
// before the call, or too quickly to be seen, does not count: subscribe to see every one.
func (m *Manager) WaitState(ctx context.Context, state ManagerState) error {
	defer runtime.KeepAlive(m)
	for {
		err := m.wait(ctx, "wait_state", time.Hour, func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
			return C.divvy_go_manager_wait_state(cancel, m.handle, C.int32_t(state), wait, buffer, size)
		}, nil)
		if _, limited := ctx.Deadline(); limited || !errors.Is(err, ErrTimedOut) {
			return err
		}
	}
}

// Assignment is what this worker holds; Version is 0 before the first assignment. ErrClosed.
func (m *Manager) Assignment() (Assignment, error) {
	defer runtime.KeepAlive(m)
	var handle C.divvy_assignment
	var text errorText
	buffer, size := text.at()
	if err := check(C.divvy_manager_assignment(m.handle, &handle, buffer, size), "assignment", &text); err != nil {
		return Assignment{}, err
	}
	return changeOf(handle).Assignment, nil
}

// RefreshPartitions has the partition source read and a change of it published, where this worker
// leads, and waits for that, until the context is done, 30 s by default. ErrNotLeader names who leads.
func (m *Manager) RefreshPartitions(ctx context.Context) error {
	defer runtime.KeepAlive(m)
	return m.ask(ctx, "refresh_partitions", func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_go_manager_refresh(cancel, m.handle, wait, buffer, size)
	})
}

// TriggerRebalance has a new version published at once, where this worker leads, and waits for it,
// until the context is done, 30 s by default. ErrNotLeader names who leads.
func (m *Manager) TriggerRebalance(ctx context.Context) error {
	defer runtime.KeepAlive(m)
	return m.ask(ctx, "trigger_rebalance", func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_go_manager_trigger(cancel, m.handle, wait, buffer, size)
	})
}

// SetPartitions pushes the partition list: the whole of it. Every worker that may lead needs it. May
// be called before the start. Waits for up to 1 s.
func (m *Manager) SetPartitions(partitions []Partition) error {
	defer runtime.KeepAlive(m)
	return withPartitions(partitions, func(list C.divvy_partitions, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_manager_set_partitions(m.handle, list, buffer, size)
	})
}

// Status tells everything about the manager at this moment, as JSON for people and dashboards. Waits
// for up to 3 s.
func (m *Manager) Status() (json.RawMessage, error) {
	defer runtime.KeepAlive(m)
	return readText("status", func(out *C.divvy_text, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_manager_status_json(m.handle, out, buffer, size)
	})
}

// ManagerSubscription delivers how things are and then every event, in order, none left out. A reader
// may be slow: 65 536 events are kept for it. When there are more, it is closed after those.
type ManagerSubscription struct {
	// C delivers the events. It is closed after the last one, see Err.
	C <-chan ManagerEvent
	*feed
}

// Subscribe begins a subscription to all events, those of the calculator included: first the state,
// the id, the leader and the assignment, each where there is one. It ends with the manager's stop,
// after what is in its backlog, or with Cancel.
func (m *Manager) Subscribe() (*ManagerSubscription, error) {
	feed, err := m.open(C.DIVVY_MANAGER_FILTER_WORKER_AND_CALCULATOR)
	if err != nil {
		return nil, err
	}
	return &ManagerSubscription{feed: feed, C: pump(feed, func(told *C.divvy_go_told) (ManagerEvent, bool) {
		return managerEventOf(told), true
	})}, nil
}

// SubscribeToStateChanges delivers the current state and then every later one, in order, none left
// out. It ends as that of a calculator: see [Calculator.SubscribeToStateChanges].
func (m *Manager) SubscribeToStateChanges() (<-chan ManagerState, func()) {
	feed, err := m.open(C.DIVVY_MANAGER_FILTER_WORKER)
	if err != nil {
		states := make(chan ManagerState)
		close(states)
		return states, func() {}
	}
	return pump(feed, func(told *C.divvy_go_told) (ManagerState, bool) {
		return ManagerState(told.state), EventKind(told.kind) == EventWorkerState
	}), feed.Cancel
}

func (m *Manager) open(interest C.int32_t) (*feed, error) {
	defer runtime.KeepAlive(m)
	return m.listen(func(out *C.divvy_events, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_manager_events(m.handle, interest, out, buffer, size)
	})
}

// attendHook has the hook, if any, told of every change of the assignment, until the next stop.
func (m *Manager) attendHook() *feed {
	if m.onAssignment == nil {
		return nil
	}
	feed, err := m.open(C.DIVVY_MANAGER_FILTER_ASSIGNMENT)
	if err != nil {
		return nil // closed: the start fails, too
	}
	m.mutex.Lock()
	m.hook = feed
	m.mutex.Unlock()
	hook := m.onAssignment
	go feed.run(func(told *C.divvy_go_told) bool {
		if EventKind(told.kind) == EventAssignment {
			change := changeOfEvent(told.event)
			err := m.host.run("assignment hook", func() error { hook(change); return nil })
			if err != nil {
				slog.Error(err.Error())
			}
		}
		return true
	})
	return feed
}

// awaitHook waits until the hook was told everything. It ends with its backlog.
func (m *Manager) awaitHook(ctx context.Context) error {
	m.mutex.Lock()
	hook := m.hook
	m.mutex.Unlock()
	if hook == nil {
		return nil
	}
	select {
	case <-hook.finished:
		return nil
	case <-ctx.Done():
		return ended(ctx, &Error{Code: codeTimedOut, Op: "stop", Message: "OnAssignment is still running"})
	}
}

// attendMetrics has the metrics, if any, told of every event, until the next stop.
func (m *Manager) attendMetrics() *feed {
	if m.metrics == nil {
		return nil
	}
	feed, err := m.open(C.DIVVY_MANAGER_FILTER_WORKER_AND_CALCULATOR)
	if err != nil {
		return nil
	}
	calculators, workers := metricsRecorder{metrics: m.metrics}, newWorkerRecorder(m.metrics)
	go feed.run(func(event *C.divvy_go_told) bool {
		told := managerEventOf(event)
		err := m.host.run("metrics", func() error {
			if told.Calculator != nil {
				calculators.note(*told.Calculator)
			} else {
				workers.note(told)
			}
			return nil
		})
		if err != nil {
			slog.Error(err.Error())
		}
		return true
	})
	return feed
}

// WriteMetrics writes the metrics of the manager, its worker and its calculators as Prometheus reads
// them: text format 0.0.4, after which other metrics may follow. The settings "metrics_namespace" and
// "metrics_labels" name them.
func (m *Manager) WriteMetrics(w io.Writer) error {
	defer runtime.KeepAlive(m)
	return writePage(w, func(out *C.divvy_text, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_manager_metrics(m.handle, out, buffer, size)
	})
}

// managerEventOf reads an event of a manager.
func managerEventOf(from *C.divvy_go_told) ManagerEvent {
	event := from.event
	told := ManagerEvent{
		Kind: EventKind(from.kind),
		Time: time.Duration(from.time_ns),
	}
	switch told.Kind {
	case EventWorkerState:
		told.State = ManagerState(from.state)
		told.From = ManagerState(from.from_state)
	case EventWorkerID, EventWorkerIDLost, EventWorkerIDRegained, EventLeader:
		told.Worker = C.GoString(C.divvy_event_worker(event, nil))
		told.IsLeader = C.divvy_event_is_leader(event) == 1
	case EventAssignment:
		told.Change = changeOfEvent(event)
	case EventManagerFailed:
		told.Err = failureOf(event, "manager")
	case EventAlert, EventRecovered:
		told.Level = C.GoString(C.divvy_alert_level_name(C.divvy_event_alert_level(event)))
		told.Lasted = time.Duration(C.divvy_event_lasted_ms(event)) * time.Millisecond
	case EventOutage, EventFatal, EventCalculatorFatal:
		told.Message = C.GoString(C.divvy_event_message(event, nil))
	default:
		calculators := eventOf(from)
		told.Calculator = &calculators
	}
	return told
}

func changeOfEvent(event C.divvy_event) AssignmentChange {
	var handle C.divvy_assignment
	if Code(C.divvy_event_assignment(event, &handle, nil, 0)) != codeOK {
		return AssignmentChange{}
	}
	return changeOf(handle)
}

// changeOf reads an assignment of the library and frees it.
func changeOf(handle C.divvy_assignment) AssignmentChange {
	defer C.divvy_assignment_free(handle)
	var length C.size_t
	text := C.divvy_assignment_json(handle, &length)
	var change AssignmentChange
	if err := json.Unmarshal(bytesOf(text, length), &change); err != nil {
		slog.Error("divvy: an assignment of the library cannot be read", "error", err)
	}
	return change
}

// libraryName is what the library calls a state.
func libraryName(state ManagerState) string {
	return C.GoString(C.divvy_manager_state_name(C.int32_t(state)))
}
