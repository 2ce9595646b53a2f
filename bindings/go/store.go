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
	store := &Store{}
	call := func() error {
		defer C.divvy_config_free(config)
		var text errorText
		buffer, size := text.at()
		status := C.divvy_store_nats_connect(config, timeout(ctx, 10*time.Second), &store.handle, buffer, size)
		return check(status, "connect", &text)
	}
	// What is connected after all, when nobody waits any more, is closed.
	if err := await(ctx, call, func(err error) {
		if err == nil {
			_ = store.Close()
		}
	}); err != nil {
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
	return await(ctx, func() error {
		var text errorText
		buffer, size := text.at()
		status := C.divvy_store_ensure(s.handle, C.int32_t(bucket), C.int64_t(ttl/time.Millisecond),
			timeout(ctx, 10*time.Second), buffer, size)
		return check(status, "ensure", &text)
	}, nil)
}

// Put writes a value. Waits until the context is done, 10 s by default.
func (s *Store) Put(ctx context.Context, bucket Bucket, key string, value []byte) error {
	bytes := append([]byte(nil), value...)
	bytes = append(bytes, 0) // never empty
	return await(ctx, func() (err error) {
		var text errorText
		buffer, size := text.at()
		cText(key, func(key *C.char) {
			status := C.divvy_store_put(s.handle, C.int32_t(bucket), key,
				(*C.char)(unsafe.Pointer(unsafe.SliceData(bytes))), C.size_t(len(value)),
				timeout(ctx, 10*time.Second), buffer, size)
			err = check(status, "put", &text)
		})
		return err
	}, nil)
}

// Delete deletes a key, leaving a marker; of a heartbeat it is the announcement of a leave. Waits
// until the context is done, 10 s by default.
func (s *Store) Delete(ctx context.Context, bucket Bucket, key string) error {
	return await(ctx, func() (err error) {
		var text errorText
		buffer, size := text.at()
		cText(key, func(key *C.char) {
			status := C.divvy_store_delete(s.handle, C.int32_t(bucket), key, timeout(ctx, 10*time.Second),
				buffer, size)
			err = check(status, "delete", &text)
		})
		return err
	}, nil)
}

// Get reads a value; ErrNotFound when there is none. Waits until the context is done, 10 s by
// default.
func (s *Store) Get(ctx context.Context, bucket Bucket, key string) ([]byte, error) {
	var value []byte
	err := await(ctx, func() (err error) {
		var text errorText
		buffer, size := text.at()
		var out C.divvy_text
		cText(key, func(key *C.char) {
			status := C.divvy_store_get(s.handle, C.int32_t(bucket), key, timeout(ctx, 10*time.Second),
				&out, buffer, size)
			err = check(status, "get", &text)
		})
		if err == nil {
			value = takeText(out)
		}
		return err
	}, nil)
	if err != nil {
		return nil, err
	}
	return value, nil
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

// await runs a call of the library and returns when it does, or when the context is done, whatever
// comes first. In the latter case late, if any, is told how the call ended when it does.
func await(ctx context.Context, call func() error, late func(error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if ctx.Done() == nil {
		return call()
	}
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case err := <-done:
		return ended(ctx, err)
	case <-ctx.Done():
		if late != nil {
			go func() { late(<-done) }()
		}
		return ctx.Err()
	}
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
	if _, limited := ctx.Deadline(); limited && errors.Is(err, ErrTimedOut) {
		return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	return err
}
