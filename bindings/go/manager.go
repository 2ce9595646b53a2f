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

// A Manager runs one worker: it joins the fleet under a stable id, sends heartbeats, takes part in
// the election, receives assignments, runs a calculator while it leads, and leaves. Close it when
// it is no longer needed.
type Manager struct {
	lifetime
	handle       C.divvy_manager
	metrics      CalculatorMetrics
	onAssignment func(AssignmentChange)
	// Reads events for OnAssignment from a start to the next stop; guarded by the mutex.
	hook *feed
}

// Validate returns ErrInvalidConfig with every violation of the configuration. It ignores Store.
// Zero durations mean their defaults.
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

// NewManager creates a manager. ErrInvalidConfig lists every violation of the configuration.
func NewManager(config *ManagerConfig) (*Manager, error) {
	if config == nil || config.Store == nil {
		return nil, &Error{Code: codeInvalidConfig, Op: "new", Message: "Store is nil: give one"}
	}
	manager := &Manager{metrics: config.Metrics, onAssignment: config.OnAssignment}
	settings := config.settings()
	if _, isSet := settings["cache_file"]; !isSet && config.Store.cacheFile != "" {
		settings["cache_file"] = config.Store.cacheFile
	}
	made, err := manager.prepare(&config.Config, settings, config.Election)
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
			slog.Warn("divvy: manager was not closed before garbage collection: closing it", "handle", uint64(handle.id))
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

// Start joins the fleet: it claims an id and returns once the first heartbeat is stored. Election
// and assignment follow; see [Manager.WaitState]. It waits until the context ends, 30 s by default.
// After an error nothing is left running. ErrIDsExhausted: no id became free.
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

// Stop leaves the fleet, permanently (Leave) or for a restart (Restart). After it returns nil, the
// worker owns nothing, OnAssignment has received the last change and is not called again, and the
// subscriptions end after their backlog. Stopping a stopped manager succeeds. Stop waits until the
// context ends, 10 s by default; ErrTimedOut names what is still busy. If the context ends first,
// the worker continues to leave in the background: call Stop or Close again to wait for it. Inside
// OnAssignment, a source, strategy or election it returns ErrWouldDeadlock.
func (m *Manager) Stop(ctx context.Context, departure Departure) error {
	defer runtime.KeepAlive(m)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := m.end(ctx, departing(m.handle, departure)); err != nil {
		return err
	}
	return m.awaitHook(ctx)
}

// Close stops the manager with Leave, ends its subscriptions and frees it. It waits at most 10 s.
// Later calls return ErrClosed; a second Close does nothing. After ErrTimedOut or ErrWouldDeadlock
// (inside OnAssignment, a source, strategy or election) nothing is freed: call Close again.
func (m *Manager) Close() error {
	if err := m.close(); err != nil {
		return err
	}
	runtime.SetFinalizer(m, nil)
	return nil
}

// IsStarted returns whether the manager is running: from a successful Start until a stop is
// requested.
func (m *Manager) IsStarted() bool {
	defer runtime.KeepAlive(m)
	return m.isStarted()
}

// WorkerID returns the id of this worker; empty if it has none.
func (m *Manager) WorkerID() string {
	defer runtime.KeepAlive(m)
	id, _ := readText("worker id", func(out *C.divvy_text, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_manager_worker_id(m.handle, out, buffer, size)
	})
	return string(id)
}

// IsLive reports whether the library works, for liveness probes: from the begin of Start until the end
// of Stop, unless a thread of the library has panicked or has made no progress for 10 s. Outages of the
// store, a lost id and hanging host code do not matter.
func (m *Manager) IsLive() bool {
	defer runtime.KeepAlive(m)
	return C.divvy_manager_is_live(m.handle) == 1
}

// IsReady reports whether this worker serves an assignment, for readiness probes: from its first
// applied assignment, which may be empty or cached, until a stop is requested, its id is lost or, with
// the setting outage_policy strict, its ownership ends. It stays true while the worker leads and its
// calculator scales or rebalances, and in degraded mode with outage_policy serve.
func (m *Manager) IsReady() bool {
	defer runtime.KeepAlive(m)
	return C.divvy_manager_is_ready(m.handle) == 1
}

// IsLeader returns whether this worker leads.
func (m *Manager) IsLeader() bool {
	defer runtime.KeepAlive(m)
	return C.divvy_manager_is_leader(m.handle) == 1
}

// Leader returns the id of the last known leader; empty if none.
func (m *Manager) Leader() string {
	defer runtime.KeepAlive(m)
	leader, _ := readText("leader", func(out *C.divvy_text, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_manager_leader(m.handle, out, buffer, size)
	})
	return string(leader)
}

// State returns the state; ManagerStateShutdown after Close.
func (m *Manager) State() ManagerState {
	defer runtime.KeepAlive(m)
	if state := C.divvy_manager_get_state(m.handle); state > 0 {
		return ManagerState(state)
	}
	return ManagerStateShutdown
}

// WaitState waits until the manager is in that state or the context ends. A state that it left
// before the call, or very quickly, is not detected: subscribe to observe every state.
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

// Assignment returns the current assignment; Version is 0 before the first one. After Close it
// returns ErrClosed.
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

// RefreshPartitions reads the partition source and publishes any change, if this worker is the
// leader. It waits until the context ends, 30 s by default. ErrNotLeader names the leader.
func (m *Manager) RefreshPartitions(ctx context.Context) error {
	defer runtime.KeepAlive(m)
	return m.ask(ctx, "refresh_partitions", func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_go_manager_refresh(cancel, m.handle, wait, buffer, size)
	})
}

