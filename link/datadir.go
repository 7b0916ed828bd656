package link

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"path/filepath"
	"time"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/daemon/dial"
	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/link/log"
)

// Names in the data directory. Each federation has a directory of its own, named
// by its id in hex.
const (
	lockFile       = "lock"
	stateFile      = "link.db"
	addressFile    = "address"
	tlsKeyFile     = "tls.key"
	logKeyFile     = "log.key"
	federationsDir = "federations" // policy chains, any name
	chunksDir      = "chunks"
	logDir         = "log"
)

var disk durable.OS

// lock takes the data directory for this process, until it is closed or the
// process ends in any way.
func lock(dir string) (io.Closer, error) {
	if err := durable.MkdirAll(disk, filepath.Join(dir, federationsDir), 0o700); err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	f, err := disk.Lock(filepath.Join(dir, lockFile))
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	return f, nil
}

// LogKey returns the C2SP verifier key under which a link with this data
// directory signs a log of the origin: what goes into the federation's policy as
// log.key before there is a federation. It makes the key if there is none.
func LogKey(data, origin string) (string, error) {
	path := filepath.Join(data, logKeyFile)
	if _, err := disk.Stat(path); errors.Is(err, fs.ErrNotExist) {
		l, err := lock(data) // two that make it at once would make two
		if err != nil {
			return "", err
		}
		defer l.Close()
	}
	k, err := key(path, cose.EdDSA)
	if err != nil {
		return "", err
	}
	v, err := log.VerifierKey(origin, k.Public())
	if err != nil {
		return "", err
	}
	return v.String(), nil
}

// key reads a private key, or makes it where there is no file. The data
// directory's lock is held.
func key(path string, alg cose.Alg) (*cose.Signer, error) {
	b, err := durable.ReadFile(disk, path, 16<<10)
	if errors.Is(err, fs.ErrNotExist) {
		k, err := cose.GenerateSigner(alg)
		if err != nil {
			return nil, fmt.Errorf("link: %w", err)
		}
		if b, err = k.MarshalPEM(); err != nil {
			return nil, fmt.Errorf("link: %w", err)
		}
		if err := durable.WriteFile(disk, path, b, 0o600); err != nil {
			return nil, fmt.Errorf("link: %w", err)
		}
		return k, nil
	}
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	k, err := cose.ParsePEM(b)
	if err != nil {
		return nil, fmt.Errorf("link: %s: %w", path, err)
	}
	if k.Public().Alg() != alg {
		return nil, fmt.Errorf("link: %s holds a key for %v, want %v", path, k.Public().Alg(), alg)
	}
	return k, nil
}

// certificate returns the configured certificate, or a self-signed one for the
// data directory's key; and the pin to write behind the address, if there is need
// for one.
func (c *Config) certificate() (tls.Certificate, *dial.Pin, error) {
	if c.TLSCert != "" {
		cert, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		if err != nil {
			return cert, nil, fmt.Errorf("link: %w", err)
		}
		return cert, nil, nil
	}
	// The key is the identity that callers pin; the certificate around it is made
	// anew at every start and says nothing.
	path := filepath.Join(c.Data, tlsKeyFile)
	k, err := key(path, cose.ES256)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	p, err := k.MarshalPEM()
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("link: %w", err)
	}
	priv, err := privateKey(p)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("link: %s: %w", path, err)
	}
	now := c.Now()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "concordat link"},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	if host, _, err := net.SplitHostPort(c.Listen); err == nil {
		if ip := net.ParseIP(host); ip != nil {
			tmpl.IPAddresses = []net.IP{ip}
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, priv.Public(), priv)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("link: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("link: %w", err)
	}
	pin := dial.PinOf(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: priv, Leaf: leaf}, &pin, nil
}

func privateKey(pemBytes []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(pemBytes)
	if block == nil {
		return nil, errors.New("no PEM")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("not a PKCS #8 key")
	}
	priv, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("not an ECDSA key")
	}
	return priv, nil
}
