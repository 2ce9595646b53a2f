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

// A Store is the key-value store of a fleet. Close it after every calculator and manager created
// with it.
type Store struct {
	handle C.divvy_store
	// Cancels the context of the credentials callback; nil without one.
	cancel context.CancelFunc
	// cacheFile is the default of managers on this store.
	cacheFile string
}

// NewMemoryStore creates an in-memory store, for tests and demos.
func NewMemoryStore() (*Store, error) {
	return openStore(context.Background(), map[string]string{"store": "memory"}, "open", nil)
}

// ConnectNATS connects to NATS and reconnects until Close. It waits until the context ends, 10 s by
// default.
func ConnectNATS(ctx context.Context, options NATSOptions) (*Store, error) {
	settings, err := options.settings()
	if err != nil {
		return nil, err
	}
	if options.Credentials == nil {
		return openStore(ctx, settings, "connect", nil)
	}
	sourceContext, cancel := context.WithCancel(context.Background())
	// A callback must not outlive the wait for the first connection.
	isOpen := context.AfterFunc(ctx, cancel)
	store, err := openStore(ctx, settings, "connect", &credentialSource{sourceContext, options.Credentials})
	if !isOpen() && err == nil {
		_ = store.Close()
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	store.cancel = cancel
	return store, nil
}

// openStore opens the store that the setting "store" names.
func openStore(
	ctx context.Context, settings map[string]string, op string, credentials *credentialSource,
) (*Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	config, err := newConfig(settings, op)
	if err != nil {
		return nil, err
	}
	defer C.divvy_config_free(config)
	if credentials != nil {
		if err := credentials.register(config, op); err != nil {
			return nil, err
		}
	}
	store := &Store{cacheFile: settings["cache_file"]}
	err = wait(ctx, op, 10*time.Second, func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_go_store_open(cancel, config, wait, &store.handle, buffer, size)
	})
	if err == nil && ctx.Err() != nil {
		// The context ended while the connection succeeded.
		_ = store.Close()
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	return store, nil
}

// Close closes the store. Handles that still use it get ErrUnavailable or ErrNotRunning. A second
// call does nothing. It waits at most 5 s.
func (s *Store) Close() error {
	if s == nil {
		return nil
	}
	if s.cancel != nil {
		s.cancel()
	}
	var text errorText
	return check(C.divvy_store_free(s.handle), "close", &text)
}

// Ensure creates a bucket unless it exists. Values of a new bucket expire after ttl; 0: never. It
// waits until the context ends, 10 s by default.
func (s *Store) Ensure(ctx context.Context, bucket Bucket, ttl time.Duration) error {
	return s.ask(ctx, "ensure", func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_go_store_ensure(cancel, s.handle, C.int32_t(bucket), C.int64_t(ttl/time.Millisecond), wait, buffer, size)
	})
}

// Put writes a value. It waits until the context ends, 10 s by default. The value may then have
// been written, unless the error's Message says otherwise.
func (s *Store) Put(ctx context.Context, bucket Bucket, key string, value []byte) (err error) {
	data := (*C.char)(unsafe.Pointer(unsafe.SliceData(value))) // copied by the call
	cText(key, func(key *C.char) {
		err = s.ask(ctx, "put", func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
			return C.divvy_go_store_put(cancel, s.handle, C.int32_t(bucket), key, data, C.size_t(len(value)), wait, buffer, size)
		})
	})
	return err
}

// Delete deletes a key and leaves a marker. Deleting a heartbeat announces a leave. It waits until
// the context ends, 10 s by default.
func (s *Store) Delete(ctx context.Context, bucket Bucket, key string) (err error) {
	cText(key, func(key *C.char) {
		err = s.ask(ctx, "delete", func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
			return C.divvy_go_store_delete(cancel, s.handle, C.int32_t(bucket), key, wait, buffer, size)
		})
	})
	return err
}

// Get reads a value; ErrNotFound if there is none. It waits until the context ends, 10 s by
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

// ask makes a blocking call of the library. The call has ended when ask returns.
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

// wait makes a blocking call. It returns when the call completes, when the context ends, or after
// the default time without a deadline. The call is then abandoned.
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

// The library returns at most this long after its timeout.
const overtime = 50 * time.Millisecond

// waitWith makes the call. If the context ends first, it fires cancel and calls early, if set. At a
// deadline the library ends the call itself and returns the cause.
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
		// Fire first, so that a reaction of host code does not count as the answer.
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

// ended returns the error of a call. If the context ended it, errors.Is matches the context's error
// too. The library may detect the deadline slightly before the context.
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
