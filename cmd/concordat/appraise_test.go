package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
)

// TestAppraiseScripts runs testdata/appraise/*.txt with evidence of simulated
// machines in the working directory.
func TestAppraiseScripts(t *testing.T) {
	t.Parallel()
	files, err := simulatedEvidence()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "appraise"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
		Setup: func(e *testscript.Env) error {
			e.Setenv("NONCE", hex.EncodeToString([]byte("challenge")))
			e.Setenv("GPUNONCE", hex.EncodeToString(bytes.Repeat([]byte{7}, 32)))
			for name, b := range files {
				if err := os.WriteFile(filepath.Join(e.WorkDir, name), b, 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	})
}

// simulatedEvidence makes the evidence and endorsements of an AMD machine with a GPU
// and of an Intel machine, as of 2026-06-01, and a federation that accepts them.
func simulatedEvidence() (map[string][]byte, error) {
	at := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	v, err := smallVendor()
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	p := simulatedPolicy()
	for _, cfg := range []sim.Config{{Vendor: v, Platform: sim.PlatformSNP, GPUs: 1}, {Vendor: v, Platform: sim.PlatformTDX}} {
		m, err := sim.New(cfg, at)
		if err != nil {
			return nil, err
		}
		d, err := m.Describe()
		if err != nil {
			return nil, err
		}
		p.SimulatedRoots = append(p.SimulatedRoots, d.Roots...)
		if d.Platforms.TDX != nil {
			p.Platforms.TDX = d.Platforms.TDX
		} else {
			p.Platforms = d.Platforms
		}
		var reportData [64]byte
		copy(reportData[:], "challenge")
		items, err := m.Collect(context.Background(), reportData)
		if err != nil {
			return nil, err
		}
		files[cfg.Platform+".bin"] = items[0].Raw
		if cfg.GPUs > 0 {
			gpus, err := m.CollectGPU(context.Background(), [][32]byte{[32]byte(bytes.Repeat([]byte{7}, 32))})
			if err != nil {
				return nil, err
			}
			files["gpu.hex"] = []byte(hex.EncodeToString(gpus[0].Raw) + "\n")
			files["gpu.b64"] = []byte(base64.StdEncoding.EncodeToString(gpus[0].Raw))
		}
		ends, err := m.Endorsements()
		if err != nil {
			return nil, err
		}
		for typ, name := range map[string]string{
			attestation.TypeAMDVCEK: "vcek.der", attestation.TypeAMDChain: "amd.pem", attestation.TypeAMDCRL: "amd.crl",
			attestation.TypeIntelCollateral: "collateral.json", attestation.TypeNVIDIAChain: "gpu.pem",
		} {
			if docs := ends.ByType(typ, nil); len(docs) > 0 {
				files[name] = docs[0]
			}
		}
		for i, b := range ends.ByType(attestation.TypeNVIDIAOCSP, nil) {
			files[fmt.Sprintf("gpu%d.ocsp", i)] = b
		}
	}
	slices.SortFunc(p.SimulatedRoots, func(a, b policy.Digest) int { return bytes.Compare(a[:], b[:]) })
	p.SimulatedRoots = slices.Compact(p.SimulatedRoots)
	var approvals [][]byte
	for _, m := range p.Members[:p.Approvals] {
		a, err := policy.Approve(testKey(string(m.ID)+" policy"), m.ID, p)
		if err != nil {
			return nil, err
		}
		approvals = append(approvals, a)
	}
	chain, err := policy.NewChain(p.Encode(), approvals)
	if err != nil {
		return nil, err
	}
	files["federation.policy"] = chain.Encode()
	// Other forms of the same documents.
	vcek := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: files["vcek.der"]})
	ask, rest := pem.Decode(files["amd.pem"])
	ark, _ := pem.Decode(rest)
	if ask == nil || ark == nil {
		return nil, errors.New("the chain does not have two certificates")
	}
	files["all.pem"] = slices.Concat([]byte("# the chip's certificate\n"), vcek, files["amd.pem"])
	files["all.der"] = slices.Concat(ark.Bytes, files["vcek.der"], ask.Bytes)
	files["ask.pem"] = pem.EncodeToMemory(ask)
	files["crl.pem"] = pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: files["amd.crl"]})
	files["cut.bin"] = files["snp.bin"][:1183]
	files["forged.bin"] = bytes.Clone(files["snp.bin"])
	files["forged.bin"][0x90] ^= 1 // MEASUREMENT (AMD 56860)
	var reversed []byte
	for rest := files["gpu.pem"]; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		reversed = append(pem.EncodeToMemory(b), reversed...)
	}
	files["gpu-reversed.pem"] = reversed
	return files, nil
}