// ConfirmPartitions confirms the partition list as it is now, although it lost more than the setting
// max_list_shrink allows, if this worker is the leader. ErrNotLeader names the leader.
func (m *Manager) ConfirmPartitions(ctx context.Context) error {
	defer runtime.KeepAlive(m)
	return m.ask(ctx, "confirm_partitions", func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_go_manager_confirm(cancel, m.handle, wait, buffer, size)
	})
}

// TriggerRebalance publishes a new version at once, if this worker is the leader. It waits until
// the context ends, 30 s by default. ErrNotLeader names the leader.
func (m *Manager) TriggerRebalance(ctx context.Context) error {
	defer runtime.KeepAlive(m)
	return m.ask(ctx, "trigger_rebalance", func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_go_manager_trigger(cancel, m.handle, wait, buffer, size)
	})
}

// SetPartitions sets the whole partition list. Every worker that may lead needs it. It may be
// called before Start. It waits at most 1 s.
func (m *Manager) SetPartitions(partitions []Partition) error {
	defer runtime.KeepAlive(m)
	return withPartitions(partitions, func(list C.divvy_partitions, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_manager_set_partitions(m.handle, list, buffer, size)
	})
}

// Status returns the status of the manager as JSON, for people and dashboards. It waits at most 3
// s.
func (m *Manager) Status() (json.RawMessage, error) {
	defer runtime.KeepAlive(m)
	return readText("status", func(out *C.divvy_text, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_manager_status_json(m.handle, out, buffer, size)
	})
}

// A ManagerSubscription delivers the current state and then every event, in order, without gaps. It
// keeps up to 65 536 events for a slow reader and is closed after those if there are more.
type ManagerSubscription struct {
	// C delivers the events. It is closed after the last one; Err returns why.
	C <-chan ManagerEvent
	*feed
}

// Subscribe subscribes to all events, including those of the calculator. It first delivers the
// current state, id, leader and assignment, each if present. The subscription ends with Cancel, or
// after its backlog when the manager stops.
func (m *Manager) Subscribe() (*ManagerSubscription, error) {
	feed, err := m.open(C.DIVVY_MANAGER_FILTER_WORKER_AND_CALCULATOR)
	if err != nil {
		return nil, err
	}
	return &ManagerSubscription{feed: feed, C: pump(feed, func(reported *C.divvy_go_event) (ManagerEvent, bool) {
		return managerEventOf(reported), true
	})}, nil
}

// SubscribeToStateChanges delivers the current state and then every later one, in order, without
// gaps. It ends as described at [Calculator.SubscribeToStateChanges].
func (m *Manager) SubscribeToStateChanges() (<-chan ManagerState, func()) {
	feed, err := m.open(C.DIVVY_MANAGER_FILTER_WORKER)
	if err != nil {
		states := make(chan ManagerState)
		close(states)
		return states, func() {}
	}
	return pump(feed, func(reported *C.divvy_go_event) (ManagerState, bool) {
		return ManagerState(reported.state), EventKind(reported.kind) == EventManagerState
	}), feed.Cancel
}

