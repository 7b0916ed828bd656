package log

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/merkle"
	"github.com/concordat/concordat/verifier/tlog"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/client"
)

// VerifierKey returns the C2SP verifier key of a log with this origin and key: the
// policy's log.key.
func VerifierKey(origin string, k cose.Key) (tlog.VerifierKey, error) {
	pub, ok := k.Public().(ed25519.PublicKey)
	if !ok {
		return tlog.VerifierKey{}, errors.New("log: its key is not Ed25519")
	}
	v, err := tlog.NewLogKey(origin, pub)
	if err != nil {
		return tlog.VerifierKey{}, fmt.Errorf("log: %w", err)
	}
	return v, nil
}

// signer signs checkpoints: those that are published, and those that Tessera
// keeps in its directory for itself (note.Signer).
type signer struct {
	key  tlog.VerifierKey
	hash uint32
	priv *cose.Signer
}

func newSigner(origin string, priv *cose.Signer) (*signer, error) {
	if priv == nil {
		return nil, errors.New("log: no key")
	}
	key, err := VerifierKey(origin, priv.Public())
	if err != nil {
		return nil, err
	}
	// The key hash is the middle part of "name+hash+key".
	_, rest, _ := strings.Cut(key.String(), "+")
	digits, _, _ := strings.Cut(rest, "+")
	id, err := hex.DecodeString(digits)
	if err != nil || len(id) != 4 {
		return nil, errors.New("log: internal error: verifier key without a hash")
	}
	return &signer{key: key, hash: binary.BigEndian.Uint32(id), priv: priv}, nil
}

func (s *signer) Name() string    { return s.key.Name() }
func (s *signer) KeyHash() uint32 { return s.hash }

// Sign implements note.Signer: text is a checkpoint's body.
func (s *signer) Sign(text []byte) ([]byte, error) { return s.priv.SignRaw(text) }

// checkpoint is a checkpoint and a note that carries it.
type checkpoint struct {
	tlog.Checkpoint
	note []byte
}

// sign returns the signed checkpoint of everything in the log that is durable.
func (l *Log) sign(ctx context.Context) (*checkpoint, error) {
	size, err := l.Size(ctx)
	if err != nil {
		return nil, err
	}
	c := checkpoint{Checkpoint: tlog.Checkpoint{Origin: l.cfg.Origin, Size: size, Root: merkle.EmptyRoot()}}
	if size > 0 {
		nodes, err := client.FetchRangeNodes(ctx, size, l.reader.ReadTile)
		if err != nil {
			return nil, fmt.Errorf("log: root of %d entries: %w", size, err)
		}
		r, err := (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewRange(0, size, nodes)
		if err != nil {
			return nil, fmt.Errorf("log: root of %d entries: %w", size, err)
		}
		root, err := r.GetRootHash(nil)
		if err != nil || len(root) != len(c.Root) {
			return nil, fmt.Errorf("log: root of %d entries: %w", size, err)
		}
		c.Root = cose.Digest(root)
	}
	sig, err := l.signer.Sign(c.Text())
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	blob := append(binary.BigEndian.AppendUint32(nil, l.signer.hash), sig...)
	c.note = append(c.Text(), "\n— "+l.signer.Name()+" "+base64.StdEncoding.EncodeToString(blob)+"\n"...)
	if _, err := l.open(c.note); err != nil {
		return nil, err
	}
	return &c, nil
}
