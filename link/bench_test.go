package link

import (
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/concordat/concordat/internal/relay"
)

// BenchmarkMailbox measures payloads a second from many nodes to one enclave, over
// TLS, from Send to delivery, each durable.
func BenchmarkMailbox(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size>>10, "KiB"), func(b *testing.B) {
			data := b.TempDir()
			c := newConsortium(b, data, "m", 1)
			c.host(b, data)
			addr, _ := startLink(b, data, func(c *Config) { c.Limits.NodeRate = 1e9; c.Limits.EnclaveRate = 1e9 })
			e := c.enclave(b, addr, 1).ready(b)
			var nodes []*party
			for _, m := range members {
				nodes = append(nodes, c.node(b, addr, m).ready(b))
			}
			payload := make([]byte, size)
			rand.Read(payload)
			b.SetBytes(int64(size))
			b.ResetTimer()
			window := make(chan struct{}, 256) // that wait at the link; a mailbox is bounded
			go func() {
				for i := range b.N {
					window <- struct{}{}
					if err := nodes[i%3].Send(relay.AnyEnclave, payload); err != nil {
						b.Error(err)
					}
				}
			}()
			for range b.N {
				d := recv(b, e.delivered, "payload")
				if err := e.Received(d.Handle); err != nil {
					b.Fatal(err)
				}
				<-window
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "payloads/s")
		})
	}
}