// smallVendor returns simulated vendors whose RSA keys are quick to make.
func smallVendor() (*sim.Vendor, error) {
	file := map[string]string{"seed": fmt.Sprintf("%x", sha256.Sum256([]byte("vendors of the command's tests")))}
	for _, name := range []string{"ark", "ask"} {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			return nil, err
		}
		file[name] = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	b, err := json.Marshal(file)
	if err != nil {
		return nil, err
	}
	v := new(sim.Vendor)
	return v, json.Unmarshal(b, v)
}

func testKey(name string) *cose.Signer {
	seed := sha256.Sum256([]byte(name))
	s, err := cose.NewSigner(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		panic(err)
	}
	return s
}

// simulatedPolicy returns a federation of three without platforms.
func simulatedPolicy() *policy.Policy {
	verifierKey := func(name string, typ byte) string { // C2SP: 1 is Ed25519, 4 a cosignature
		data := append([]byte{typ}, testKey(name).Public().Public().(ed25519.PublicKey)...)
		h := sha256.Sum256(slices.Concat([]byte(name), []byte{'\n'}, data))
		return fmt.Sprintf("%s+%x+%s", name, h[:4], base64.StdEncoding.EncodeToString(data))
	}
	p := &policy.Policy{
		Schema: policy.Schema, Version: 1, Name: "test", Approvals: 2, Simulated: true,
		Evidence: policy.Evidence{MaxAge: 600, MaxCollateralAge: 30 * 86400, MaxEpochAge: 86400, MaxRoundsPerEpoch: 100},
		Log:      policy.Log{Origin: "log.example", Key: verifierKey("log.example", 1), Witnesses: 1, MaxUnpublishedSteps: 1, DenialLag: 60},
		Release: policy.Release{
			MinContributors: 2, MaxWeightShare: 600, Cohort: policy.CohortFixed, Dropouts: policy.DropoutsRefuse,
			Downlink: policy.DownlinkShared, MaxMetricBytes: 1024, StepDeadline: 60, AckDeadline: 60,
		},
		Apps:  []policy.App{{Digest: policy.Digest{1}, Name: "app", Exposure: policy.ExposureAggregate, Strategies: []string{"fedavg"}, MaxRounds: 10}},
		Nodes: policy.NodeRules{MessageTypes: []string{"train"}, MetricKeys: []string{"loss"}, CredentialAge: 86400},
	}
	for _, id := range []policy.MemberID{"a", "b", "c"} {
		p.Members = append(p.Members, policy.Member{
			ID: id, PolicyKeys: []cose.Key{testKey(string(id) + " policy").Public()}, IssuerKey: testKey(string(id) + " issuer").Public(),
			WitnessKey: verifierKey(string(id)+".example/witness", 4),
		})
	}
	return p
}

