package divvy

import (
	"bytes"
	"io"
	"net/http"
	"time"
)

// metricsType is the content type of the Prometheus text format.
const metricsType = "text/plain; version=0.0.4; charset=utf-8"

// MetricsHandler serves the calculator's metrics to Prometheus. To use a registry of your own, take
// the collector of the module bindings/go/prom.
func (c *Calculator) MetricsHandler() http.Handler { return scraped(c.WriteMetrics) }

// MetricsHandler serves the metrics of the manager, its worker and its calculators to Prometheus.
// To use a registry of your own, take the collector of the module bindings/go/prom.
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

// CalculatorMetrics receives calculator events, in order, on one goroutine. Embed [NopMetrics] to
// implement only some methods. A value that also implements [AssignmentMetrics] receives
// publications; in a manager, one that implements [ManagerMetrics] or [WorkerMetrics] receives
// those events. [Calculator.MetricsHandler] and [Manager.MetricsHandler] need no such code.
type CalculatorMetrics interface {
	// RecordStateTransition: the state changed after that many seconds in the previous one.
	RecordStateTransition(from, to CalculatorState, seconds float64)
	// RecordRebalanceAttempt: a plan was published for this reason, or the attempt failed.
	RecordRebalanceAttempt(reason string, success bool)
	// RecordRebalanceDuration: a rebalance published its plan, so many seconds after it began.
	RecordRebalanceDuration(seconds float64, reason string)
	// RecordEmergencyRebalance: an emergency began because so many workers were declared dead.
	RecordEmergencyRebalance(disappearedWorkers int)
	// RecordPartitionCount: the partitions of the plan just published.
	RecordPartitionCount(count int)
	// RecordActiveWorkers: the live workers, after a publication or a change of them.
	RecordActiveWorkers(count int)
	// RecordWorkerChange: workers joined, or were removed because they left or were declared dead.
	RecordWorkerChange(added, removed int)
}

// AssignmentMetrics receives publications.
type AssignmentMetrics interface {
	// RecordPublication: this version was published; moved partitions changed owners.
	RecordPublication(version int64, workers, partitions, moved int)
}

// ManagerMetrics receives manager events.
type ManagerMetrics interface {
	// RecordManagerTransition: the state changed after that many seconds in the previous one.
	RecordManagerTransition(from, to ManagerState, seconds float64)
	// RecordLeadershipChange: the known leader changed; empty for none. isSelf: whether it is this
	// worker.
	RecordLeadershipChange(leader string, isSelf bool)
	// RecordWorkerID: the id of the worker changed; empty for none.
	RecordWorkerID(worker string)
}

// WorkerMetrics receives assignment changes. Heartbeats are available in [Manager.MetricsHandler]
// only.
type WorkerMetrics interface {
	// RecordAssignmentChange: this version was applied, with the number of added and removed
	// partitions.
	RecordAssignmentChange(added, removed int, version int64)
}

// workerRecorder passes manager events to metrics.
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
	case EventManagerState:
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

// NopMetrics implements every metrics interface and does nothing.
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
