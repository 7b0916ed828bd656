package receipt

import (
	"errors"
	"fmt"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
)

// ErrVoid is wrapped for a statement that counts for nothing where it stands in the
// log: its instance holds no epoch, or a later epoch had begun (protocol F14).
var ErrVoid = errors.New("statement is void")

// Epochs says who speaks for a federation's enclave, from its log alone: an epoch
// belongs to the first instance whose evidence statement claims it, and what an
// instance signs counts from there to the first evidence of a later epoch. Feed it
// the statements in log order. It appraises nothing: whoever must not believe an
// evidence statement leaves it out. It is not safe for concurrent use. The zero
// value is the empty log.
type Epochs struct {
	highest uint64
	holders map[uint64]ID
	keys    map[string]holder // by issuer
	last    Digest
}

type holder struct {
	Enclave
	key cose.Key
}

// Highest returns the highest epoch so far, 0 if there is none. A new instance
// claims one more.
func (e *Epochs) Highest() uint64 { return e.highest }

// Last returns the digest of the last statement that counted: what the first
// statement of the next instance follows.
func (e *Epochs) Last() Digest { return e.last }

// Holder returns the instance that holds the highest epoch, and false if there is
// none. Its Evidence is its first evidence statement: runs and steps name that one.
func (e *Epochs) Holder() (Enclave, bool) {
	id, ok := e.holders[e.highest]
	return e.keys[EnclaveIssuer(id)].Enclave, ok
}

// Evidence takes the next evidence statement and returns its claims. The errors wrap
// [ErrVoid] if the epoch is taken or is not the next one, and e is then unchanged.
func (e *Epochs) Evidence(u *Unverified, federation Digest, simulated bool) (*attestation.Claims, error) {
	claims, err := SelfSigned(u)
	if err != nil {
		return nil, err
	}
	if u.Federation() != federation || claims.Federation != federation || claims.Simulated != simulated {
		return nil, fmt.Errorf("%w: evidence of another federation", ErrVoid)
	}
	owner, taken := e.holders[claims.Epoch]
	switch {
	case taken && owner != claims.Instance:
		return nil, fmt.Errorf("%w: epoch %d belongs to instance %s", ErrVoid, claims.Epoch, owner)
	case claims.Epoch < e.highest:
		return nil, fmt.Errorf("%w: epoch %d after epoch %d", ErrVoid, claims.Epoch, e.highest)
	case !taken && claims.Epoch != e.highest+1:
		return nil, fmt.Errorf("%w: epoch %d does not follow epoch %d", ErrVoid, claims.Epoch, e.highest)
	case taken && (e.keys[u.Issuer()].key != claims.SignPub || e.keys[u.Issuer()].Policy != claims.Policy):
		return nil, fmt.Errorf("%w: instance %s claims another key or policy than before in its epoch", ErrVoid, claims.Instance)
	}
	if !taken {
		if e.holders == nil {
			e.holders, e.keys = map[uint64]ID{}, map[string]holder{}
		}
		if _, before := e.keys[u.Issuer()]; before {
			return nil, fmt.Errorf("%w: instance %s held an earlier epoch", ErrVoid, claims.Instance)
		}
		e.holders[claims.Epoch] = claims.Instance
		e.keys[u.Issuer()] = holder{Enclave{claims.Instance, claims.Epoch, claims.Policy, u.Digest()}, claims.SignPub}
		e.highest = claims.Epoch
	}
	e.last = u.Digest()
	return claims, nil
}

// Verify checks a statement of an enclave at its place in the log: only the holder
// of the highest epoch counts. The errors wrap [ErrVoid] or [cose.ErrSignature].
func (e *Epochs) Verify(u *Unverified) (*Statement, Enclave, error) {
	h, ok := e.keys[u.Issuer()]
	switch {
	case !ok:
		return nil, Enclave{}, fmt.Errorf("%w: %s holds no epoch", ErrVoid, u.Issuer())
	case h.Epoch != e.highest:
		return nil, Enclave{}, fmt.Errorf("%w: %s signs in epoch %d, it held epoch %d", ErrVoid, u.Issuer(), e.highest, h.Epoch)
	}
	s, err := u.Verify(h.key)
	if err != nil {
		return nil, Enclave{}, err
	}
	e.last = u.Digest()
	return s, h.Enclave, nil
}

// KeyOf returns the signing key of an issuer that holds or held an epoch.
func (e *Epochs) KeyOf(issuer string) (cose.Key, Enclave, bool) {
	h, ok := e.keys[issuer]
	return h.key, h.Enclave, ok
}

// SelfSigned verifies an evidence statement by the key in its own claims and returns
// them. That the claims are true is for those who appraise; it only says that one
// key speaks.
func SelfSigned(u *Unverified) (*attestation.Claims, error) {
	claims, err := attestation.ParseClaims(u.Claims())
	if err != nil {
		return nil, err
	}
	if EnclaveIssuer(claims.Instance) != u.Issuer() {
		return nil, fmt.Errorf("evidence statement: issued by %s about instance %s", u.Issuer(), claims.Instance)
	}
	if _, err := u.Verify(claims.SignPub); err != nil {
		return nil, err
	}
	return claims, nil
}
