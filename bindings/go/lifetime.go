//go:build cgo

package divvy

// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"context"
	"errors"
	"runtime/cgo"
	"sync"
	"time"
	"unsafe"
)

// lifetime is what calculators and managers have in common: a start that a context can end, a stop, and
// an end. The functions call the library.
type lifetime struct {
	host      *host
	isStarted func() bool
	startCall waitingCall
	stopCall  waitingCall
	freeCall  func(buffer *C.char, size C.size_t) C.divvy_status

	mutex sync.Mutex
	// Ends the context of the host's callbacks, from a start to the next stop.
	cancel   context.CancelFunc
	feeds    map[*feed]struct{}
	isClosed bool
}

// waitingCall is a function of the library that waits for up to so many milliseconds.
type waitingCall func(wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status

// prepare makes the library's configuration, with the host's callbacks in it; the caller frees it.
func (l *lifetime) prepare(config *Config, settings map[string]string, election LeaderElection) (made C.divvy_config, err error) {
	l.host = &host{source: config.Source, strategy: config.Strategy, election: election, ctx: context.Background()}
	l.feeds = map[*feed]struct{}{}
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

// begin starts it. attend has whoever listens from a start to the next stop subscribed, and returns
// how that is undone when the start fails.
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
	// A start ends at once when it is stopped.
	abort := context.AfterFunc(ctx, func() { _ = l.stop(time.Second, l.stopCall) })
	var text errorText
	buffer, size := text.at()
	err := check(l.startCall(timeout(ctx, 30*time.Second), buffer, size), "start", &text)
	wasAborted := !abort()
	switch {
	case wasAborted && err == nil:
		// Started in the moment that the context was done: nothing is left behind.
		_ = l.stop(time.Second, l.stopCall)
		return ctx.Err() // those who listen got their end with the stop
	case err != nil && !errors.Is(err, ErrAlreadyStarted):
		cancel()
	}
	if err != nil {
		undo() // a start that failed leaves the other subscriptions for the next one
	}
	return ended(ctx, l.host.cause(err))
}

// end stops it with that call.
func (l *lifetime) end(ctx context.Context, call waitingCall) error {
	// With the context done there is still a stop to be asked for.
	done := make(chan error, 1)
	wait := time.Duration(timeout(ctx, 10*time.Second)) * time.Millisecond
	go func() { done <- l.stop(wait, call) }()
	select {
	case err := <-done:
		return ended(ctx, err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *lifetime) stop(wait time.Duration, call waitingCall) error {
	l.endCallbacks()
	var text errorText
	buffer, size := text.at()
	return check(call(C.int64_t(wait/time.Millisecond), buffer, size), "stop", &text)
}

// endCallbacks ends the context of the host's callbacks; whether it is closed already.
func (l *lifetime) endCallbacks() bool {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.cancel != nil {
		l.cancel()
	}
	return l.isClosed
}

// close stops and frees it, and ends its subscriptions whether they are read or not.
func (l *lifetime) close() error {
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
	l.mutex.Unlock()
	for _, feed := range feeds {
		feed.Cancel()
	}
	return nil
}

// ask has the library do something that may concern the host's callbacks.
func (l *lifetime) ask(ctx context.Context, op string, call waitingCall) error {
	return await(ctx, func() error {
		var text errorText
		buffer, size := text.at()
		return l.host.cause(check(call(timeout(ctx, 30*time.Second), buffer, size), op, &text))
	}, nil)
}

// withPartitions hands a list to the library.
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

// readText reads a text that the library makes.
func readText(op string, call func(out *C.divvy_text, buffer *C.char, size C.size_t) C.divvy_status) ([]byte, error) {
	var out C.divvy_text
	var text errorText
	buffer, size := text.at()
	if err := check(call(&out, buffer, size), op, &text); err != nil {
		return nil, err
	}
	return takeText(out), nil
}
