//go:build cgo

package divvy

// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"runtime"
	"unsafe"
)

// Calculator watches the workers of a fleet, decides when their partitions are to be divided anew,
// and publishes the plan. Close it when it is no longer needed.
type Calculator struct {
	lifetime
	handle  C.divvy_calculator
	metrics CalculatorMetrics
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
	calculator := &Calculator{metrics: config.Metrics}
	made, err := calculator.prepare(config, config.settings(), nil)
	if err != nil {
		return nil, err
	}
	defer C.divvy_config_free(made)
	var text errorText
	buffer, size := text.at()
	status := C.divvy_calculator_new(made, config.Store.handle, &calculator.handle, buffer, size)
	if err := check(status, "new", &text); err != nil {
		return nil, err
	}
	handle := calculator.handle
	calculator.isStarted = func() bool { return C.divvy_calculator_is_started(handle) == 1 }
	calculator.startCall = func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_go_calculator_start(cancel, handle, wait, buffer, size)
	}
	calculator.stopCall = func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_go_calculator_stop(cancel, handle, wait, buffer, size)
	}
	calculator.freeCall = func(buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_calculator_free(handle, buffer, size)
	}
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
	defer runtime.KeepAlive(c)
	return c.begin(ctx, func() func() {
		metrics := c.record()
		return func() {
			if metrics != nil {
				metrics.Cancel()
			}
		}
	})
}

// Stop stops: nothing is published any more when it returns nil, and the subscriptions end after
// what is in their backlog. Stopping what is not started is fine, from any goroutine, at the same
// time. Waits until the context is done, 10 s by default; ErrTimedOut names what is still busy. Ended
// by its context it has asked for the stop, of which nothing waits any more: Stop can be called again,
// and so can Close. ErrWouldDeadlock from inside a source or strategy.
func (c *Calculator) Stop(ctx context.Context) error {
	defer runtime.KeepAlive(c)
	return c.end(ctx, c.stopCall)
}

// Close stops the calculator, waiting up to 5 s, ends its subscriptions whether they are read or
// not, and frees it; every call afterwards is ErrClosed. A second call does nothing. ErrTimedOut and
// ErrWouldDeadlock (from inside a source or strategy) leave it as it is: call again.
func (c *Calculator) Close() error {
	if err := c.close(); err != nil {
		return err
	}
	runtime.SetFinalizer(c, nil)
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
	return stateOf(C.divvy_calculator_get_state(c.handle))
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
// and waits for it, until the context is done, 30 s by default. A request whose context is done stays
// pending, but nothing waits for it any more.
func (c *Calculator) TriggerRebalance(ctx context.Context) error {
	defer runtime.KeepAlive(c)
	return c.ask(ctx, "trigger_rebalance", func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_go_calculator_trigger(cancel, c.handle, wait, buffer, size)
	})
}

// Refresh has the partition source read and compared with the published plan, and waits for that,
// until the context is done, 30 s by default. A change is then pending.
func (c *Calculator) Refresh(ctx context.Context) error {
	defer runtime.KeepAlive(c)
	return c.ask(ctx, "refresh", func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_go_calculator_refresh(cancel, c.handle, wait, buffer, size)
	})
}

// SetPartitions pushes the partition list: the whole of it. May be called before the start. Waits
// for up to 1 s.
func (c *Calculator) SetPartitions(partitions []Partition) error {
	defer runtime.KeepAlive(c)
	return withPartitions(partitions, func(list C.divvy_partitions, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_calculator_set_partitions(c.handle, list, buffer, size)
	})
}

// Status tells everything about the calculator at this moment, as JSON for people and dashboards.
// Waits for up to 2 s.
func (c *Calculator) Status() (json.RawMessage, error) {
	defer runtime.KeepAlive(c)
	return readText("status", func(out *C.divvy_text, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_calculator_status_json(c.handle, out, buffer, size)
	})
}

// WriteMetrics writes the calculator's metrics as Prometheus reads them: text format 0.0.4, after
// which other metrics may follow. The settings "metrics_namespace" and "metrics_labels" name them.
func (c *Calculator) WriteMetrics(w io.Writer) error {
	defer runtime.KeepAlive(c)
	return writePage(w, func(out *C.divvy_text, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_calculator_metrics(c.handle, out, buffer, size)
	})
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
	case C.DIVVY_CALCULATOR_SCALING:
		return CalculatorStateScaling
	case C.DIVVY_CALCULATOR_REBALANCING:
		return CalculatorStateRebalancing
	case C.DIVVY_CALCULATOR_EMERGENCY:
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
