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

// A Calculator watches the workers of a fleet, decides when to rebalance, and publishes plans.
// Close it when it is no longer needed.
type Calculator struct {
	lifetime
	handle  C.divvy_calculator
	metrics CalculatorMetrics
}

// Validate returns ErrInvalidConfig with every violation of the configuration. It ignores Store.
// Zero durations mean their defaults.
func (c *Config) Validate() error {
	config, err := newConfig(c.settings(), "validate")
	if err != nil {
		return err
	}
	defer C.divvy_config_free(config)
	// Rules that concern several settings are checked when a calculator is created.
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

// NewCalculator creates a calculator. ErrInvalidConfig lists every violation of the configuration.
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

// Start connects to the store, takes over from a previous leader, reads the stored plan and the
// live workers, and begins to publish. It waits until the context ends, 30 s by default. After an
// error nothing is left running.
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

// Stop stops the calculator. After it returns nil, nothing is published, and the subscriptions end
// after their backlog. Stopping a stopped calculator succeeds. Stop waits until the context ends,
// 10 s by default; ErrTimedOut names what is still busy. If the context ends first, the stop
// continues in the background: call Stop or Close again to wait for it. Inside a source or strategy
// it returns ErrWouldDeadlock.
func (c *Calculator) Stop(ctx context.Context) error {
	defer runtime.KeepAlive(c)
	return c.end(ctx, c.stopCall)
}

// Close stops the calculator, ends its subscriptions and frees it. It waits at most 5 s. Later
// calls return ErrClosed; a second Close does nothing. After ErrTimedOut or ErrWouldDeadlock
// (inside a source or strategy) nothing is freed: call Close again.
func (c *Calculator) Close() error {
	if err := c.close(); err != nil {
		return err
	}
	runtime.SetFinalizer(c, nil)
	return nil
}

// IsStarted returns whether the calculator is running.
func (c *Calculator) IsStarted() bool {
	defer runtime.KeepAlive(c)
	return C.divvy_calculator_is_started(c.handle) == 1
}

// GetState returns the state; Idle if the calculator is not started.
func (c *Calculator) GetState() CalculatorState {
	defer runtime.KeepAlive(c)
	return stateOf(C.divvy_calculator_get_state(c.handle))
}

// GetScalingReason returns the reason of the state, such as "planned_scale"; empty in Idle.
func (c *Calculator) GetScalingReason() string {
	defer runtime.KeepAlive(c)
	return reasonOf(C.divvy_calculator_scaling_reason(c.handle))
}

// CurrentVersion returns the version last published or adopted; 0 if none.
func (c *Calculator) CurrentVersion() int64 {
	defer runtime.KeepAlive(c)
	return max(int64(C.divvy_calculator_current_version(c.handle)), 0)
}

// TriggerRebalance publishes a new version, at once or after a publication in progress, and waits
// for it until the context ends, 30 s by default. If the context ends first, the request stays
// queued.
func (c *Calculator) TriggerRebalance(ctx context.Context) error {
	defer runtime.KeepAlive(c)
	return c.ask(ctx, "trigger_rebalance", func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_go_calculator_trigger(cancel, c.handle, wait, buffer, size)
	})
}

// Refresh reads the partition source and compares the list with the published plan. It waits until
// the context ends, 30 s by default. A difference becomes pending work.
func (c *Calculator) Refresh(ctx context.Context) error {
	defer runtime.KeepAlive(c)
	return c.ask(ctx, "refresh", func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_go_calculator_refresh(cancel, c.handle, wait, buffer, size)
	})
}

// ConfirmPartitions confirms the partition list as it is now, although it lost more than the setting
// max_list_shrink allows: has it read again as [Calculator.Refresh] does, and applied. Counts once.
func (c *Calculator) ConfirmPartitions(ctx context.Context) error {
	defer runtime.KeepAlive(c)
	return c.ask(ctx, "confirm_partitions", func(cancel C.divvy_cancel, wait C.int64_t, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_go_calculator_confirm(cancel, c.handle, wait, buffer, size)
	})
}

// SetPartitions sets the whole partition list. It may be called before Start. It waits at most 1 s.
func (c *Calculator) SetPartitions(partitions []Partition) error {
	defer runtime.KeepAlive(c)
	return withPartitions(partitions, func(list C.divvy_partitions, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_calculator_set_partitions(c.handle, list, buffer, size)
	})
}

// Status returns the status of the calculator as JSON, for people and dashboards. It waits at most
// 2 s.
func (c *Calculator) Status() (json.RawMessage, error) {
	defer runtime.KeepAlive(c)
	return readText("status", func(out *C.divvy_text, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_calculator_status_json(c.handle, out, buffer, size)
	})
}

// WriteMetrics writes the metrics of the calculator in the Prometheus text format 0.0.4. Other
// metrics may follow on the same page. The settings "metrics_namespace" and "metrics_labels" set
// names and labels.
func (c *Calculator) WriteMetrics(w io.Writer) error {
	defer runtime.KeepAlive(c)
	return writePage(w, func(out *C.divvy_text, buffer *C.char, size C.size_t) C.divvy_status {
		return C.divvy_calculator_metrics(c.handle, out, buffer, size)
	})
}

// addPartitions appends partitions to a list of the library.
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

// stateOf is a state, Idle for a handle that is closed.
func stateOf(state C.int32_t) CalculatorState {
	if state <= 0 {
		return CalculatorStateIdle
	}
	return CalculatorState(state)
}

func reasonOf(reason C.int32_t) string {
	if reason <= 0 {
		return ""
	}
	return C.GoString(C.divvy_reason_name(reason))
}
