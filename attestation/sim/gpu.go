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
	"gpu-nvdec",         // the video decoder is on, with firmware that is not NVIDIA's
	"gpu-no-ocsp",       // no OCSP responses
	"gpu-old-driver",    // a driver below the policy's floor
	"gpu-old-vbios",     // a VBIOS below the policy's floor
	"gpu-ppcie",         // protected-PCIe mode
	"gpu-revoked",       // OCSP: the device certificate is revoked, key compromise
	"gpu-stale-ocsp",    // OCSP responses of the day before yesterday
	"gpu-stranger",      // a genuine device that the policy does not name
	"gpu-wrong-nonce",   // the report answers another challenge
}

// switchFaults are what can be wrong with the switches of a machine that has some.
var switchFaults = []string{
	"gpu-topology",     // GPU 0 is linked to a switch of another machine
	"switch-id",        // the switches state ids that their certificates do not
	"switch-old-vbios", // a VBIOS below the policy's floor
	"switch-topology",  // the switches name other GPUs
}

// gpuState holds the certificates of the GPUs and then the switches.
type gpuState struct {
	devices []gpuDevice
	ids     [][]byte // the serial numbers of the devices, each its own even where evidence is of another
}

// issueGPU makes the chains and OCSP responses of all GPUs.
func (m *Machine) issueGPU(at time.Time) ([]attestation.Endorsement, error) {
	pki, err := m.newGPUPKI()
	if err != nil {
		return nil, err
	}
	var docs []attestation.Endorsement
	var devices []gpuDevice
	m.gpu.ids = nil
	for i := range m.GPUs() {
		m.gpu.ids = append(m.gpu.ids, pki.serial(i))
	}
	for i := range m.GPUs() {
		if i < m.cfg.GPUs && m.has("gpu-duplicate") {
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
	if m.cfg.Manifests {
		more, err := m.manifests(pki, at)
		if err != nil {
			return nil, err
		}
		docs = append(docs, more...)
	}
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

// gpuReport returns the unsigned report of device i, faults included. Without
// faults all but the nonces and the ids on links follows from the vendor's seed.
func (m *Machine) gpuReport(i int, nonce [32]byte) (*nvgpu.Report, error) {
	g, v := m.model(i), m.cfg.Vendor
	r := &nvgpu.Report{RequestNonce: nonce}
	if m.has("gpu-wrong-nonce") {
		r.RequestNonce[0] ^= 1
	}
	copy(r.ResponseNonce[:], m.chipBytes(fmt.Sprintf("gpu/%d/nonce/%s", i, hex.EncodeToString(nonce[:])), len(r.ResponseNonce)))
	for n := 1; n <= g.blocks; n++ {
		b := nvgpu.Block{Index: byte(n), Type: 1, Value: v.measurement(g, n)} // mutable firmware, digest (DSP0274 1.1, table 45)
		if n == nvgpu.BlockNVDEC0 {
			b.Value = [nvgpu.MeasurementSize]byte{} // nothing runs there
		}
		r.Blocks = append(r.Blocks, b)
	}
	if m.has("gpu-measurement") {
		r.Blocks[2].Value[0] ^= 1
	}
	vbios := g.vbios
	if m.has("gpu-old-vbios") && g != switchModel || m.has("switch-old-vbios") && g == switchModel {
		vbios = g.oldVBIOS
	}
	if g == switchModel {
		m.switchFields(r, i, vbios)
		return r, nil
	}
	return r, m.gpuFields(r, i, g, vbios)
}

// gpuFields adds the opaque fields of GPU i.
func (m *Machine) gpuFields(r *nvgpu.Report, i int, g *gpuModel, vbios string) error {
	driver, feature, fwid := g.driver, nvgpu.SinglePassThrough, m.cfg.Vendor.fwid(g)
	if m.has("gpu-old-driver") {
		driver = g.oldDriver
	}
	if m.has("gpu-ppcie") || m.cfg.Switches > 0 {
		feature = nvgpu.ProtectedPCIe
	}
	if m.has("gpu-fwid") {
		fwid[0] ^= 1
	}
	decoder := byte(nvgpu.NVDEC0Off)
	if m.has("gpu-nvdec") {
		decoder = nvgpu.NVDEC0On
	}
	v, err := nvgpu.EncodeVBIOS(vbios)
	if err != nil {
		return err
	}
	r.Opaque = []nvgpu.Field{
		{Type: nvgpu.FieldVBIOS, Data: v},
		{Type: nvgpu.FieldBoardID, Data: binary.LittleEndian.AppendUint32(nil, 0x3b1)},
		{Type: nvgpu.FieldChipSKU, Data: []byte(g.chipSKU + "\x00")},
		{Type: nvgpu.FieldProject, Data: []byte(g.project + "\x00")},
		{Type: nvgpu.FieldProjectSKU, Data: []byte(g.sku + "\x00")},
		{Type: nvgpu.FieldDriver, Data: []byte(driver + "\x00")},
		{Type: nvgpu.FieldNVDEC0, Data: []byte{decoder}},
		{Type: nvgpu.FieldFWID, Data: fwid},
		{Type: nvgpu.FieldFeatureFlag, Data: []byte{byte(feature), 0}},
	}
	if m.cfg.GPU == GPUBlackwell {
		r.Opaque = append(r.Opaque, nvgpu.Field{Type: nvgpu.FieldChipInfo, Data: []byte(g.chip + "\x00")})
	}
	if m.cfg.Switches > 0 {
		r.Opaque = append(r.Opaque, nvgpu.Field{Type: nvgpu.FieldPDI, Data: m.links(i)})
	}
	return nil
}

// links returns the far ends of GPU i's 18 links, of which the last is off.
func (m *Machine) links(i int) []byte {
	var out []byte
	for link := range 17 {
		id := m.pdi(m.cfg.GPUs + link%m.cfg.Switches)
		if i == 0 && m.has("gpu-topology") {
			id[0] ^= 1
		}
		slices.Reverse(id[:])
		out = append(out, id[:]...)
	}
	return append(out, make([]byte, nvgpu.PDISize)...)
}

// switchFields adds the opaque fields of device i, a switch.
func (m *Machine) switchFields(r *nvgpu.Report, i int, vbios string) {
	id := m.pdi(i)
	if m.has("switch-id") {
		id[0] ^= 1
	}
	gpus := bytes.Repeat([]byte{0xff}, 16*nvgpu.PDISize)
	for n := range m.cfg.GPUs {
		g := m.pdi(n)
		if m.has("switch-topology") {
			g[0] ^= 1
		}
		copy(gpus[n*nvgpu.PDISize:], g[:])
	}
	r.Opaque = []nvgpu.Field{
		{Type: nvgpu.FieldVBIOS, Data: []byte(vbios)},
		{Type: nvgpu.FieldPDI, Data: id[:]},
		{Type: nvgpu.FieldGPUs, Data: gpus},
	}
}

// pdi returns the id of device i on its links.
func (m *Machine) pdi(i int) nvgpu.PDI {
	return nvgpu.PDI(m.gpu.ids[i][len(m.gpu.ids[i])-nvgpu.PDISize:])
}

// describeGPU adds NVIDIA's roots, and a policy for exactly these devices.
func (m *Machine) describeGPU(d *Description) error {
	good := &Machine{cfg: m.cfg}
	good.cfg.Faults = nil
	pki, err := good.newGPUPKI()
	if err != nil {
		return err
	}
	g := &policy.GPU{
		Architectures: []string{m.cfg.GPU}, MinCount: uint64(m.cfg.GPUs),
		MinDriver: m.model(0).driver, MinVBIOS: m.model(0).vbios, RIM: m.cfg.Manifests,
	}
	if m.cfg.Switches > 0 {
		g.Modes, g.MinSwitches, g.MinSwitchVBIOS = []string{"ppcie"}, uint64(m.cfg.Switches), switchModel.vbios
	}
	for i := range m.GPUs() {
		good.gpu.ids = append(good.gpu.ids, pki.serial(i))
		g.Devices = append(g.Devices, policy.Hex(pki.serial(i)))
	}
	slices.SortFunc(g.Devices, func(a, b policy.Hex) int { return bytes.Compare(a, b) })
	for _, i := range []int{0, m.cfg.GPUs} { // one GPU stands for all, and one switch
		if m.cfg.Manifests || i >= m.GPUs() {
			break
		}
		r, err := good.gpuReport(i, [32]byte{})
		if err != nil {
			return err
		}
		name := fmt.Sprintf("simulated %s, VBIOS %s", m.model(i).chip, m.model(i).vbios)
		if driver := m.model(i).driver; driver != "" {
			name += ", driver " + driver
		}
		g.Measurements = append(g.Measurements, policy.GPUMeasured{Name: name, Digest: nvgpu.MeasurementsDigest(r)})
	}
	slices.SortFunc(g.Measurements, func(a, b policy.GPUMeasured) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
	d.Platforms.GPU = g
	d.Roots = append(d.Roots, sha256.Sum256(pki.root.cert.RawSubjectPublicKeyInfo))
	if m.cfg.Manifests {
		root, err := pki.manifestRoot()
		if err != nil {
			return err
		}
		d.Roots = append(d.Roots, sha256.Sum256(root.cert.RawSubjectPublicKeyInfo))
	}
	return nil
}
