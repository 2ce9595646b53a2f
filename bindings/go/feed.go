//go:build cgo

package divvy

// #include "bridge.h"
import "C"

import (
	"os"
	"sync"
	"syscall"
	"time"
)

// feed reads the events of a calculator or manager, one after the other.
type feed struct {
	owner     *lifetime
	handle    C.divvy_events
	done      chan struct{}
	file      *os.File
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
	var fd C.int
	err := check(C.divvy_events_fd(feed.handle, &fd, buffer, size), "subscribe", &text)
	if err == nil {
		// A descriptor of our own, that the runtime may watch and close.
		var own int
		if own, err = syscall.Dup(int(fd)); err == nil {
			syscall.CloseOnExec(own)
			feed.file = os.NewFile(uintptr(own), "divvy events")
		}
	}
	if err != nil {
		C.divvy_events_free(feed.handle)
		return nil, err
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.feeds[feed] = struct{}{}
	return feed, nil
}

// pump has a channel deliver what pick makes of the events, until there are no more.
func pump[E any](f *feed, pick func(C.divvy_event) (E, bool)) <-chan E {
	picked := make(chan E)
	go func() {
		defer close(picked)
		f.run(func(event C.divvy_event) bool {
			value, isWanted := pick(event)
			if !isWanted {
				return true
			}
			select {
			case picked <- value:
				return true
			case <-f.done:
				return false
			}
		})
	}()
	return picked
}

// Cancel ends the subscription and closes its channel; more calls do nothing.
func (f *feed) Cancel() {
	f.cancelled.Do(func() {
		close(f.done)
		// Whoever waits for the descriptor is woken.
		_ = f.file.SetReadDeadline(time.Unix(1, 0))
	})
	<-f.finished
}

// Err is why the channel was closed: nil when it was cancelled or what it is about was stopped,
// ErrLagged when the reader was too slow.
func (f *feed) Err() error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.err
}

// run takes events out until there are no more, or deliver says so.
func (f *feed) run(deliver func(C.divvy_event) bool) {
	defer func() {
		C.divvy_events_free(f.handle)
		_ = f.file.Close()
		f.owner.mutex.Lock()
		delete(f.owner.feeds, f)
		f.owner.mutex.Unlock()
		close(f.finished)
	}()
	raw, err := f.file.SyscallConn()
	if err != nil {
		f.fail(err)
		return
	}
	isOver := false
	for !isOver {
		// The runtime waits for the descriptor whenever there is nothing to take.
		err = raw.Read(func(uintptr) bool {
			switch status := f.take(deliver, &isOver); status {
			case codeOK:
				return true
			case codeTimedOut, codeWoken:
				return false
			default:
				isOver = true
				if status != codeClosed {
					f.fail(&Error{Code: status, Op: "poll", Message: "the events cannot be read"})
				}
				return true
			}
		})
		if err != nil {
			return // cancelled
		}
	}
}

// take delivers the next event, if there is one.
func (f *feed) take(deliver func(C.divvy_event) bool, isOver *bool) Code {
	var event C.divvy_event
	status := Code(C.divvy_events_poll(f.handle, 0, &event, nil, 0))
	if status != codeOK {
		return status
	}
	defer C.divvy_event_free(event)
	if EventKind(C.divvy_event_kind(event)) == EventLagged {
		f.fail(ErrLagged)
		return status
	}
	*isOver = !deliver(event)
	return status
}

func (f *feed) fail(err error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.err = err
}

// failureOf reads what an event says of a failure.
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
