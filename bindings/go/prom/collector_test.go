package prom

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	divvy "github.com/divvy-rs/divvy/bindings/go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// published returns a calculator with this name that has published a plan for one worker.
func published(t testing.TB, name string) *divvy.Calculator {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	store, err := divvy.NewMemoryStore()
	must(t, err)
	t.Cleanup(func() { _ = store.Close() })
	calculator, err := divvy.NewCalculator(&divvy.Config{
		Store:           store,
		HeartbeatTTL:    time.Minute,
		ColdStartWindow: 50 * time.Millisecond,
		Settings:        map[string]string{"metrics_labels": "calculator=" + name},
	})
	must(t, err)
	t.Cleanup(func() { _ = calculator.Close() })
	must(t, store.Ensure(ctx, divvy.BucketHeartbeat, time.Minute))
	must(t, store.Put(ctx, divvy.BucketHeartbeat, "heartbeat.w-0", []byte("alive")))
	must(t, calculator.SetPartitions([]divvy.Partition{{Keys: []string{"p0"}}, {Keys: []string{"p1"}}}))
	must(t, calculator.Start(ctx))
	must(t, calculator.TriggerRebalance(ctx))
	return calculator
}

func parse(t testing.TB, page io.Reader) map[string]*dto.MetricFamily {
	t.Helper()
	var parser expfmt.TextParser
	families, err := parser.TextToMetricFamilies(page)
	must(t, err)
	return families
}

func TestMetricsPageIsAcceptedByPrometheusParser(t *testing.T) {
	calculator := published(t, "one")
	answer := httptest.NewRecorder()
	calculator.MetricsHandler().ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	if got := answer.Header().Get("Content-Type"); !strings.HasPrefix(got, "text/plain; version=0.0.4") {
		t.Fatalf("content type %q", got)
	}
	// A host's own metrics may follow on the page.
	answer.Body.WriteString("# TYPE host_metric counter\nhost_metric 7\n")
	families := parse(t, answer.Body)
	if got := families["host_metric"].Metric[0].Counter.GetValue(); got != 7 {
		t.Fatalf("host_metric is %v", got)
	}
	if got := families["divvy_plan_partitions"].Metric[0].Gauge.GetValue(); got != 2 {
		t.Fatalf("%v partitions", got)
	}
	count := uint64(0)
	for _, metric := range families["divvy_rebalance_duration_seconds"].Metric {
		count += metric.Histogram.GetSampleCount()
	}
	if count == 0 {
		t.Fatal("no rebalance was measured")
	}
	for name, family := range families {
		if family.GetHelp() == "" && name != "host_metric" {
			t.Errorf("%s has no help", name)
		}
	}
}

func TestCollectorExposesSeveralCalculatorsInHostRegistry(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	for _, name := range []string{"one", "other"} {
		must(t, registry.Register(NewCollector(published(t, name))))
	}
	answer := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	if answer.Code != 200 {
		t.Fatal(answer.Body.String())
	}
	up := parse(t, bytes.NewReader(answer.Body.Bytes()))["divvy_calculator_up"]
	if len(up.Metric) != 2 {
		t.Fatalf("%d calculators are up", len(up.Metric))
	}
}

type broken struct{}

func (broken) WriteMetrics(io.Writer) error { return errors.New("out of order") }

func TestFailedCollectorSourceIsReportedByRegistry(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	must(t, registry.Register(NewCollector(broken{})))
	if _, err := registry.Gather(); err == nil || !strings.Contains(err.Error(), "out of order") {
		t.Fatal(err)
	}
}
