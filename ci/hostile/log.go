package hostile

import (
	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/verifier/receipt"
)

// Logged returns the statements of enclaves that were handed to the link for the
// log, in that order and each once, however often it was handed over, whoever holds
// an epoch by them: their signatures were checked by the keys in their own evidence.
func (l *Link) Logged() []*receipt.Statement {
	keys := map[string]cose.Key{}
	var all []*receipt.Statement
	known := map[cose.Digest]bool{}
	for _, m := range l.Seen(func(m Message) bool { return m.Up && m.Method == "Append" }) {
		u, err := receipt.Parse(m.Body.(*concordatv1.AppendRequest).GetEntry())
		if err != nil {
			continue
		}
		if claims, err := receipt.SelfSigned(u); err == nil {
			keys[u.Issuer()] = claims.SignPub
		}
		if s, err := u.Verify(keys[u.Issuer()]); err == nil && !known[s.Digest()] {
			known[s.Digest()] = true
			all = append(all, s)
		}
	}
	return all
}

// IsLogged matches the entry of a statement of a kind.
func IsLogged(kind receipt.Kind) Match {
	return func(m Message) bool {
		if !m.Up || m.Method != "Append" {
			return false
		}
		u, err := receipt.Parse(m.Body.(*concordatv1.AppendRequest).GetEntry())
		return err == nil && u.Kind() == kind
	}
}
