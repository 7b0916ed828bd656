package attestation

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
)

// Simulated certificates carry two marks, so that no verifier takes them for a
// vendor's whatever roots it was given:
//
//   - every certificate's serial number starts with [SimulatedSerial] (vendors'
//     formats leave the serial free);
//   - the root and every intermediate carry the extension [OIDSimulated]. Leaves
//     do not: AMD's and Intel's formats list the extensions of a leaf, and
//     readers refuse others.

// OIDSimulated is the extension of a simulated CA certificate: 1.1 under the
// enterprise number 32473, which RFC 5612 reserves for documentation, so that no
// vendor issues under it. Its value is an ASN.1 NULL.
var OIDSimulated = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 1}

// SimulatedSerial starts the serial number, big-endian, of every simulated
// certificate; 8 more bytes follow.
const SimulatedSerial = "SIMULATED"

const simulatedSerialLen = len(SimulatedSerial) + 8

// Marked reports whether c carries any mark of the simulator. A real appraisal
// refuses such a certificate.
func Marked(c *x509.Certificate) bool {
	return markedSerial(c) || markedExtension(c)
}

// FullyMarked reports whether c carries all marks that a simulated certificate
// needs: the serial number, and for a CA the extension too. A simulated
// appraisal demands it of every certificate of a chain.
func FullyMarked(c *x509.Certificate) bool {
	return markedSerial(c) && (!c.IsCA || markedExtension(c))
}

func markedSerial(c *x509.Certificate) bool {
	if c.SerialNumber == nil || c.SerialNumber.Sign() < 0 {
		return false
	}
	b := c.SerialNumber.Bytes()
	return len(b) == simulatedSerialLen && bytes.HasPrefix(b, []byte(SimulatedSerial))
}

func markedExtension(c *x509.Certificate) bool {
	for _, e := range c.Extensions {
		if e.Id.Equal(OIDSimulated) {
			return true
		}
	}
	return false
}
