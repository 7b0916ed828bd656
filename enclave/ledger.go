package enclave

import (
	"context"

	"github.com/concordat/concordat/verifier/receipt"
)

// ledger is the enclave's own chain of statements and what is known to be
// published of it. The loop owns it; written is read by the writer alone.
type ledger struct {
	chain     *receipt.Chain
	written   chan *receipt.Statement
	published map[Digest]uint64 // statement → log index, once in a verified checkpoint
	then      map[Digest][]func()
}

// sign makes the next statement of the chain and queues it for the log. Everything
// signed is logged, in order: the chain has no gaps. may, if it is not nil, has the last
// word: what it refuses was never said, and does not reach the log.
func (e *Enclave) sign(kind receipt.Kind, run Digest, body any, may func(*receipt.Statement) error) (*receipt.Statement, error) {
	seq, prev := e.ledger.chain.Next()
	s := &receipt.Statement{
		Kind: kind, Federation: e.fed, Run: run, Seq: seq, Prev: prev,
		Policy: e.policy.Digest(), Issuer: receipt.EnclaveIssuer(e.instance), Body: body,
	}
	if _, err := receipt.Sign(s, e.signer); err != nil {
		return nil, err
	}
	if may != nil {
		if err := may(s); err != nil {
			return nil, err
		}
	}
	if err := e.ledger.chain.Extend(s); err != nil {
		return nil, err
	}
	select {
	case e.ledger.written <- s:
	default:
		e.loop.Stop(errWriter)
		return nil, errWriter
	}
	return s, nil
}

// write appends what was signed to the log, in order. It is the only caller of
// Append.
func (e *Enclave) write(ctx context.Context) error {
	for {
		select {
		case s := <-e.ledger.written:
			if _, err := e.peer.Append(ctx, s.Raw()); err != nil {
				if ctx.Err() == nil {
					return err
				}
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// whenPublished runs f on the loop once the statement is in a checkpoint that the
// policy's witnesses cosigned; at once if it is.
func (e *Enclave) whenPublished(statement Digest, f func()) {
	if _, ok := e.ledger.published[statement]; ok {
		f()
		return
	}
	e.ledger.then[statement] = append(e.ledger.then[statement], f)
}

func (e *Enclave) notePublished(statement Digest, index uint64) {
	if _, ok := e.ledger.published[statement]; ok {
		return
	}
	e.ledger.published[statement] = index
	for _, f := range e.ledger.then[statement] {
		f()
	}
	delete(e.ledger.then, statement)
}
