// Package prom collects the metrics of a divvy calculator or manager in a registry of
// client_golang. It is a separate module, so that other hosts do not depend on client_golang.
//
//	registry.MustRegister(prom.NewCollector(manager))
package prom

import (
	"bytes"
	"io"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// Source writes metrics in the Prometheus text format. *divvy.Manager and *divvy.Calculator
// implement it.
type Source interface {
	WriteMetrics(io.Writer) error
}

// NewCollector returns a collector that reads the source at each scrape. Collectors in one registry
// need different "metrics_labels" or "metrics_namespace" settings.
func NewCollector(source Source) prometheus.Collector {
	return collector{source}
}

type collector struct {
	source Source
}

// Describe sends nothing: the collector is unchecked, since its metrics are known only at a scrape.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect reads the source. Errors are reported by the registry's Gather.
func (c collector) Collect(metrics chan<- prometheus.Metric) {
	var page bytes.Buffer
	families, err := map[string]*dto.MetricFamily{}, c.source.WriteMetrics(&page)
	if err == nil {
		var parser expfmt.TextParser
		families, err = parser.TextToMetricFamilies(&page)
	}
	if err != nil {
		invalid := prometheus.NewDesc("divvy_metrics", "The metrics of divvy.", nil, nil)
		metrics <- prometheus.NewInvalidMetric(invalid, err)
		return
	}
	for _, family := range families {
		for _, metric := range family.Metric {
			labels := prometheus.Labels{}
			for _, label := range metric.Label {
				labels[label.GetName()] = label.GetValue()
			}
			desc := prometheus.NewDesc(family.GetName(), family.GetHelp(), nil, labels)
			metrics <- parsed{desc, metric}
		}
	}
}

// parsed is a metric of the page.
type parsed struct {
	desc   *prometheus.Desc
	metric *dto.Metric
}

func (p parsed) Desc() *prometheus.Desc { return p.desc }

func (p parsed) Write(out *dto.Metric) error {
	out.Label = p.metric.Label
	out.Counter, out.Gauge, out.Histogram = p.metric.Counter, p.metric.Gauge, p.metric.Histogram
	return nil
}
