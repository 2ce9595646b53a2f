//go:build cgo

package divvy

// #include "bridge.h"
import "C"

import (
	"encoding/json"
	"runtime"
	"time"
)

// A Subscription delivers the current state and then every event, in order, without gaps. It keeps
// up to 65 536 events for a slow reader and is closed after those if there are more.
type Subscription struct {
	// C delivers the events. It is closed after the last one; Err returns why.
	C <-chan Event
	*feed
}

// Subscribe subscribes to all events. The subscription ends with Cancel, or after its backlog when
// the calculator stops.
func (c *Calculator) Subscribe() (*Subscription, error) {
	feed, err := c.open()
	if err != nil {
		return nil, err
	}
	return &Subscription{feed: feed, C: pump(feed, func(reported *C.divvy_go_event) (Event, bool) {
		return eventOf(reported), true
	})}, nil
}

// JSONSubscription delivers every event in its JSON form, see docs/events.md: the same as that of
// `divvy worker --json`.
type JSONSubscription struct {
	// C delivers the events. It is closed after the last one, see Err.
	C <-chan json.RawMessage
	*feed
}

// SubscribeJSON begins a subscription as Subscribe does.
func (c *Calculator) SubscribeJSON() (*JSONSubscription, error) { return jsonOf(c.open()) }

// SubscribeJSON begins a subscription as Subscribe does.
func (m *Manager) SubscribeJSON() (*JSONSubscription, error) {
	return jsonOf(m.open(C.DIVVY_MANAGER_FILTER_WORKER_AND_CALCULATOR))
}

func jsonOf(feed *feed, err error) (*JSONSubscription, error) {
	if err != nil {
		return nil, err
	}
	feed.keep = 1
	return &JSONSubscription{feed: feed, C: pump(feed, func(reported *C.divvy_go_event) (json.RawMessage, bool) {
		var length C.size_t
		text := C.divvy_event_json(reported.event, &length)
		return bytesOf(text, length), true
	})}, nil
}

// SubscribeToStateChanges delivers the current state and then every later one, in order, without
// gaps. The returned function ends the subscription and closes the channel; further calls do
// nothing. The channel is also closed after the backlog when the calculator stops, and when the
// reader falls 65 536 events behind. On a closed calculator the channel is closed from the start.
func (c *Calculator) SubscribeToStateChanges() (<-chan CalculatorState, func()) {
	feed, err := c.open()
	if err != nil {
		states := make(chan CalculatorState)
		close(states)
		return states, func() {}
	}
	return pump(feed, func(reported *C.divvy_go_event) (CalculatorState, bool) {
		return stateOf(reported.state), EventKind(reported.kind) == EventCalculatorState
	}), feed.Cancel
}

func (c *Calculator) open() (*feed, error) {
	defer runtime.KeepAlive(c)
	return c.listen(func(out *C.divvy_events, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_calculator_events(c.handle, C.DIVVY_FILTER_STATE_AND_MEMBERS, out, buffer, size)
	})
}

