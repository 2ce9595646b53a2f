//go:build cgo

package divvy

// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/cgo"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"
)

const errorTextMax = 1024

// errorText is the error buffer of a C call.
type errorText [errorTextMax]C.char

func (t *errorText) at() (*C.char, C.size_t) {
	return &t[0], errorTextMax
}

// check turns a status into an error.
func check(status C.divvy_status, op string, text *errorText) error {
	code := Code(status)
	if code == codeOk {
		return nil
	}
	buffer, size := text.at()
	if known := C.GoString(C.divvy_error_operation(buffer, size, nil)); known != "" {
		op = known
	}
	return &Error{
		Code:      code,
		Op:        op,
		Key:       C.GoString(C.divvy_error_key(buffer, size, nil)),
		Attempts:  int(C.divvy_error_attempts(buffer, size)),
		Message:   C.GoString(buffer),
		Retriable: C.divvy_status_is_retriable(C.int32_t(code)) == 1,
	}
}

// cText passes a Go string to a C function that copies it.
func cText(text string, use func(*C.char)) {
	c := C.CString(text)
	defer C.free(unsafe.Pointer(c))
	use(c)
}

var abi = sync.OnceValue(func() error {
	status := C.divvy_check_abi(C.DIVVY_ABI_VERSION)
	if Code(status) == codeOk {
		return nil
	}
	return &Error{
		Code: Code(status), Op: "load",
		Message: fmt.Sprintf("the library found is %s, this package is for ABI %d",
			C.GoString(C.divvy_version()), C.DIVVY_ABI_VERSION),
	}
})

// Version is the version of the C library.
func Version() string {
	return C.GoString(C.divvy_version())
}

// statusTable returns every status of the C library with its name.
func statusTable() map[Code]string {
	table := map[Code]string{}
	for index := C.size_t(0); ; index++ {
		status := C.divvy_status_at(index)
		if status > 0 { // beyond the last one
			return table
		}
		table[Code(status)] = C.GoString(C.divvy_status_name(status))
	}
}

// newConfig creates a configuration of the C library; the caller frees it.
func newConfig(settings map[string]string, op string) (C.divvy_config, error) {
	var config C.divvy_config
	if err := abi(); err != nil {
		return config, err
	}
	var text errorText
	buffer, size := text.at()
	if err := check(C.divvy_config_new(&config, buffer, size), op, &text); err != nil {
		return config, err
	}
	var broken []error
	for key, value := range settings {
		cText(key, func(key *C.char) {
			cText(value, func(value *C.char) {
				if err := check(C.divvy_config_set(config, key, value, buffer, size), op, &text); err != nil {
					broken = append(broken, err)
				}
			})
		})
	}
	if err := errors.Join(broken...); err != nil {
		C.divvy_config_free(config)
		return C.divvy_config{}, err
	}
	return config, nil
}

// guarded runs the host's code; a panic becomes an error.
func guarded(what string, run func() error) (err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("the %s panicked: %v", what, panicked)
		}
	}()
	return run()
}

// host runs the callbacks of one calculator or manager and keeps their last error.
type host struct {
	source   PartitionSource
	strategy AssignmentStrategy
	election LeaderElection

	mutex sync.Mutex
	// Ends when the calculator or manager is stopped.
	ctx     context.Context
	failure error
	// The threads that are currently inside host code.
	inside map[C.uintptr_t]int
}

// run runs host code. A stop inside it is rejected, because it would wait for itself. The goroutine
// is locked to its thread; for calls from C it is anyway.
func (h *host) run(what string, code func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread := C.divvy_go_thread()
	enter := func(step int) {
		h.mutex.Lock()
		defer h.mutex.Unlock()
		if h.inside[thread] += step; h.inside[thread] == 0 {
			delete(h.inside, thread)
		}
	}
	enter(1)
	defer enter(-1)
	return guarded(what, code)
}

// refuse returns the error of a stop inside host code, nil elsewhere.
func (h *host) refuse(op string) error {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if len(h.inside) == 0 || h.inside[C.divvy_go_thread()] == 0 {
		return nil
	}
	return &Error{
		Code: codeWouldDeadlock, Op: op,
		Message: op + " would wait for the callback that calls it; call it from another goroutine",
	}
}

func (h *host) context() context.Context {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	return h.ctx
}

// failed returns the result of a callback that ended with err. It must run on the callback's thread.
func (h *host) failed(err error) C.int32_t {
	h.mutex.Lock()
	h.failure = err
	h.mutex.Unlock()
	return callbackResult(err)
}

// callbackResult returns the result of a callback that ended with err, and passes on its text. It must
// run on the callback's thread.
func callbackResult(err error) C.int32_t {
	if err == nil {
		return 0
	}
	hostText(err, func(message *C.char) { C.divvy_callback_set_error(message, nil, 0) })
	return -1
}

// hostText passes the text of the host's error to a C function that copies it.
func hostText(err error, use func(*C.char)) {
	text := strings.ReplaceAll(strings.ToValidUTF8(err.Error(), "?"), "\x00", "?")
	if text == "" {
		text = fmt.Sprintf("an error of type %T without a text", err)
	}
	if len(text) > hostTextMax {
		text = strings.ToValidUTF8(text[:hostTextMax], "")
	}
	cText(text, use)
}

// The library keeps 400 characters of at most 4 bytes each.
const hostTextMax = 4 * 400

