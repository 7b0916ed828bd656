package session

import (
	"fmt"
	"testing"

	"github.com/concordat/concordat/internal/cose"
)

// BenchmarkJoin runs whole joins: the node's side and the enclave's, appraisal and
// evidence excepted.
func BenchmarkJoin(b *testing.B) {
	w := theWorld()
	p := w.node(b, "a", "node of a")
	for b.Loop() {
		b.StopTimer()
		c := w.challenge(b, p)
		win, offers := w.window(b, c.Hello())
		o, passed := w.appraise(b, c, offers[0])
		b.StartTimer()
		if _, err := c.Offer(offers[0], now); err != nil {
			b.Fatal(err)
		}
		j, join, err := c.Join(passed, o, p.key, p.credential, nodeHeads)
		if err != nil {
			b.Fatal(err)
		}
		joined, accept, err := win.Accept(join, w.policy, nobody, now, enclaveHeads)
		if err != nil {
			b.Fatal(err)
		}
		_, _, confirm, err := j.Finish(accept)
		if err != nil {
			b.Fatal(err)
		}
		if err := Confirm(joined.Session, confirm); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRecord(b *testing.B) {
	for _, size := range []int{256, 64 << 10, MaxMessage} {
		plain := make([]byte, size)
		b.Run(fmt.Sprintf("seal/%d", size), func(b *testing.B) {
			node, _ := joined(b)
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := node.Seal(plain); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("open/%d", size), func(b *testing.B) {
			node, enclave := joined(b)
			frame, err := node.Seal(plain)
			if err != nil {
				b.Fatal(err)
			}
			var f recordFrame
			if err := cose.Unmarshal(frame, &f); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(size))
			for b.Loop() {
				enclave.in.next = f.Counter // the same record each time
				if _, err := enclave.Open(frame); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
