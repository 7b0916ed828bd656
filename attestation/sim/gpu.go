package sim

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/nvgpu"
	"github.com/concordat/concordat/policy"
)

// gpuFaults are what can be wrong with the GPUs, with all of them alike.
var gpuFaults = []string{
	"gpu-bad-signature", // the report is signed by another key
	"gpu-duplicate",     // every GPU's evidence is of GPU 0
	"gpu-forged-root",   // the chain has NVIDIA's names under another root key
	"gpu-fwid",          // the report states other firmware than the certificate
	"gpu-hold",          // OCSP: the device certificate is on hold
	"gpu-measurement",   // one measurement differs
	"gpu-no-ocsp",       // no OCSP responses
	"gpu-old-driver",    // a driver below the policy's floor
	"gpu-old-vbios",     // a VBIOS below the policy's floor
	"gpu-ppcie",         // protected-PCIe mode
	"gpu-revoked",       // OCSP: the device certificate is revoked, key compromise
	"gpu-stale-ocsp",    // OCSP responses of the day before yesterday
	"gpu-stranger",      // a genuine device that the policy does not name
	"gpu-wrong-nonce",   // the report answers another challenge
}

// What a simulated GPU runs. VBIOS and driver are versions that exist.
const (
	gpuDriver    = "550.90.07"
	gpuVBIOS     = "96.00.9F.00.01"
	gpuOldDriver = "550.9.7" // as text it would sort above gpuDriver
	gpuOldVBIOS  = "96.00.9E.00.FF"
	gpuBlocks    = 64 // measurement blocks of a Hopper report
	gpuMeasured  = 41 // of which these are not zero
)

// gpuState holds the GPUs' certificates.
type gpuState struct {
	devices []gpuDevice
}

// issueGPU makes the chains and OCSP responses of all GPUs.
func (m *Machine) issueGPU(at time.Time) ([]attestation.Endorsement, error) {
	pki, err := m.newGPUPKI()
	if err != nil {
		return nil, err
	}
	var docs []attestation.Endorsement
	var devices []gpuDevice
	for i := range m.cfg.GPUs {
		if m.has("gpu-duplicate") {
			i = 0
		}
		d, err := pki.device(i)
		if err != nil {
			return nil, err
		}
		chain := attestation.Endorsement{Type: attestation.TypeNVIDIAChain, Data: d.chainPEM}
		own := []attestation.Endorsement{chain}
		if !m.has("gpu-no-ocsp") {
			responses, err := pki.responses(d, at)
			if err != nil {
				return nil, err
			}
			own = append(own, responses...)
		}
		for _, e := range own {
			d.refs = append(d.refs, e.Digest())
		}
		docs = append(docs, own...)
		devices = append(devices, d)
	}
	m.gpu.devices = devices
	return docs, nil
}

// collectGPU returns the signed report of GPU i over nonce.
func (m *Machine) collectGPU(i int, nonce [32]byte) (attestation.Item, error) {
	d := m.gpu.devices[i]
	r, err := m.gpuReport(i, nonce)
	if err != nil {
		return attestation.Item{}, err
	}
	signed, err := r.AppendSigned(nil)
	if err != nil {
		return attestation.Item{}, err
	}
	key := d.leafKey
	if m.has("gpu-bad-signature") {
		key = m.gpuKey(i, "other")
	}
	digest := sha512.Sum384(signed)
	der, err := key.Sign(nil, digest[:], crypto.SHA384)
	if err != nil {
		return attestation.Item{}, err
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		return attestation.Item{}, err
	}
	sig.R.FillBytes(r.Signature[:48])
	sig.S.FillBytes(r.Signature[48:])
	raw, err := r.Marshal()
	if err != nil {
		return attestation.Item{}, err
	}
	return attestation.Item{Kind: attestation.KindGPU, Raw: raw, Endorsements: d.refs}, nil
}

