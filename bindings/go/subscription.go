//go:build cgo

package divvy

// #include "bridge.h"
import "C"

import (
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Subscription delivers the current state and then every event, in order, none left out. A reader
// may be slow: 65 536 events are kept for it. When there are more, it is closed after those.
type Subscription struct {
	// C delivers the events. It is closed after the last one, see Err.
	C <-chan Event

	calculator *Calculator
	handle     C.divvy_events
	done       chan struct{}
	file       *os.File
	cancelled  sync.Once
	finished   chan struct{}
	mutex      sync.Mutex
	err        error
}

// Subscribe begins a subscription to all events. It ends with the calculator's stop, after what is
// in its backlog, or with Cancel.
func (c *Calculator) Subscribe() (*Subscription, error) {
	events := make(chan Event)
	subscription, err := c.subscribe()
	if err != nil {
		return nil, err
	}
	subscription.C = events
	go func() {
		defer close(events)
		subscription.run(func(event Event) bool {
			if event.Kind == EventLagged {
				return true
			}
			select {
			case events <- event:
				return true
			case <-subscription.done:
				return false
			}
		})
	}()
	return subscription, nil
}

// SubscribeToStateChanges delivers the current state and then every later one, in order, none left
// out. The function ends the subscription and closes the channel; more calls of it do nothing. The
// channel is closed, too, when the calculator was stopped, after what is in the backlog, and when a
// reader was so slow that 65 536 events waited for it. On a calculator that is closed the channel is
// closed from the beginning.
func (c *Calculator) SubscribeToStateChanges() (<-chan CalculatorState, func()) {
	states := make(chan CalculatorState)
	subscription, err := c.subscribe()
	if err != nil {
		close(states)
		return states, func() {}
	}
	go func() {
		defer close(states)
		subscription.run(func(event Event) bool {
			if event.Kind != EventState {
				return true
			}
			select {
			case states <- event.State:
				return true
			case <-subscription.done:
				return false
			}
		})
	}()
	return states, subscription.Cancel
}

func (c *Calculator) subscribe() (*Subscription, error) {
	defer runtime.KeepAlive(c)
	subscription := &Subscription{calculator: c, done: make(chan struct{}), finished: make(chan struct{})}
	var text errorText
	buffer, size := text.at()
	status := C.divvy_calculator_events(c.handle, C.DIVVY_INTEREST_STATE_AND_MEMBERS, &subscription.handle, buffer, size)
	if err := check(status, "subscribe", &text); err != nil {
		return nil, err
	}
	var fd C.int
	err := check(C.divvy_events_fd(subscription.handle, &fd, buffer, size), "subscribe", &text)
	if err == nil {
		// A descriptor of our own, that the runtime may watch and close.
		var own int
		if own, err = syscall.Dup(int(fd)); err == nil {
			syscall.CloseOnExec(own)
			subscription.file = os.NewFile(uintptr(own), "divvy events")
		}
	}
	if err != nil {
		C.divvy_events_free(subscription.handle)
		return nil, err
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.subscriptions[subscription] = struct{}{}
	return subscription, nil
}

// Cancel ends the subscription and closes its channel; more calls do nothing.
func (s *Subscription) Cancel() {
	s.cancelled.Do(func() {
		close(s.done)
		// Whoever waits for the descriptor is woken.
		_ = s.file.SetReadDeadline(time.Unix(1, 0))
	})
	<-s.finished
}

// Err is why the channel was closed: nil when it was cancelled or the calculator was stopped,
// ErrLagged when the reader was too slow.
func (s *Subscription) Err() error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.err
}

// run takes events out until there are no more, or deliver says so.
func (s *Subscription) run(deliver func(Event) bool) {
	defer func() {
		C.divvy_events_free(s.handle)
		_ = s.file.Close()
		s.calculator.mutex.Lock()
		delete(s.calculator.subscriptions, s)
		s.calculator.mutex.Unlock()
		close(s.finished)
	}()
	raw, err := s.file.SyscallConn()
	if err != nil {
		s.fail(err)
		return
	}
	isOver := false
	for !isOver {
		// The runtime waits for the descriptor whenever there is nothing to take.
		err = raw.Read(func(uintptr) bool {
			event, status := s.poll()
			switch status {
			case codeOK:
				isOver = !deliver(event)
				return true
			case codeTimedOut, codeWoken:
				return false
			default:
				isOver = true
				if status != codeClosed {
					s.fail(&Error{Code: status, Op: "poll", Message: "the events cannot be read"})
				}
				return true
			}
		})
		if err != nil {
			return // cancelled
		}
	}
}

func (s *Subscription) fail(err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.err = err
}

// poll takes the next event, if there is one.
func (s *Subscription) poll() (Event, Code) {
	var event C.divvy_event
	status := Code(C.divvy_events_poll(s.handle, 0, &event, nil, 0))
	if status != codeOK {
		return Event{}, status
	}
	defer C.divvy_event_free(event)
	told := Event{
		Kind:    EventKind(C.divvy_event_kind(event)),
		Version: int64(C.divvy_event_version(event)),
		Time:    time.Duration(C.divvy_event_time_ns(event)),
		Reason:  reasonOf(C.divvy_event_reason(event)),
	}
	switch told.Kind {
	case EventState:
		told.State = stateOf(C.divvy_event_state(event))
		told.From = stateOf(C.divvy_event_from_state(event))
	case EventMember:
		told.Worker = C.GoString(C.divvy_event_worker(event, nil))
		told.Change = C.GoString(C.divvy_member_change_name(C.divvy_event_member_change(event)))
	case EventWorkerLagging:
		told.Worker = C.GoString(C.divvy_event_worker(event, nil))
		told.AppliedVersion = int64(C.divvy_event_applied_version(event))
		told.Message = C.GoString(C.divvy_event_message(event, nil))
	case EventPublished, EventWouldPublish, EventLeaderPublished:
		told.Message = C.GoString(C.divvy_event_message(event, nil))
		told.Workers = int(C.divvy_event_worker_count(event))
		told.Partitions = int(C.divvy_event_partition_count(event))
		told.Moved = int(C.divvy_event_moved_count(event))
	case EventFailed:
		status := C.divvy_event_status(event)
		told.Err = &Error{
			Code: Code(status), Op: "rebalance", Message: C.GoString(C.divvy_event_message(event, nil)),
			Retriable: C.divvy_status_is_retriable(status) == 1,
		}
	case EventDegraded, EventBreaker, EventFatal:
		told.Message = C.GoString(C.divvy_event_message(event, nil))
	case EventLagged:
		s.fail(ErrLagged)
	}
	return told, codeOK
}

// record has the calculator's metrics, if any, told of every event, until its next stop.
func (c *Calculator) record() *Subscription {
	if c.metrics == nil {
		return nil
	}
	subscription, err := c.Subscribe()
	if err != nil {
		return nil
	}
	go func() {
		var since time.Duration
		var reason string
		assignments, _ := c.metrics.(AssignmentMetrics)
		for event := range subscription.C {
			switch event.Kind {
			case EventState:
				if event.From != event.State {
					seconds := (event.Time - since).Seconds()
					c.metrics.RecordStateTransition(event.From, event.State, seconds)
					if event.From == CalculatorStateRebalancing || event.From == CalculatorStateEmergency {
						c.metrics.RecordRebalanceDuration(seconds, reason)
					}
				}
				since, reason = event.Time, event.Reason
			case EventPublished:
				c.metrics.RecordRebalanceAttempt(event.Reason, true)
				c.metrics.RecordPartitionCount(event.Partitions)
				c.metrics.RecordActiveWorkers(event.Workers)
				if assignments != nil {
					assignments.RecordPublication(event.Version, event.Workers, event.Partitions, event.Moved)
				}
				if event.Reason == "emergency" {
					c.metrics.RecordEmergencyRebalance(event.Workers)
				}
			case EventFailed:
				c.metrics.RecordRebalanceAttempt(event.Reason, false)
			case EventMember:
				switch event.Change {
				case "joined", "back":
					c.metrics.RecordWorkerChange(1, 0)
				case "left", "lost":
					c.metrics.RecordWorkerChange(0, 1)
				}
			}
		}
	}()
	return subscription
}
