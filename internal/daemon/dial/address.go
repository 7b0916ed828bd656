package dial

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Address says where a link listens and, if it has a pin, which key it must
// prove to hold.
type Address struct {
	HostPort string // "host:port", as net.Dial takes it
	Pin      *Pin   // nil: the certificate is checked against the system's roots
}

// Pin is the SHA-256 of a certificate's DER SubjectPublicKeyInfo (the value that
// RFC 7469 2.4 pins).
type Pin [sha256.Size]byte

const pinPrefix = "sha256:"

// PinOf returns the pin of a certificate's key.
func PinOf(c *x509.Certificate) Pin { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// String returns "sha256:<hex>".
func (p Pin) String() string { return pinPrefix + hex.EncodeToString(p[:]) }

// ParseAddress reads "host:port" or "host:port#sha256:<64 hex digits>".
func ParseAddress(s string) (Address, error) {
	if len(s) > 1024 {
		return Address{}, fmt.Errorf("link address: %d characters, limit 1024", len(s))
	}
	hostport, pin, pinned := strings.Cut(s, "#")
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return Address{}, fmt.Errorf(`link address %q: want "host:port" or "host:port#sha256:<hex>"`, s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); host == "" || err != nil || n == 0 {
		return Address{}, fmt.Errorf("link address %q: want a host and a port number", s)
	}
	a := Address{HostPort: hostport}
	if !pinned {
		return a, nil
	}
	digits, ok := strings.CutPrefix(pin, pinPrefix)
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != sha256.Size {
		return Address{}, fmt.Errorf("link address %q: the pin is not sha256: and 64 hex digits", s)
	}
	a.Pin = (*Pin)(b)
	return a, nil
}

// String returns what [ParseAddress] reads.
func (a Address) String() string {
	if a.Pin == nil {
		return a.HostPort
	}
	return a.HostPort + "#" + a.Pin.String()
}
