//go:build cgo

package divvy

// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"runtime/cgo"
	"sync"
	"time"
	"unsafe"
)

// Calculator watches the workers of a fleet, decides when their partitions are to be divided anew,
// and publishes the plan. Close it when it is no longer needed.
type Calculator struct {
	handle C.divvy_calculator
	host   *host
	// Ends the context of the host's callbacks, from a start to the next stop.
	mutex         sync.Mutex
	cancel        context.CancelFunc
	subscriptions map[*Subscription]struct{}
	metrics       CalculatorMetrics
	isClosed      bool
}

// Validate reports every rule that the configuration breaks: ErrInvalidConfig. Store is not looked
// at. Durations of zero count as their defaults.
func (c *Config) Validate() error {
	config, err := newConfig(c.settings(), "validate")
	if err != nil {
		return err
	}
	defer C.divvy_config_free(config)
	// Rules that concern several settings are checked when a calculator is made.
	store, err := NewMemoryStore()
	if err != nil {
		return err
	}
	defer store.Close()
	var calculator C.divvy_calculator
	var text errorText
	buffer, size := text.at()
	err = check(C.divvy_calculator_new(config, store.handle, &calculator, buffer, size), "validate", &text)
	C.divvy_calculator_free(calculator, nil, 0)
	return err
}

// NewCalculator makes a calculator that is not started yet. ErrInvalidConfig lists every rule that
// the configuration breaks.
func NewCalculator(config *Config) (*Calculator, error) {
	if config == nil || config.Store == nil {
		return nil, &Error{Code: codeInvalidConfig, Op: "new", Message: "Store is nil: give one"}
	}
	made, err := newConfig(config.settings(), "new")
	if err != nil {
		return nil, err
	}
	defer C.divvy_config_free(made)
	if config.Logger != nil {
		if err := SetLogger(config.Logger); err != nil {
			return nil, err
		}
	}
	calculator := &Calculator{
		host:          &host{source: config.Source, strategy: config.Strategy, ctx: context.Background()},
		subscriptions: map[*Subscription]struct{}{},
		metrics:       config.Metrics,
	}
	var text errorText
	buffer, size := text.at()
	set := func(call func(handle C.uintptr_t) C.divvy_status) error {
		handle := cgo.NewHandle(calculator.host)
		err := check(call(C.uintptr_t(handle)), "new", &text)
		if err != nil {
			handle.Delete()
		}
		return err
	}
	if config.Source != nil {
		if err := set(func(handle C.uintptr_t) C.divvy_status {
			return C.divvy_go_set_source(made, handle, buffer, size)
		}); err != nil {
			return nil, err
		}
	}
	if config.Strategy != nil {
		name := C.CString("go")
		defer C.free(unsafe.Pointer(name))
		if err := set(func(handle C.uintptr_t) C.divvy_status {
			return C.divvy_go_set_strategy(made, name, handle, buffer, size)
		}); err != nil {
			return nil, err
		}
	}
	status := C.divvy_calculator_new(made, config.Store.handle, &calculator.handle, buffer, size)
	if err := check(status, "new", &text); err != nil {
		return nil, err
	}
	handle := calculator.handle
	runtime.SetFinalizer(calculator, func(c *Calculator) {
		if !c.isClosed {
			slog.Warn("divvy: a calculator was not closed; it is now", "handle", uint64(handle.id))
			_ = c.Close()
		}
	})
	return calculator, nil
}

// Start reaches the store, takes over, learns what is stored and who is alive, and goes to work.
// Waits until the context is done, 30 s by default; after an error nothing is left behind.
func (c *Calculator) Start(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer runtime.KeepAlive(c)
	if c.IsStarted() {
		return &Error{Code: codeAlreadyStarted, Op: "start", Message: "the calculator is started"}
	}
	hostContext, cancel := context.WithCancel(context.Background())
	c.mutex.Lock()
	c.cancel = cancel
	c.mutex.Unlock()
	c.host.mutex.Lock()
	c.host.ctx = hostContext
	c.host.mutex.Unlock()
	metrics := c.record()
	// A start ends at once when the calculator is stopped.
	abort := context.AfterFunc(ctx, func() { _ = c.stop(time.Second) })
	var text errorText
	buffer, size := text.at()
	err := check(C.divvy_calculator_start(c.handle, timeout(ctx, 30*time.Second), buffer, size), "start", &text)
	wasAborted := !abort()
	switch {
	case wasAborted && err == nil:
		// Started in the moment that the context was done: nothing is left behind.
		_ = c.stop(time.Second)
		return ctx.Err() // the metrics' subscription ended with the stop
	case err != nil && !errors.Is(err, ErrAlreadyStarted):
		cancel()
	}
	if err != nil && metrics != nil {
		metrics.Cancel() // a start that failed leaves the other subscriptions for the next one
	}
	return ended(ctx, c.host.cause(err))
}