func (m *Manager) open(filter C.int32_t) (*feed, error) {
	defer runtime.KeepAlive(m)
	return m.listen(func(out *C.divvy_events, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_manager_events(m.handle, filter, out, buffer, size)
	})
}

// attendHook passes every change of the assignment to OnAssignment, if set, until the next stop.
func (m *Manager) attendHook() *feed {
	if m.onAssignment == nil {
		return nil
	}
	feed, err := m.open(C.DIVVY_MANAGER_FILTER_ASSIGNMENT)
	if err != nil {
		return nil // closed: the start fails as well
	}
	m.mutex.Lock()
	m.hook = feed
	m.mutex.Unlock()
	hook := m.onAssignment
	go feed.run(func(reported *C.divvy_go_event) bool {
		if EventKind(reported.kind) == EventAssignment {
			change := changeOfEvent(reported.event)
			feed.report(m.host.run("assignment hook", func() error { hook(change); return nil }))
		}
		return true
	})
	return feed
}

// awaitHook waits until OnAssignment has received its backlog.
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

// attendMetrics passes every event to the metrics, if any, until the next stop.
func (m *Manager) attendMetrics() *feed {
	if m.metrics == nil {
		return nil
	}
	feed, err := m.open(C.DIVVY_MANAGER_FILTER_WORKER_AND_CALCULATOR)
	if err != nil {
		return nil
	}
	calculators, workers := metricsRecorder{metrics: m.metrics}, newWorkerRecorder(m.metrics)
	go feed.run(func(event *C.divvy_go_event) bool {
		reported := managerEventOf(event)
		feed.report(m.host.run("metrics", func() error {
			if reported.Calculator != nil {
				calculators.note(*reported.Calculator)
			} else {
				workers.note(reported)
			}
			return nil
		}))
		return true
	})
	return feed
}

// WriteMetrics writes the metrics of the manager, its worker and its calculators in the Prometheus
// text format 0.0.4. Other metrics may follow on the same page. The settings "metrics_namespace"
// and "metrics_labels" set names and labels.
func (m *Manager) WriteMetrics(w io.Writer) error {
	defer runtime.KeepAlive(m)
	return writePage(w, func(out *C.divvy_text, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_manager_metrics(m.handle, out, buffer, size)
	})
}

// managerEventOf reads an event of a manager.
func managerEventOf(from *C.divvy_go_event) ManagerEvent {
	event := from.event
	reported := ManagerEvent{
		Kind: EventKind(from.kind),
		Time: time.Duration(from.time_ns),
	}
	switch reported.Kind {
	case EventManagerState:
		reported.State = ManagerState(from.state)
		reported.From = ManagerState(from.from_state)
	case EventWorkerID, EventWorkerIDLost, EventWorkerIDTakenOver, EventWorkerIDRegained, EventLeader:
		reported.Worker = C.GoString(C.divvy_event_worker(event, nil))
		reported.IsLeader = C.divvy_event_is_leader(event) == 1
	case EventAssignment:
		reported.Change = changeOfEvent(event)
	case EventManagerFailed:
		reported.Err = failureOf(event, "manager")
	case EventAlert, EventRecovered:
		reported.Level = C.GoString(C.divvy_alert_level_name(C.divvy_event_alert_level(event)))
		reported.Lasted = time.Duration(C.divvy_event_lasted_ms(event)) * time.Millisecond
	case EventOutage, EventFatal, EventCalculatorFatal:
		reported.Message = C.GoString(C.divvy_event_message(event, nil))
	default:
		calculators := eventOf(from)
		reported.Calculator = &calculators
	}
	return reported
}

func changeOfEvent(event C.divvy_event) AssignmentChange {
	var handle C.divvy_assignment
	if Code(C.divvy_event_assignment(event, &handle, nil, 0)) != codeOk {
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
		slog.Error("divvy: cannot decode an assignment of the library", "error", err)
	}
	return change
}