// cause adds the host's error to an error of the library if it is the cause.
func (h *host) cause(err error) error {
	var ours *Error
	if errors.As(err, &ours) && (ours.Code == codeSourceFailed || ours.Code == codeStrategyFailed) {
		h.mutex.Lock()
		defer h.mutex.Unlock()
		ours.cause = h.failure
	}
	return err
}

//export divvyGoDestroy
func divvyGoDestroy(handle C.uintptr_t) {
	cgo.Handle(handle).Delete()
}

//export divvyGoSource
func divvyGoSource(handle C.uintptr_t, list C.uint64_t, timeoutMs C.int64_t) C.int32_t {
	host := cgo.Handle(handle).Value().(*host)
	ctx, cancel := context.WithTimeout(host.context(), time.Duration(timeoutMs)*time.Millisecond)
	defer cancel()
	return host.failed(host.run("partition source", func() error {
		partitions, err := host.source.ListPartitions(ctx)
		if err != nil {
			return err
		}
		return addPartitions(C.divvy_partitions{id: list}, partitions)
	}))
}

//export divvyGoStrategy
func divvyGoStrategy(
	handle C.uintptr_t, packed *C.char, length C.size_t, owners *C.uint32_t, count C.size_t,
) C.int32_t {
	host := cgo.Handle(handle).Value().(*host)
	return host.failed(host.run("strategy", func() error {
		input := unpack(unsafe.String((*byte)(unsafe.Pointer(packed)), int(length)))
		plan, err := host.strategy.Assign(input.workers, input.partitions)
		if err != nil {
			return err
		}
		to := unsafe.Slice((*uint32)(unsafe.Pointer(owners)), int(count))
		return input.owners(plan, to)
	}))
}

//export divvyGoCampaign
func divvyGoCampaign(handle C.uintptr_t, worker *C.char, timeoutMs C.int64_t, leaseMs *C.int64_t) C.int32_t {
	return elect(handle, worker, timeoutMs, func(ctx context.Context, election LeaderElection, worker string) error {
		lease, err := election.Campaign(ctx, worker)
		*leaseMs = C.int64_t(lease / time.Millisecond)
		return err
	})
}

//export divvyGoResign
func divvyGoResign(handle C.uintptr_t, worker *C.char, timeoutMs C.int64_t) C.int32_t {
	return elect(handle, worker, timeoutMs, func(ctx context.Context, election LeaderElection, worker string) error {
		return election.Resign(ctx, worker)
	})
}

func elect(
	handle C.uintptr_t, worker *C.char, timeoutMs C.int64_t,
	ask func(context.Context, LeaderElection, string) error,
) C.int32_t {
	host := cgo.Handle(handle).Value().(*host)
	// Not the host's context: it has ended when a stop releases the leadership.
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(timeoutMs)*time.Millisecond)
	defer cancel()
	return host.failed(host.run("election", func() error {
		return ask(ctx, host.election, C.GoString(worker))
	}))
}

//export divvyGoLog
func divvyGoLog(
	handle C.uintptr_t, level C.int32_t, target, message *C.char, length C.size_t, record C.uint64_t,
) {
	logger := cgo.Handle(handle).Value().(Logger)
	text := C.GoStringN(message, C.int(length))
	arguments := append([]any{"target", C.GoString(target)}, logFields(C.divvy_log_record{id: record})...)
	_ = guarded("logger", func() error {
		log := logger.Debug
		switch level {
		case C.DIVVY_LOG_ERROR:
			log = logger.Error
		case C.DIVVY_LOG_WARN:
			log = logger.Warn
		case C.DIVVY_LOG_INFO:
			log = logger.Info
		}
		log(text, arguments...)
		return nil
	})
}

// logFields returns the fields of a log record as names and values: numbers as int64 or float64,
// everything else as string.
func logFields(record C.divvy_log_record) []any {
	count := C.divvy_log_field_count(record)
	fields := make([]any, 0, 2*count)
	for index := C.size_t(0); index < count; index++ {
		text := C.GoString(C.divvy_log_field_value(record, index, nil))
		var value any = text
		if C.divvy_log_field_is_number(record, index) == 1 {
			if integer, err := strconv.ParseInt(text, 10, 64); err == nil {
				value = integer
			} else if number, err := strconv.ParseFloat(text, 64); err == nil {
				value = number
			}
		}
		fields = append(fields, C.GoString(C.divvy_log_field_name(record, index, nil)), value)
	}
	return fields
}

// SetLogger sets the logger of the process, from level debug; nil disables logging.
func SetLogger(logger Logger) error {
	if err := abi(); err != nil {
		return err
	}
	var text errorText
	buffer, size := text.at()
	if logger == nil {
		return check(C.divvy_go_log_set(C.DIVVY_LOG_OFF, 0, buffer, size), "set logger", &text)
	}
	handle := cgo.NewHandle(logger)
	status := C.divvy_go_log_set(C.DIVVY_LOG_DEBUG, C.uintptr_t(handle), buffer, size)
	if err := check(status, "set logger", &text); err != nil {
		handle.Delete()
		return err
	}
	return nil
}

// timeout returns the maximum time of a call: until the context's deadline, or the default.
func timeout(ctx context.Context, standard time.Duration) C.int64_t {
	left := standard
	if deadline, limited := ctx.Deadline(); limited {
		left = max(time.Until(deadline), 0)
	}
	// Rounded up so that the context ends first, and limited to the library's maximum.
	return C.int64_t(min((left+time.Millisecond-1)/time.Millisecond, C.DIVVY_TIMEOUT_MAX_MS))
}