// gpuReport returns the unsigned report of GPU i, faults included. Without
// faults all but the nonces follows from the vendor's seed.
func (m *Machine) gpuReport(i int, nonce [32]byte) (*nvgpu.Report, error) {
	driver, vbios, feature, fwid := gpuDriver, gpuVBIOS, nvgpu.SinglePassThrough, m.gpuFWID()
	r := &nvgpu.Report{RequestNonce: nonce}
	if m.has("gpu-wrong-nonce") {
		r.RequestNonce[0] ^= 1
	}
	if m.has("gpu-old-driver") {
		driver = gpuOldDriver
	}
	if m.has("gpu-old-vbios") {
		vbios = gpuOldVBIOS
	}
	if m.has("gpu-ppcie") {
		feature = nvgpu.ProtectedPCIe
	}
	if m.has("gpu-fwid") {
		fwid[0] ^= 1
	}
	copy(r.ResponseNonce[:], m.chipBytes(fmt.Sprintf("gpu/%d/nonce/%s", i, hex.EncodeToString(nonce[:])), len(r.ResponseNonce)))
	for n := 1; n <= gpuBlocks; n++ {
		b := nvgpu.Block{Index: byte(n), Type: 1} // mutable firmware, digest (DSP0274 1.1, table 45)
		if n <= gpuMeasured {
			copy(b.Value[:], m.cfg.Vendor.bytes(fmt.Sprintf("nvidia/measurement/%d", n), len(b.Value)))
		}
		r.Blocks = append(r.Blocks, b)
	}
	if m.has("gpu-measurement") {
		r.Blocks[2].Value[0] ^= 1
	}
	v, err := nvgpu.EncodeVBIOS(vbios)
	if err != nil {
		return nil, err
	}
	r.Opaque = []nvgpu.Field{
		{Type: nvgpu.FieldVBIOS, Data: v},
		{Type: nvgpu.FieldBoardID, Data: binary.LittleEndian.AppendUint32(nil, 0x3b1)},
		{Type: nvgpu.FieldChipSKU, Data: []byte("882\x00")},
		{Type: nvgpu.FieldProject, Data: []byte("1010\x00")},
		{Type: nvgpu.FieldProjectSKU, Data: []byte("0200\x00")},
		{Type: nvgpu.FieldDriver, Data: []byte(driver + "\x00")},
		{Type: nvgpu.FieldNVDEC0, Data: []byte{nvgpu.NVDEC0Off}},
		{Type: nvgpu.FieldFWID, Data: fwid},
		{Type: nvgpu.FieldFeatureFlag, Data: []byte{byte(feature)}},
	}
	return r, nil
}

// gpuFWID returns the SHA-384 of the firmware that the vendor's GPUs boot.
func (m *Machine) gpuFWID() []byte { return m.cfg.Vendor.bytes("nvidia/fwid", nvgpu.MeasurementSize) }

// describeGPU adds NVIDIA's root, and a policy for exactly these GPUs.
func (m *Machine) describeGPU(d *Description) error {
	good := &Machine{cfg: m.cfg}
	good.cfg.Faults = nil
	pki, err := good.newGPUPKI()
	if err != nil {
		return err
	}
	g := &policy.GPU{
		Architectures: []string{"hopper"}, MinCount: uint64(m.cfg.GPUs),
		MinDriver: gpuDriver, MinVBIOS: gpuVBIOS,
	}
	r, err := good.gpuReport(0, [32]byte{})
	if err != nil {
		return err
	}
	g.Measurements = []policy.GPUMeasured{{Name: "simulated Hopper, driver " + gpuDriver + ", VBIOS " + gpuVBIOS, Digest: nvgpu.MeasurementsDigest(r)}}
	for i := range m.cfg.GPUs {
		dev, err := pki.device(i)
		if err != nil {
			return err
		}
		g.Devices = append(g.Devices, policy.Hex(dev.cert.SerialNumber.Bytes()))
	}
	slices.SortFunc(g.Devices, func(a, b policy.Hex) int { return bytes.Compare(a, b) })
	d.Platforms.GPU = g
	d.Roots = append(d.Roots, sha256.Sum256(pki.root.cert.RawSubjectPublicKeyInfo))
	return nil
}
