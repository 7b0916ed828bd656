package attestation

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
)

func TestMarks(t *testing.T) {
	serial := func(s string) *big.Int { return new(big.Int).SetBytes([]byte(s)) }
	ext := []pkix.Extension{{Id: OIDSimulated}}
	full := serial(SimulatedSerial + "12345678")
	for name, c := range map[string]struct {
		cert         x509.Certificate
		marked, full bool
	}{
		"AMD's serial 0":         {x509.Certificate{SerialNumber: new(big.Int)}, false, false},
		"no serial":              {x509.Certificate{}, false, false},
		"leaf":                   {x509.Certificate{SerialNumber: full}, true, true},
		"CA":                     {x509.Certificate{SerialNumber: full, IsCA: true, Extensions: ext}, true, true},
		"CA without extension":   {x509.Certificate{SerialNumber: full, IsCA: true}, true, false},
		"CA without serial":      {x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, Extensions: ext}, true, false},
		"leaf with extension":    {x509.Certificate{SerialNumber: big.NewInt(1), Extensions: ext}, true, false},
		"prefix of other length": {x509.Certificate{SerialNumber: serial(SimulatedSerial)}, false, false},
		"negative":               {x509.Certificate{SerialNumber: new(big.Int).Neg(full)}, false, false},
	} {
		if got := Marked(&c.cert); got != c.marked {
			t.Errorf("%s: Marked %v", name, got)
		}
		if got := FullyMarked(&c.cert); got != c.full {
			t.Errorf("%s: FullyMarked %v", name, got)
		}
	}
}