// eventOf reads an event of a calculator.
func eventOf(from *C.divvy_go_event) Event {
	event := from.event
	reported := Event{
		Kind:    EventKind(from.kind),
		Version: int64(from.version),
		Time:    time.Duration(from.time_ns),
		Reason:  reasonOf(from.reason),
	}
	switch reported.Kind {
	case EventCalculatorState:
		reported.State = stateOf(from.state)
		reported.From = stateOf(from.from_state)
	case EventMember:
		reported.Worker = C.GoString(C.divvy_event_worker(event, nil))
		reported.Change = C.GoString(C.divvy_member_change_name(C.divvy_event_member_change(event)))
	case EventWorkerLagging:
		reported.Worker = C.GoString(C.divvy_event_worker(event, nil))
		reported.AppliedVersion = int64(C.divvy_event_applied_version(event))
		reported.Message = C.GoString(C.divvy_event_message(event, nil))
	case EventListHeld:
		reported.Partitions = int(C.divvy_event_partition_count(event))
		reported.Message = C.GoString(C.divvy_event_message(event, nil))
	case EventConfigMismatch:
		reported.Worker = C.GoString(C.divvy_event_worker(event, nil))
		reported.Message = C.GoString(C.divvy_event_message(event, nil))
	case EventMalformed:
		reported.Bucket = Bucket(C.divvy_event_bucket(event))
		reported.Key = C.GoString(C.divvy_event_key(event, nil))
		reported.Value = C.GoString(C.divvy_event_value(event, nil))
		reported.Message = C.GoString(C.divvy_event_message(event, nil))
	case EventAssignmentLimit:
		reported.Partitions = int(C.divvy_event_partition_count(event))
		reported.Message = C.GoString(C.divvy_event_message(event, nil))
	case EventPublished, EventWouldPublish, EventLeaderPublished:
		reported.Message = C.GoString(C.divvy_event_message(event, nil))
		reported.Workers = int(C.divvy_event_worker_count(event))
		reported.Partitions = int(C.divvy_event_partition_count(event))
		reported.Moved = int(C.divvy_event_moved_count(event))
	case EventFailed:
		reported.Err = failureOf(event, "rebalance")
	case EventDegraded, EventBreaker, EventFatal:
		reported.Message = C.GoString(C.divvy_event_message(event, nil))
	}
	return reported
}

// record passes every event to the calculator's metrics, if any, until the next stop.
func (c *Calculator) record() *Subscription {
	if c.metrics == nil {
		return nil
	}
	subscription, err := c.Subscribe()
	if err != nil {
		return nil
	}
	recorder := metricsRecorder{metrics: c.metrics, workers: -1}
	go func() {
		for event := range subscription.C {
			recorder.note(event)
		}
	}()
	return subscription
}

// metricsRecorder passes calculator events to metrics.
type metricsRecorder struct {
	metrics CalculatorMetrics
	since   time.Duration
	reason  string
	// Whether the rebalance that runs has published its plan.
	hasPublished bool
	// Workers of the plan last published that are alive; negative before the first publication.
	workers int
	// Workers declared dead that no rebalance began for.
	dead int
}

func (r *metricsRecorder) note(event Event) {
	switch event.Kind {
	case EventCalculatorState:
		if event.From != event.State {
			seconds := (event.Time - r.since).Seconds()
			r.metrics.RecordStateTransition(event.From, event.State, seconds)
			if r.hasPublished {
				r.metrics.RecordRebalanceDuration(seconds, r.reason)
			}
			r.rebalanceBegins(event.State)
		}
		r.since, r.reason, r.hasPublished = event.Time, event.Reason, false
	case EventPublished:
		r.metrics.RecordRebalanceAttempt(event.Reason, true)
		r.hasPublished, r.workers = true, event.Workers
		r.metrics.RecordPartitionCount(event.Partitions)
		r.metrics.RecordActiveWorkers(event.Workers)
		if assignments, isWanted := r.metrics.(AssignmentMetrics); isWanted {
			assignments.RecordPublication(event.Version, event.Workers, event.Partitions, event.Moved)
		}
	case EventFailed:
		r.metrics.RecordRebalanceAttempt(event.Reason, false)
	case EventMember:
		switch event.Change {
		case "joined":
			r.workerChanged(1)
		case "left":
			r.workerChanged(-1)
		case "dead":
			r.dead++
			r.workerChanged(-1)
		}
	}
}

// rebalanceBegins counts an emergency once: a repeated attempt has no worker that is dead since.
func (r *metricsRecorder) rebalanceBegins(state CalculatorState) {
	switch state {
	case CalculatorStateEmergency:
		if r.dead > 0 {
			r.metrics.RecordEmergencyRebalance(r.dead)
		}
	case CalculatorStateRebalancing: // many at once are a restart, and no emergency
	default:
		return
	}
	r.dead = 0
}

func (r *metricsRecorder) workerChanged(by int) {
	r.metrics.RecordWorkerChange(max(by, 0), max(-by, 0))
	if r.workers >= 0 {
		r.workers += by
		r.metrics.RecordActiveWorkers(r.workers)
	}
}
