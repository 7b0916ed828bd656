package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/concordat/concordat/node"
)

// nodeMetrics count what a node's events tell. They name no run, node or member.
type nodeMetrics struct {
	events       *prometheus.CounterVec
	moved, saved prometheus.Counter
	joined       prometheus.Gauge
}

func newNodeMetrics(r prometheus.Registerer) *nodeMetrics {
	m := &nodeMetrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "concordat_node_events_total", Help: "What happened, by kind; \"refused\" and \"ack-refused\" deserve a look."}, []string{"kind"}),
		moved:  prometheus.NewCounter(prometheus.CounterOpts{Name: "concordat_node_sealed_bytes_total", Help: "Sealed bytes sent to and received from the link."}),
		saved:  prometheus.NewCounter(prometheus.CounterOpts{Name: "concordat_node_saved_bytes_total", Help: "Sealed bytes that were here or there already."}),
		joined: prometheus.NewGauge(prometheus.GaugeOpts{Name: "concordat_node_last_join_time_seconds", Help: "When an enclave was last appraised and joined, in seconds since 1970."}),
	}
	r.MustRegister(m.events, m.moved, m.saved, m.joined)
	return m
}

// observe counts one event. It does not block: the node's loop calls it.
func (m *nodeMetrics) observe(e node.Event) {
	m.events.WithLabelValues(e.Kind).Inc()
	m.moved.Add(float64(e.Moved))
	m.saved.Add(float64(e.Saved))
	if e.Kind == "joined" {
		m.joined.SetToCurrentTime()
	}
}
