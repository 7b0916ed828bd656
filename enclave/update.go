package enclave

import (
	"context"
	"errors"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/chunkstore/transfer"
	"github.com/concordat/concordat/enclave/aggregate"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

// update is an admitted contribution: where its arrays can be read again.
type update struct {
	parcel  *chunkstore.Parcel
	arrays  object.ArrayRecord // in outline, one for each trained one of the model; nil for an evaluation
	metrics object.MetricRecord
	weight  aggregate.Contribution
	proof   receipt.Proof // of the manifest in the contribution's chunk tree
}

// read opens a contribution and checks all of it: the chunks against the statement,
// the arrays against the model, the metrics against the policy.
func (r *run) read(ctx context.Context, c *contribution, ref session.ManifestRef, uplink [32]byte, opens string, m *model, p *policy.Policy) (*update, error) {
	body := c.statement.Body.(*receipt.Contribution)
	if Digest(ref.ID) != body.Manifest {
		return nil, errors.New("manifest is not the one that the statement names")
	}
	key := chunkstore.NewUplink(uplink, r.digest, body.Seq)
	remote := transfer.NewReader(r.e.chunks, chunkstore.Scope{Federation: r.e.fed, Run: r.digest, Owner: c.node})
	parcel, err := chunkstore.OpenParcel(ctx, key, chunkstore.Ref{OID: object.ID(ref.OID), ID: chunkstore.ID(ref.ID), Size: ref.Size}, body.ChunkRoot, body.Count, remote)
	if err != nil {
		return nil, err
	}
	n, err := object.Inflate(parcel.Root(), parcel.Inline, object.Limits{Objects: maxObjects, Bytes: maxOutline, Outline: true})
	if err != nil {
		return nil, err
	}
	dict, ok := n.(object.RecordDict)
	if !ok {
		return nil, errors.New("contribution is no RecordDict")
	}
	u := &update{parcel: parcel, proof: receipt.Proof{Size: body.Count}}
	for _, h := range parcel.ManifestProof() {
		u.proof.Path = append(u.proof.Path, h)
	}
	if r.custom != nil {
		return r.readCustom(ctx, u, dict)
	}
	train := opens == receipt.OpensTrain
	if err := flower.CheckReply(dict, train, p); err != nil {
		return nil, err
	}
	if u.arrays, u.metrics, err = flower.Split(dict, train); err != nil {
		return nil, err
	}
	weigh := aggregate.Weigh
	if train {
		weigh = r.strategy.Weigh
	}
	if u.weight, err = weigh(u.metrics, aggregate.ExamplesKey); err != nil {
		return nil, err
	}
	if !train {
		return u, nil
	}
	if err := flower.CheckTrained(u.arrays, m.arrays, m.trained); err != nil {
		return nil, err
	}
	ctx, done, err := r.e.firstReading(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	for k, i := range m.trained {
		if err := aggregate.Check(m.tensors[i], parcel.ArrayReader(ctx, u.arrays[k].Array)); err != nil {
			return nil, err
		}
	}
	return u, nil
}
