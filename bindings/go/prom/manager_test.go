package prom

import (
	"context"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	divvy "github.com/divvy-rs/divvy/bindings/go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

var _, _ Source = (*divvy.Manager)(nil), (*divvy.Calculator)(nil)

func patient(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for ctx := patient(t); !holds(); time.Sleep(10 * time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("never: %s", what)
		}
	}
}

// worker returns a manager with this name on its own store, or a shared one.
func worker(t testing.TB, store *divvy.Store, name string) *divvy.Manager {
	t.Helper()
	manager, err := divvy.NewManager(&divvy.ManagerConfig{
		Config: divvy.Config{
			Store:        store,
			HeartbeatTTL: 1500 * time.Millisecond, EmergencyGracePeriod: 300 * time.Millisecond,
			Cooldown: 10 * time.Millisecond, ColdStartWindow: 50 * time.Millisecond,
			PlannedScaleWindow: 50 * time.Millisecond,
			Settings:           map[string]string{"metrics_labels": "manager=" + name},
		},
		HeartbeatInterval: 200 * time.Millisecond,
		WorkerIDTTL:       2 * time.Second,
		ElectionTimeout:   time.Second,
	})
	must(t, err)
	t.Cleanup(func() { _ = manager.Close() })
	must(t, manager.SetPartitions([]divvy.Partition{{Keys: []string{"p0"}}, {Keys: []string{"p1"}}}))
	return manager
}

func shared(t testing.TB) *divvy.Store {
	t.Helper()
	store, err := divvy.NewMemoryStore()
	must(t, err)
	t.Cleanup(func() { _ = store.Close() })
	return store
}

func holds(t testing.TB, manager *divvy.Manager, count int) func() bool {
	return func() bool {
		held, err := manager.Assignment()
		must(t, err)
		return len(held.Partitions) == count
	}
}

// value returns the value of the first series of a family.
func value(families map[string]*dto.MetricFamily, name string) float64 {
	family := families[name]
	if family == nil || len(family.Metric) == 0 {
		return -1
	}
	metric := family.Metric[0]
	return metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
}

func TestManagersInOneProcessDoNotCollideInHostRegistry(t *testing.T) {
	store := shared(t)
	registry := prometheus.NewPedanticRegistry()
	one, other := worker(t, store, "one"), worker(t, store, "other")
	for _, manager := range []*divvy.Manager{one, other} {
		must(t, registry.Register(NewCollector(manager)))
		must(t, manager.Start(patient(t)))
	}
	until(t, "shared", func() bool { return holds(t, one, 1)() && holds(t, other, 1)() })
	answer := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	if answer.Code != 200 {
		t.Fatal(answer.Body.String())
	}
	leads := parse(t, answer.Body)["divvy_manager_is_leader"]
	if len(leads.Metric) != 2 || leads.Metric[0].Gauge.GetValue()+leads.Metric[1].Gauge.GetValue() != 1 {
		t.Fatal(leads)
	}
	// Without a registry: each has its own page.
	for _, manager := range []*divvy.Manager{one, other} {
		answer := httptest.NewRecorder()
		manager.MetricsHandler().ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
		families := parse(t, answer.Body)
		if len(families["divvy_manager_is_leader"].Metric) != 1 || value(families, "divvy_worker_applied_version") < 1 {
			t.Fatal(families["divvy_manager_is_leader"])
		}
	}
}

// counters returns every counter of a page, including histograms, by name and labels.
func counters(families map[string]*dto.MetricFamily) map[string]float64 {
	found := map[string]float64{}
	for name, family := range families {
		for _, metric := range family.Metric {
			id := name
			for _, label := range metric.Label {
				id += "," + label.GetName() + "=" + label.GetValue()
			}
			switch {
			case metric.Counter != nil:
				found[id] = metric.Counter.GetValue()
			case metric.Histogram != nil:
				found[id] = float64(metric.Histogram.GetSampleCount())
			}
		}
	}
	return found
}

func TestScrapesUnderLoadAreConsistentAndCountersSurviveRestarts(t *testing.T) {
	manager := worker(t, shared(t), "only")
	var triggered atomic.Int64
	over, stopped := make(chan struct{}), make(chan struct{})
	go func() { // lifecycles, each with as many rebalances as possible
		defer close(stopped)
		for {
			must(t, manager.Start(patient(t)))
			until(t, "leads", func() bool { return manager.TriggerRebalance(patient(t)) == nil })
			until(t, "assigned", holds(t, manager, 2))
			for range 50 {
				must(t, manager.TriggerRebalance(patient(t)))
				triggered.Add(1)
			}
			must(t, manager.Stop(patient(t), divvy.Leave))
			select {
			case <-over:
				return
			default:
			}
		}
	}()
	before := map[string]float64{}
	scrapes := 0
	for ; (scrapes < 1_000 || triggered.Load() < 150) && !t.Failed(); scrapes++ {
		answer := httptest.NewRecorder()
		manager.MetricsHandler().ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
		now := counters(parse(t, answer.Body))
		for id, value := range before {
			if now[id] < value {
				t.Errorf("%s decreased from %v to %v", id, value, now[id])
			}
		}
		before = now
	}
	close(over)
	<-stopped
	answer := httptest.NewRecorder()
	manager.MetricsHandler().ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	published := 0.0
	for id, value := range counters(parse(t, answer.Body)) {
		if len(id) > 24 && id[:24] == "divvy_publications_total" {
			published += value
		}
	}
	if published < float64(triggered.Load()) {
		t.Fatalf("%v publications, but %d rebalances were asked for", published, triggered.Load())
	}
	t.Logf("%d scrapes during %d rebalances", scrapes, triggered.Load())
}
