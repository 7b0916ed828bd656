package link

import (
	"github.com/concordat/concordat/link/mailbox"
	"github.com/prometheus/client_golang/prometheus"
)

// counters are the link's counters. None has a label that names a party: what a
// scraper learns is how busy the link is.
type counters struct {
	attachedNow                                                   *prometheus.GaugeVec
	sent, refused, delivered, entries, chunks, chunkBytes, faults prometheus.Counter
	releasedChunks, releasedBytes                                 prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *counters {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "concordat", Subsystem: "link", Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	m := &counters{
		attachedNow:    prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "concordat", Subsystem: "link", Name: "attached", Help: "Parties that are attached now."}, []string{"role"}),
		sent:           counter("payloads_stored_total", "Payloads that were stored for a mailbox."),
		refused:        counter("payloads_refused_total", "Payloads that were not stored."),
		delivered:      counter("payloads_delivered_total", "Payloads that were handed to their recipient, repetitions included."),
		entries:        counter("log_entries_total", "Append calls that were answered with an index, repetitions included."),
		chunks:         counter("chunks_stored_total", "Chunks that were stored."),
		chunkBytes:     counter("chunk_bytes_stored_total", "Bytes of chunks that were stored."),
		releasedChunks: counter("chunks_released_total", "Chunks of runs that nobody needs any more, which were removed."),
		releasedBytes:  counter("chunk_bytes_released_total", "Bytes of chunks that were removed."),
		faults:         counter("faults_total", "Calls that failed by the link's own fault."),
	}
	r.MustRegister(m.attachedNow)
	return m
}

func (m *counters) attached(r mailbox.Role, n float64) {
	m.attachedNow.WithLabelValues(roleName(r)).Add(n)
}