// Stop stops: nothing is published any more when it returns nil, and the subscriptions end after
// what is in their backlog. Stopping what is not started is fine, from any goroutine, at the same
// time. Waits until the context is done, 10 s by default; ErrTimedOut names what is still busy, and
// Stop can be called again. ErrWouldDeadlock from inside a source or strategy.
func (c *Calculator) Stop(ctx context.Context) error {
	// With the context done there is still a stop to be asked for.
	done := make(chan error, 1)
	wait := time.Duration(timeout(ctx, 10*time.Second)) * time.Millisecond
	go func() { done <- c.stop(wait) }()
	select {
	case err := <-done:
		return ended(ctx, err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Calculator) stop(wait time.Duration) error {
	defer runtime.KeepAlive(c)
	c.mutex.Lock()
	if c.cancel != nil {
		c.cancel()
	}
	c.mutex.Unlock()
	var text errorText
	buffer, size := text.at()
	return check(C.divvy_calculator_stop(c.handle, C.int64_t(wait/time.Millisecond), buffer, size), "stop", &text)
}

// Close stops the calculator, waiting up to 5 s, ends its subscriptions whether they are read or
// not, and frees it; every call afterwards is ErrClosed. A second call does nothing. ErrTimedOut and
// ErrWouldDeadlock (from inside a source or strategy) leave it as it is: call again.
func (c *Calculator) Close() error {
	c.mutex.Lock()
	if c.isClosed {
		c.mutex.Unlock()
		return nil
	}
	if c.cancel != nil {
		c.cancel()
	}
	c.mutex.Unlock()
	var text errorText
	buffer, size := text.at()
	if err := check(C.divvy_calculator_free(c.handle, buffer, size), "close", &text); err != nil && !errors.Is(err, ErrClosed) {
		return err
	}
	c.mutex.Lock()
	c.isClosed = true
	subscriptions := make([]*Subscription, 0, len(c.subscriptions))
	for subscription := range c.subscriptions {
		subscriptions = append(subscriptions, subscription)
	}
	c.mutex.Unlock()
	runtime.SetFinalizer(c, nil)
	for _, subscription := range subscriptions {
		subscription.Cancel()
	}
	return nil
}

// IsStarted is whether it is started and at work.
func (c *Calculator) IsStarted() bool {
	defer runtime.KeepAlive(c)
	return C.divvy_calculator_is_started(c.handle) == 1
}

// GetState is what it is doing; Idle when it is not started.
func (c *Calculator) GetState() CalculatorState {
	defer runtime.KeepAlive(c)
	return stateOf(C.divvy_calculator_state(c.handle))
}

// GetScalingReason is why it is doing that, such as "planned_scale"; empty in Idle.
func (c *Calculator) GetScalingReason() string {
	defer runtime.KeepAlive(c)
	return reasonOf(C.divvy_calculator_scaling_reason(c.handle))
}

// CurrentVersion is the version last published or adopted; 0 when there is none.
func (c *Calculator) CurrentVersion() int64 {
	defer runtime.KeepAlive(c)
	return max(int64(C.divvy_calculator_current_version(c.handle)), 0)
}

// TriggerRebalance has a new version published, at once or right after the one that is under way,
// and waits for it, until the context is done, 30 s by default. A request whose context was
// cancelled stays pending.
func (c *Calculator) TriggerRebalance(ctx context.Context) error {
	return c.ask(ctx, "trigger rebalance", func(wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_calculator_trigger_rebalance(c.handle, wait, nil, buffer, size)
	})
}

// Refresh has the partition source read and compared with the published plan, and waits for that,
// until the context is done, 30 s by default. A change is then pending.
func (c *Calculator) Refresh(ctx context.Context) error {
	return c.ask(ctx, "refresh", func(wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_calculator_refresh(c.handle, wait, nil, buffer, size)
	})
}

func (c *Calculator) ask(
	ctx context.Context, op string, call func(C.int64_t, *C.char, C.size_t) C.divvy_status,
) error {
	return await(ctx, func() error {
		defer runtime.KeepAlive(c)
		var text errorText
		buffer, size := text.at()
		return c.host.cause(check(call(timeout(ctx, 30*time.Second), buffer, size), op, &text))
	}, nil)
}

// SetPartitions pushes the partition list: the whole of it. May be called before the start. Waits
// for up to 1 s.
func (c *Calculator) SetPartitions(partitions []Partition) error {
	defer runtime.KeepAlive(c)
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
	return check(C.divvy_calculator_set_partitions(c.handle, list, buffer, size), "set partitions", &text)
}

// Status tells everything about the calculator at this moment, as JSON for people and dashboards.
// Waits for up to 2 s.
func (c *Calculator) Status() (json.RawMessage, error) {
	defer runtime.KeepAlive(c)
	var out C.divvy_text
	var text errorText
	buffer, size := text.at()
	if err := check(C.divvy_calculator_status_json(c.handle, &out, buffer, size), "status", &text); err != nil {
		return nil, err
	}
	return takeText(out), nil
}

// WriteMetrics writes the calculator's metrics as Prometheus reads them: text format 0.0.4, after
// which other metrics may follow. The settings "metrics_namespace" and "metrics_labels" name them.
func (c *Calculator) WriteMetrics(w io.Writer) error {
	defer runtime.KeepAlive(c)
	var out C.divvy_text
	var text errorText
	buffer, size := text.at()
	if err := check(C.divvy_calculator_metrics(c.handle, &out, buffer, size), "metrics", &text); err != nil {
		return err
	}
	_, err := w.Write(takeText(out))
	return err
}

// addPartitions appends to a list of the library.
func addPartitions(list C.divvy_partitions, partitions []Partition) error {
	if len(partitions) == 0 {
		return nil
	}
	bytes, err := json.Marshal(partitions)
	if err != nil {
		return err
	}
	var text errorText
	buffer, size := text.at()
	data := (*C.char)(unsafe.Pointer(unsafe.SliceData(bytes)))
	status := C.divvy_partitions_add_json(list, data, C.size_t(len(bytes)), buffer, size)
	return check(status, "add partitions", &text)
}

func stateOf(state C.int32_t) CalculatorState {
	switch state {
	case C.DIVVY_STATE_SCALING:
		return CalculatorStateScaling
	case C.DIVVY_STATE_REBALANCING:
		return CalculatorStateRebalancing
	case C.DIVVY_STATE_EMERGENCY:
		return CalculatorStateEmergency
	default:
		return CalculatorStateIdle
	}
}

func reasonOf(reason C.int32_t) string {
	if reason <= 0 {
		return ""
	}
	return C.GoString(C.divvy_reason_name(reason))
}
