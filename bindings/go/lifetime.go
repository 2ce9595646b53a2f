//go:build cgo

package divvy

// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"context"
	"errors"
	"io"
	"runtime/cgo"
	"sync"
	"time"
	"unsafe"
)

// lifetime is the common part of calculators and managers: start, stop and close.
type lifetime struct {
	host      *host
	isStarted func() bool
	startCall waitingCall
	stopCall  waitingCall
	freeCall  func(buffer *C.char, size C.size_t) C.divvy_status

	mutex sync.Mutex
	// Cancels the context of the host's callbacks, which lasts from a start to the next stop.
	cancel context.CancelFunc
	feeds  map[*feed]struct{}
	// Cancels blocked calls.
	waits    map[C.divvy_cancel]struct{}
	isClosed bool
}

// waitingCall is a blocking function of the library with a timeout in milliseconds and a
// cancellation handle.
type waitingCall func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status

// prepare creates the library's configuration with the host's callbacks; the caller frees it.
func (l *lifetime) prepare(config *Config, settings map[string]string, election LeaderElection) (made C.divvy_config, err error) {
	l.host = &host{
		source: config.Source, strategy: config.Strategy, election: election,
		ctx: context.Background(), inside: map[C.uintptr_t]int{},
	}
	l.feeds = map[*feed]struct{}{}
	l.waits = map[C.divvy_cancel]struct{}{}
	made, err = newConfig(settings, "new")
	if err != nil {
		return made, err
	}
	defer func() {
		if err != nil {
			C.divvy_config_free(made)
		}
	}()
	if config.Logger != nil {
		if err := SetLogger(config.Logger); err != nil {
			return made, err
		}
	}
	var text errorText
	buffer, size := text.at()
	set := func(isWanted bool, call func(handle C.uintptr_t) C.divvy_status) error {
		if !isWanted {
			return nil
		}
		handle := cgo.NewHandle(l.host)
		err := check(call(C.uintptr_t(handle)), "new", &text)
		if err != nil {
			handle.Delete()
		}
		return err
	}
	name := C.CString("go")
	defer C.free(unsafe.Pointer(name))
	return made, errors.Join(
		set(config.Source != nil, func(handle C.uintptr_t) C.divvy_status {
			return C.divvy_go_set_source(made, handle, buffer, size)
		}),
		set(config.Strategy != nil, func(handle C.uintptr_t) C.divvy_status {
			return C.divvy_go_set_strategy(made, name, handle, buffer, size)
		}),
		set(election != nil, func(handle C.uintptr_t) C.divvy_status {
			return C.divvy_go_set_election(made, handle, buffer, size)
		}),
	)
}

// begin starts the handle. attend subscribes the internal listeners and returns a function that
// undoes it when the start fails.
func (l *lifetime) begin(ctx context.Context, attend func() (undo func())) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if l.isStarted() {
		return &Error{Code: codeAlreadyStarted, Op: "start", Message: "it is started"}
	}
	hostContext, cancel := context.WithCancel(context.Background())
	l.mutex.Lock()
	l.cancel = cancel
	l.mutex.Unlock()
	l.host.mutex.Lock()
	l.host.ctx = hostContext
	l.host.mutex.Unlock()
	undo := attend()
	err := l.wait(ctx, "start", 30*time.Second, l.startCall, cancel)
	if err == nil && ctx.Err() != nil {
		// The context ended while the start succeeded: stop again.
		soon, done := context.WithTimeout(context.Background(), time.Second)
		defer done()
		_ = l.end(soon, l.stopCall)
		return ctx.Err() // the stop ended the listeners
	}
	if err != nil {
		if !errors.Is(err, ErrAlreadyStarted) {
			cancel()
		}
		undo() // a failed start keeps the other subscriptions for the next one
	}
	return l.host.cause(err)
}

// end stops the handle with that call. If the context has ended, the stop is requested and not
// awaited.
func (l *lifetime) end(ctx context.Context, call waitingCall) error {
	if err := l.host.refuse("stop"); err != nil {
		return err
	}
	l.endCallbacks()
	return l.wait(ctx, "stop", 10*time.Second, call, nil)
}

// wait makes a blocking call. It returns when the call completes, when the context ends (then it
// calls early), after the default time without a deadline, or on Close. The call is then abandoned.
func (l *lifetime) wait(ctx context.Context, op string, standard time.Duration, call waitingCall, early func()) error {
	cancel, err := newCancel(op)
	if err != nil {
		return err
	}
	defer C.divvy_cancel_free(cancel)
	l.mutex.Lock()
	l.waits[cancel] = struct{}{}
	l.mutex.Unlock()
	err = waitWith(ctx, op, standard, cancel, call, early)
	l.mutex.Lock()
	defer l.mutex.Unlock()
	delete(l.waits, cancel)
	if l.isClosed && errors.Is(err, ErrCancelled) && ctx.Err() == nil {
		return &Error{Code: codeBadHandle, Op: op, Message: "closed meanwhile"}
	}
	return ended(ctx, err)
}

// endCallbacks cancels the context of the host's callbacks and returns whether the handle is
// closed.
func (l *lifetime) endCallbacks() bool {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.cancel != nil {
		l.cancel()
	}
	return l.isClosed
}

// close stops and frees the handle and ends its subscriptions.
func (l *lifetime) close() error {
	if err := l.host.refuse("close"); err != nil {
		return err
	}
	if l.endCallbacks() {
		return nil
	}
	var text errorText
	buffer, size := text.at()
	if err := check(l.freeCall(buffer, size), "close", &text); err != nil && !errors.Is(err, ErrClosed) {
		return err
	}
	l.mutex.Lock()
	l.isClosed = true
	feeds := make([]*feed, 0, len(l.feeds))
	for feed := range l.feeds {
		feeds = append(feeds, feed)
	}
	for cancel := range l.waits {
		C.divvy_cancel_fire(cancel, nil, 0)
	}
	l.mutex.Unlock()
	for _, feed := range feeds {
		feed.Cancel()
	}
	return nil
}

// ask makes a blocking call that may run the host's callbacks.
func (l *lifetime) ask(ctx context.Context, op string, call waitingCall) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return l.host.cause(l.wait(ctx, op, 30*time.Second, call, nil))
}

// withPartitions passes a list to the library.
func withPartitions(
	partitions []Partition, use func(list C.divvy_partitions, buffer *C.char, size C.size_t) C.divvy_status,
) error {
	var list C.divvy_partitions
	var text errorText
	buffer, size := text.at()
	if err := check(C.divvy_partitions_new(&list, buffer, size), "set partitions", &text); err != nil {
		return err
	}
	defer C.divvy_partitions_free(list)
	if err := addPartitions(list, partitions); err != nil {
		return err
	}
	return check(use(list, buffer, size), "set partitions", &text)
}

// writePage writes a page of metrics of the library.
func writePage(w io.Writer, call func(out *C.divvy_text, buffer *C.char, size C.size_t) C.divvy_status) error {
	page, err := readText("metrics", call)
	if err != nil {
		return err
	}
	_, err = w.Write(page)
	return err
}

// readText reads a text of the library.
func readText(op string, call func(out *C.divvy_text, buffer *C.char, size C.size_t) C.divvy_status) ([]byte, error) {
	var out C.divvy_text
	var text errorText
	buffer, size := text.at()
	if err := check(call(&out, buffer, size), op, &text); err != nil {
		return nil, err
	}
	return takeText(out), nil
}
