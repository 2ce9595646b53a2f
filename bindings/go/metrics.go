package divvy

import (
	"bytes"
	"net/http"
)

// metricsType is the content type of Prometheus' text format.
const metricsType = "text/plain; version=0.0.4; charset=utf-8"

// MetricsHandler answers scrapes with the calculator's metrics. Hosts with a registry of their own
// take the collector of the module bindings/go/prom instead.
func (c *Calculator) MetricsHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var page bytes.Buffer
		if err := c.WriteMetrics(&page); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", metricsType)
		_, _ = w.Write(page.Bytes())
	})
}

// CalculatorMetrics is told what a calculator does, in order, from one goroutine. Embed
// [NopMetrics] to implement only some. One that is an [AssignmentMetrics] as well is told of
// publications, too. What needs no code is in [Calculator.MetricsHandler].
type CalculatorMetrics interface {
	// RecordStateTransition: the state changed after so many seconds in the former one.
	RecordStateTransition(from, to CalculatorState, seconds float64)
	// RecordRebalanceAttempt: a plan was published for this reason, or the attempt failed.
	RecordRebalanceAttempt(reason string, success bool)
	// RecordRebalanceDuration: a rebalance ended, however, after so many seconds.
	RecordRebalanceDuration(seconds float64, reason string)
	// RecordEmergencyRebalance: a plan without lost workers was published.
	RecordEmergencyRebalance(workers int)
	// RecordPartitionCount: the partitions of the plan just published.
	RecordPartitionCount(count int)
	// RecordActiveWorkers: the workers of the plan just published.
	RecordActiveWorkers(count int)
	// RecordWorkerChange: workers joined (or came back) or were removed (left or were lost).
	RecordWorkerChange(added, removed int)
}

// AssignmentMetrics is told of plans that were published.
type AssignmentMetrics interface {
	// RecordPublication: this version was published; so many of its partitions changed hands.
	RecordPublication(version int64, workers, partitions, moved int)
}

// NopMetrics records nothing.
type NopMetrics struct{}

// RecordStateTransition does nothing.
func (NopMetrics) RecordStateTransition(CalculatorState, CalculatorState, float64) {}

// RecordRebalanceAttempt does nothing.
func (NopMetrics) RecordRebalanceAttempt(string, bool) {}

// RecordRebalanceDuration does nothing.
func (NopMetrics) RecordRebalanceDuration(float64, string) {}

// RecordEmergencyRebalance does nothing.
func (NopMetrics) RecordEmergencyRebalance(int) {}

// RecordPartitionCount does nothing.
func (NopMetrics) RecordPartitionCount(int) {}

// RecordActiveWorkers does nothing.
func (NopMetrics) RecordActiveWorkers(int) {}

// RecordWorkerChange does nothing.
func (NopMetrics) RecordWorkerChange(int, int) {}

// RecordPublication does nothing.
func (NopMetrics) RecordPublication(int64, int, int, int) {}

var (
	_ CalculatorMetrics = NopMetrics{}
	_ AssignmentMetrics = NopMetrics{}
)
