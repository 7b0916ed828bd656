package keyfile

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/concordat/concordat/verifier/tlog"
)

// A witness's key file is one line in signed-note's form,
// "PRIVATE+KEY+<name>+<hash>+<base64 of type || seed>", with the type and the hash of
// the public key (C2SP tlog-cosignature: type 04).
const (
	witnessPrefix = "PRIVATE+KEY+"
	witnessType   = 4
)

// CreateWitness makes a witness key under the name, writes it as [Create] does
// and returns its public half.
func CreateWitness(path, name string) (tlog.VerifierKey, error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tlog.VerifierKey{}, err
	}
	k, err := tlog.NewWitnessKey(name, pub)
	if err != nil {
		return tlog.VerifierKey{}, err
	}
	seed := base64.StdEncoding.EncodeToString(append([]byte{witnessType}, priv.Seed()...))
	return k, Create(path, []byte(witnessPrefix+nameAndHash(k)+seed+"\n"))
}

// nameAndHash returns "<name>+<hash>+" of the key.
func nameAndHash(k tlog.VerifierKey) string {
	s := k.String()
	return s[:len(k.Name())+10]
}

// ReadWitness reads what [CreateWitness] wrote, as [Read] does.
func ReadWitness(path string) (ed25519.PrivateKey, tlog.VerifierKey, error) {
	b, err := Read(path)
	if err != nil {
		return nil, tlog.VerifierKey{}, err
	}
	bad := fmt.Errorf("%s: not a witness key", path)
	line, ok := bytes.CutSuffix(b, []byte("\n"))
	rest, ok2 := strings.CutPrefix(string(line), witnessPrefix)
	name, tail, ok3 := strings.Cut(rest, "+")
	_, data, ok4 := strings.Cut(tail, "+")
	if !ok || !ok2 || !ok3 || !ok4 {
		return nil, tlog.VerifierKey{}, bad
	}
	seed, err := base64.StdEncoding.Strict().DecodeString(data)
	if err != nil || len(seed) != 1+ed25519.SeedSize || seed[0] != witnessType {
		return nil, tlog.VerifierKey{}, bad
	}
	priv := ed25519.NewKeyFromSeed(seed[1:])
	k, err := tlog.NewWitnessKey(name, priv.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, tlog.VerifierKey{}, bad
	}
	if again := witnessPrefix + nameAndHash(k) + data; subtle.ConstantTimeCompare([]byte(again), line) != 1 {
		return nil, tlog.VerifierKey{}, fmt.Errorf("%w: the hash is not that of its name and key", bad)
	}
	return priv, k, nil
}