// TestAppraiseVectors gives the answers that genuine evidence of the vendors'
// hardware must get.
func TestAppraiseVectors(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("CONCORDAT_VECTORS")
	if dir == "" {
		t.Skip("CONCORDAT_VECTORS is not set: no genuine evidence to judge")
	}
	for _, c := range []struct {
		args      []string // files are below CONCORDAT_VECTORS
		status    int
		verdict   string
		authentic bool
		problems  []string // checks that are neither pass nor not-checked
	}{
		{[]string{"snp", "snp/test-report.bin", "--cert", "snp/test-vcek.der"}, exitPass, "pass", true, nil},
		{[]string{"snp", "snp/test-report.bin"}, exitIncomplete, "incomplete", false, []string{"snp.certificate"}},
		{[]string{"snp", "snp/test-report.bin", "--cert", "snp/test-vcek-invalid-new.der"}, exitFail, "fail", false, []string{"snp.chain"}},
		{[]string{"snp", "snp/test-report.bin", "--cert", "snp/vcek_turin.der", "--cert", "snp/cert_chain_turin"}, exitFail, "fail", false, nil},
		{[]string{"snp", "snp/test-vlek-report.bin", "--cert", "snp/test-vlek.der", "--at", "2025-06-01"}, exitFail, "fail", true, []string{"snp.vmpl"}},
		{[]string{"snp", "snp/test-vlek-report.bin", "--cert", "snp/test-vlek.der", "--at", "2026-11-23"}, exitFail, "fail", true, []string{"snp.validity", "snp.vmpl"}},
		{[]string{"tdx", "tdx/tdx_quote", "--collateral", "tdx/tdx_quote_collateral.json", "--at", "2025-06-20"}, exitPass, "pass", true, nil},
		{[]string{"tdx", "tdx/tdx_quote", "--collateral", "tdx/tdx_quote_collateral.json", "--at", "2026-11-23"}, exitFail, "fail", true,
			[]string{"tdx.root-crl", "tdx.pck-crl", "tdx.tcb-info-window", "tdx.qe-identity-window"}},
		{[]string{"tdx", "tdx/tdx_quote", "--at", "2025-06-20"}, exitIncomplete, "incomplete", true, []string{"tdx.collateral"}},
		{[]string{"tdx", "tdx/tdx_quote_5.dat", "--at", "2026-11-23"}, exitIncomplete, "incomplete", true, []string{"tdx.collateral"}},
		// Its first bytes read as a quote of version 2, which may be genuine.
		{[]string{"tdx", "snp/test-report.bin"}, exitUnsupported, "unsupported", false, nil},
		{[]string{"tpm", "tpm/azure-snp-vtpm-evidence.json", "--nonce", "6368616c6c656e6765"}, exitPass, "pass", true, nil},
		{[]string{"tpm", "tpm/azure-snp-vtpm-evidence.json", "--nonce", "6368616c6c656e6766"}, exitFail, "fail", true, []string{"tpm.nonce"}},
		{[]string{"tpm", "tpm/azure-snp-vtpm-evidence.json", "--at", "2024-01-01"}, exitFail, "fail", true, []string{"snp.validity"}},
		{[]string{"tpm", "snp/test-report.bin"}, exitFail, "fail", false, []string{"input.evidence"}},
		{[]string{"nvidia", "nvidia/hopperAttestationReport.txt", "--cert", "nvidia/hopperCertChain.txt",
			"--nonce", "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb"}, exitPass, "pass", true, nil},
		{[]string{"nvidia", "nvidia/hopperAttestationReport.txt", "--cert", "nvidia/hopperCertChain.txt",
			"--nonce", "031d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb"}, exitFail, "fail", true, []string{"gpu.nonce"}},
		{[]string{"nvidia", "nvidia/hopperAttestationReport.txt"}, exitIncomplete, "incomplete", false, nil},
	} {
		args := []string{"appraise", "--output", "json", "--platform", c.args[0]}
		for i, a := range c.args[1:] {
			if _, err := os.Stat(filepath.Join(dir, a)); err == nil && (i == 0 || c.args[i] == "--cert" || c.args[i] == "--collateral") {
				a = filepath.Join(dir, a)
			}
			args = append(args, a)
		}
		var out, stderr bytes.Buffer
		root := newRootCommand()
		root.SetArgs(args)
		root.SetOut(&out)
		root.SetErr(&stderr)
		cmd, err := root.ExecuteC()
		status := report(cmd, err)
		var got struct {
			Verdict, Platform string
			Authentic         bool
			Checks            []struct{ Name, Verdict, Got string }
		}
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Errorf("%v: status %d: %v: %s %s", c.args, status, err, out.String(), stderr.String())
			continue
		}
		if status != c.status || got.Verdict != c.verdict || got.Authentic != c.authentic || got.Platform != c.args[0] || len(got.Checks) == 0 || stderr.Len() > 0 {
			t.Errorf("%v: status %d, verdict %s, authentic %v, %d checks", c.args, status, got.Verdict, got.Authentic, len(got.Checks))
		}
		var problems []string
		for _, k := range got.Checks {
			if k.Verdict != "pass" && k.Verdict != "not-checked" {
				problems = append(problems, k.Name)
			}
			if k.Name == "crosscheck" && c.verdict == "pass" && k.Verdict != "pass" {
				t.Errorf("%v: the other library says %s", c.args, k.Verdict)
			}
		}
		if c.problems != nil && !slices.Equal(problems, c.problems) {
			t.Errorf("%v: problems %v, want %v", c.args, problems, c.problems)
		}
	}
}
