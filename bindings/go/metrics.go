package divvy

import (
	"bytes"
	"io"
	"net/http"
	"time"
)

// metricsType is the content type of Prometheus' text format.
const metricsType = "text/plain; version=0.0.4; charset=utf-8"

// MetricsHandler answers scrapes with the calculator's metrics. Hosts with a registry of their own
// take the collector of the module bindings/go/prom instead.
func (c *Calculator) MetricsHandler() http.Handler { return scraped(c.WriteMetrics) }

// MetricsHandler answers scrapes with the metrics of the manager, its worker and its calculators.
// Hosts with a registry of their own take the collector of the module bindings/go/prom instead.
func (m *Manager) MetricsHandler() http.Handler { return scraped(m.WriteMetrics) }

func scraped(write func(io.Writer) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var page bytes.Buffer
		if err := write(&page); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", metricsType)
		_, _ = w.Write(page.Bytes())
	})
}

// CalculatorMetrics is told what a calculator does, in order, from one goroutine. Embed
// [NopMetrics] to implement only some. One that is an [AssignmentMetrics] as well is told of
// publications, too, and given to a manager, one that is a [ManagerMetrics] or a [WorkerMetrics], of
// what that and its worker do. What needs no code is in [Calculator.MetricsHandler] and
// [Manager.MetricsHandler].
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

// ManagerMetrics is told what a manager does.
type ManagerMetrics interface {
	// RecordManagerTransition: the state changed after so many seconds in the former one.
	RecordManagerTransition(from, to ManagerState, seconds float64)
	// RecordLeadershipChange: another leader is known, empty for none; whether it is this worker.
	RecordLeadershipChange(leader string, isSelf bool)
	// RecordWorkerID: the worker is a member under this id from now on; empty: under none.
	RecordWorkerID(worker string)
}

// WorkerMetrics is told what a worker holds. Its heartbeats are in [Manager.MetricsHandler] only.
type WorkerMetrics interface {
	// RecordAssignmentChange: this version was applied; so many partitions were added and removed.
	RecordAssignmentChange(added, removed int, version int64)
}

// workerRecorder tells metrics of a manager's own events.
type workerRecorder struct {
	manager ManagerMetrics
	worker  WorkerMetrics
	since   time.Duration
}

func newWorkerRecorder(metrics any) *workerRecorder {
	manager, isManager := metrics.(ManagerMetrics)
	if !isManager {
		manager = NopMetrics{}
	}
	worker, isWorker := metrics.(WorkerMetrics)
	if !isWorker {
		worker = NopMetrics{}
	}
	return &workerRecorder{manager: manager, worker: worker}
}

func (w *workerRecorder) note(event ManagerEvent) {
	switch event.Kind {
	case EventWorkerState:
		if event.From != event.State {
			w.manager.RecordManagerTransition(event.From, event.State, (event.Time - w.since).Seconds())
		}
		w.since = event.Time
	case EventLeader:
		w.manager.RecordLeadershipChange(event.Worker, event.IsLeader)
	case EventWorkerID:
		w.manager.RecordWorkerID(event.Worker)
	case EventAssignment:
		w.worker.RecordAssignmentChange(len(event.Change.Added), len(event.Change.Removed), event.Change.Version)
	}
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

// RecordManagerTransition does nothing.
func (NopMetrics) RecordManagerTransition(ManagerState, ManagerState, float64) {}

// RecordLeadershipChange does nothing.
func (NopMetrics) RecordLeadershipChange(string, bool) {}

// RecordWorkerID does nothing.
func (NopMetrics) RecordWorkerID(string) {}

// RecordAssignmentChange does nothing.
func (NopMetrics) RecordAssignmentChange(int, int, int64) {}

var (
	_ CalculatorMetrics = NopMetrics{}
	_ AssignmentMetrics = NopMetrics{}
	_ ManagerMetrics    = NopMetrics{}
	_ WorkerMetrics     = NopMetrics{}
)
