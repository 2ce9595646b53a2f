//go:build cgo

package divvy

// #include "bridge.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unsafe"
)

// Store is where a fleet coordinates. Close it when every calculator made with it is closed.
type Store struct {
	handle C.divvy_store
}

// NewMemoryStore makes a store in memory, for trying and tests.
func NewMemoryStore() (*Store, error) {
	if err := abi(); err != nil {
		return nil, err
	}
	var text errorText
	buffer, size := text.at()
	store := &Store{}
	return store, check(C.divvy_store_memory_new(&store.handle, buffer, size), "open", &text)
}

// ConnectNATS connects to a NATS server. Waits until the context is done, 10 s by default.
func ConnectNATS(ctx context.Context, options NATSOptions) (*Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	settings, err := options.settings()
	if err != nil {
		return nil, err
	}
	config, err := newConfig(settings, "connect")
	if err != nil {
		return nil, err
	}
	defer C.divvy_config_free(config)
	store := &Store{}
	err = wait(ctx, "connect", 10*time.Second, func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_go_store_connect(cancel, config, wait, &store.handle, buffer, size)
	})
	if err == nil && ctx.Err() != nil {
		// Connected in the moment that the context was done.
		_ = store.Close()
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	return store, nil
}

// Close ends the store; what uses it then gets ErrUnavailable or ErrNotRunning. A second call does
// nothing. Waits for up to 5 s.
func (s *Store) Close() error {
	if s == nil {
		return nil
	}
	var text errorText
	return check(C.divvy_store_free(s.handle), "close", &text)
}

// Ensure sees to it that a bucket exists; values live for ttl, 0: for ever. Waits until the
// context is done, 10 s by default.
func (s *Store) Ensure(ctx context.Context, bucket Bucket, ttl time.Duration) error {
	return s.ask(ctx, "ensure", func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_go_store_ensure(cancel, s.handle, C.int32_t(bucket), C.int64_t(ttl/time.Millisecond), wait, buffer, size)
	})
}

// Put writes a value. Waits until the context is done, 10 s by default; whether the value was written
// is not known then, unless the error's Message says that nothing was.
func (s *Store) Put(ctx context.Context, bucket Bucket, key string, value []byte) (err error) {
	data := (*C.char)(unsafe.Pointer(unsafe.SliceData(value))) // copied by the call
	cText(key, func(key *C.char) {
		err = s.ask(ctx, "put", func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
			return C.divvy_go_store_put(cancel, s.handle, C.int32_t(bucket), key, data, C.size_t(len(value)), wait, buffer, size)
		})
	})
	return err
}

// Delete deletes a key, leaving a marker; of a heartbeat it is the announcement of a leave. Waits
// as Put does.
func (s *Store) Delete(ctx context.Context, bucket Bucket, key string) (err error) {
	cText(key, func(key *C.char) {
		err = s.ask(ctx, "delete", func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
			return C.divvy_go_store_delete(cancel, s.handle, C.int32_t(bucket), key, wait, buffer, size)
		})
	})
	return err
}

// Get reads a value; ErrNotFound when there is none. Waits until the context is done, 10 s by
// default.
func (s *Store) Get(ctx context.Context, bucket Bucket, key string) ([]byte, error) {
	var out C.divvy_text
	var err error
	cText(key, func(key *C.char) {
		err = s.ask(ctx, "get", func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
			return C.divvy_go_store_get(cancel, s.handle, C.int32_t(bucket), key, wait, &out, buffer, size)
		})
	})
	if err != nil {
		return nil, err
	}
	return takeText(out), nil
}

// ask makes a call of the library that waits; nothing of it goes on when this returns.
func (s *Store) ask(ctx context.Context, op string, call waitingCall) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return wait(ctx, op, 10*time.Second, call)
}

// takeText copies a text of the library and frees it.
func takeText(text C.divvy_text) []byte {
	defer C.divvy_text_free(text)
	var length C.size_t
	data := C.divvy_text_data(text, &length)
	return bytesOf(data, length)
}

// bytesOf copies a text of the library.
func bytesOf(data *C.char, length C.size_t) []byte {
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(data)), int(length))...)
}

// wait makes a call of the library that waits, and returns when it does: when it is done, when the
// context is, or after that time when the context has no deadline. Nothing of the call goes on then.
func wait(ctx context.Context, op string, standard time.Duration, call waitingCall) error {
	cancel, err := newCancel(op)
	if err != nil {
		return err
	}
	defer C.divvy_cancel_free(cancel)
	return ended(ctx, waitWith(ctx, op, standard, cancel, call, nil))
}

func newCancel(op string) (cancel C.divvy_cancel, err error) {
	var text errorText
	buffer, size := text.at()
	err = check(C.divvy_cancel_new(&cancel, buffer, size), op, &text)
	return cancel, err
}

// What the library promises to take beyond its time at most.
const overtime = 50 * time.Millisecond

// waitWith makes that call; when the context is done before, cancel is fired and early, if any, is
// called. At a deadline the library ends the call by itself: it tells why nothing came of it.
func waitWith(
	ctx context.Context, op string, standard time.Duration, cancel C.divvy_cancel, call waitingCall, early func(),
) error {
	var text errorText
	buffer, size := text.at()
	returned, fired := make(chan struct{}), make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(fired)
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			select {
			case <-returned:
				return
			case <-time.After(overtime):
			}
		}
		// First, so that what the host's code does when it is told does not count as an answer.
		C.divvy_cancel_fire(cancel, nil, 0)
		if early != nil {
			early()
		}
	})
	status := call(cancel, timeout(ctx, standard), buffer, size)
	close(returned)
	if !stop() {
		<-fired
	}
	return check(status, op, &text)
}

// ended tells what a call ended with; where the context cut it short, errors.Is tells that, too. The
// library may have noticed the deadline a moment before the context did.
func ended(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if cause := ctx.Err(); cause != nil {
		return fmt.Errorf("%w: %w", cause, err)
	}
	if deadline, limited := ctx.Deadline(); limited && (errors.Is(err, ErrTimedOut) || !time.Now().Before(deadline)) {
		return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	return err
}
