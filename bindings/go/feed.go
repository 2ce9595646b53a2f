//go:build cgo

package divvy

// #include "bridge.h"
import "C"

import (
	"runtime"
	"sync"
)

// feed reads the events of a calculator or manager in order.
//
// Its goroutine blocks inside the library on an OS thread. When the call returns, the goroutine
// gets a processor at once, even from another blocked call. Woken by the runtime's poller it would
// wait for the runtime's monitor: up to 200 us with two processors.
type feed struct {
	owner     *lifetime
	handle    C.divvy_events
	keep      C.int // whether states, too, are wanted as events of the library
	done      chan struct{}
	cancelled sync.Once
	finished  chan struct{}
	mutex     sync.Mutex
	err       error
}

// listen opens a feed with a function of the library.
func (l *lifetime) listen(
	open func(out *C.divvy_events, buffer *C.char, size C.size_t) C.divvy_status,
) (*feed, error) {
	feed := &feed{owner: l, done: make(chan struct{}), finished: make(chan struct{})}
	var text errorText
	buffer, size := text.at()
	if err := check(open(&feed.handle, buffer, size), "subscribe", &text); err != nil {
		return nil, err
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.feeds[feed] = struct{}{}
	return feed, nil
}

// pump delivers the picked events on a channel until there are no more.
func pump[E any](f *feed, pick func(*C.divvy_go_event) (E, bool)) <-chan E {
	picked := make(chan E)
	go func() {
		defer close(picked)
		f.run(func(reported *C.divvy_go_event) bool {
			value, isWanted := pick(reported)
			if !isWanted {
				return true
			}
			select {
			case picked <- value:
				// Yield to the reader first: this goroutine keeps its processor when it blocks
				// again.
				runtime.Gosched()
				return true
			case <-f.done:
				return false
			}
		})
	}()
	return picked
}

// Cancel ends the subscription and closes its channel. Further calls do nothing.
func (f *feed) Cancel() {
	f.cancelled.Do(func() {
		close(f.done)
		C.divvy_events_wake(f.handle, nil, 0)
	})
	<-f.finished
}

// Err returns why the channel was closed: nil after Cancel or a stop, ErrLagged if the reader was
// too slow.
func (f *feed) Err() error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.err
}

// run reads events until there are no more or deliver returns false.
func (f *feed) run(deliver func(*C.divvy_go_event) bool) {
	defer func() {
		C.divvy_events_free(f.handle)
		f.owner.mutex.Lock()
		delete(f.owner.feeds, f)
		f.owner.mutex.Unlock()
		close(f.finished)
	}()
	reported := new(C.divvy_go_event)
	for {
		switch status := Code(C.divvy_go_next(f.handle, f.keep, reported)); status {
		case codeOk:
			if !f.hand(reported, deliver) {
				return
			}
		case codeWoken, codeClosed: // cancelled, or over
			return
		default:
			f.fail(&Error{Code: status, Op: "poll", Message: "the events cannot be read"})
			return
		}
	}
}

// hand delivers an event and returns whether more may follow.
func (f *feed) hand(reported *C.divvy_go_event, deliver func(*C.divvy_go_event) bool) bool {
	if reported.event.id != 0 {
		defer C.divvy_event_free(reported.event)
	}
	if EventKind(reported.kind) == EventLagged {
		f.fail(ErrLagged)
		return true // and then it is over
	}
	return deliver(reported)
}

// report logs the failure of the host's code that processed an event.
func (f *feed) report(err error) {
	if err != nil {
		hostText(err, func(message *C.char) {
			C.divvy_events_report_error(f.handle, message, nil, 0)
		})
	}
}

func (f *feed) fail(err error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.err = err
}

// failureOf reads the failure of an event.
func failureOf(event C.divvy_event, op string) error {
	status := C.divvy_event_status(event)
	if known := C.GoString(C.divvy_event_operation(event, nil)); known != "" {
		op = known
	}
	return &Error{
		Code: Code(status), Op: op, Message: C.GoString(C.divvy_event_message(event, nil)),
		Key:       C.GoString(C.divvy_event_key(event, nil)),
		Attempts:  int(C.divvy_event_attempts(event)),
		Retriable: C.divvy_status_is_retriable(status) == 1,
	}
}
