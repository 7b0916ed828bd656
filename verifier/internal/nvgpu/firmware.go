package nvgpu

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/concordat/concordat/attestation/nvgpu"
	"github.com/concordat/concordat/verifier/internal/check"
)

// The two extensions in which a leaf certificate names the firmware that its key
// belongs to.
var (
	oidCompositeDevice = asn1.ObjectIdentifier{2, 23, 133, 5, 4, 1}    // Hopper; TCG's first form, DICE "RIoT"
	oidTcbInfo         = asn1.ObjectIdentifier{2, 23, 133, 5, 4, 1, 1} // Blackwell; TCG DICE Attestation Architecture 1.1, 6.1.1
	oidSHA384          = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}
)

// checkFirmware demands that the firmware id in the leaf certificate is the one
// that the report states. A report that states none passes: its key, by the
// certificate, belongs to the firmware anyway.
func checkFirmware(chain []*x509.Certificate, report *nvgpu.Report, r *check.Recorder) {
	const name = "firmware-id"
	stated, ok, err := report.FWID()
	if err != nil {
		r.Fail(name, "a firmware id of 48 bytes", err.Error(), "")
		return
	}
	certified, err := firmwareIDs(chain)
	switch {
	case err != nil:
		r.Fail(name, "a firmware id in the leaf certificate", err.Error(), "")
	case !ok:
		r.NotChecked(name, "the report states no firmware id to compare")
	case len(certified) == 0:
		r.Fail(name, hex.EncodeToString(stated[:]), "no firmware id in the leaf certificate", "the certificate and the report are of different firmware")
	default:
		for _, id := range certified {
			if !bytes.Equal(id, stated[:]) {
				r.Fail(name, hex.EncodeToString(stated[:]), hex.EncodeToString(id), "the certificate and the report are of different firmware")
				return
			}
		}
		r.Pass(name, hex.EncodeToString(stated[:]))
	}
}

// firmwareIDs returns every firmware id that the leaf certificate names, SHA-384
// each.
func firmwareIDs(chain []*x509.Certificate) ([][]byte, error) {
	var ids [][]byte
	for _, e := range chain[leaf].Extensions {
		var id []byte
		var err error
		switch {
		case e.Id.Equal(oidCompositeDevice):
			id, err = compositeDevice(e.Value, chain[own].RawSubjectPublicKeyInfo)
		case e.Id.Equal(oidTcbInfo):
			id, err = tcbInfo(e.Value)
		default:
			continue
		}
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

type fwid struct {
	Alg    asn1.ObjectIdentifier
	Digest []byte
}

func (f *fwid) check() ([]byte, error) {
	if !f.Alg.Equal(oidSHA384) || len(f.Digest) != nvgpu.MeasurementSize {
		return nil, fmt.Errorf("firmware id of %d bytes by algorithm %v, want SHA-384", len(f.Digest), f.Alg)
	}
	return f.Digest, nil
}

// compositeDevice decodes SEQUENCE { version INTEGER, deviceID
// SubjectPublicKeyInfo, fwid SEQUENCE { hashAlg OID, digest OCTET STRING } } and
// demands that deviceID is the key of the device that issued the certificate.
func compositeDevice(der, deviceKey []byte) ([]byte, error) {
	var v struct {
		Version  int
		DeviceID asn1.RawValue
		FWID     fwid
	}
	if err := unmarshal(der, &v); err != nil {
		return nil, fmt.Errorf("composite device id: %w", err)
	}
	if !bytes.Equal(v.DeviceID.FullBytes, deviceKey) {
		return nil, errors.New("composite device id: not the key of the device that issued the certificate")
	}
	return v.FWID.check()
}

// tcbInfo decodes DiceTcbInfo, of which only fwids, [6] IMPLICIT SEQUENCE OF FWID,
// matters here, and returns the first.
func tcbInfo(der []byte) ([]byte, error) {
	const tagFWIDs = 6
	var fields []asn1.RawValue
	if err := unmarshal(der, &fields); err != nil {
		return nil, fmt.Errorf("TCB info: %w", err)
	}
	for _, f := range fields {
		if f.Class != asn1.ClassContextSpecific || f.Tag != tagFWIDs || !f.IsCompound {
			continue
		}
		var id fwid
		if _, err := asn1.Unmarshal(f.Bytes, &id); err != nil {
			return nil, fmt.Errorf("TCB info: firmware id: %w", err)
		}
		return id.check()
	}
	return nil, errors.New("TCB info: no firmware id")
}

func unmarshal(der []byte, v any) error {
	rest, err := asn1.Unmarshal(der, v)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes follow", len(rest))
	}
	return err
}
