package snp

import (
	"slices"
	"strings"
	"testing"

	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/verifier/internal/check"
)

// fault is one thing that is wrong, the checks that must object, and what the
// first of them must say to a reader.
type fault struct {
	name, value string
	cfg         sim.Config
	want        map[string]check.Verdict
	authentic   bool
	says        string
}

func fails(names ...string) map[string]check.Verdict {
	m := map[string]check.Verdict{}
	for _, n := range names {
		m["snp."+n] = check.Fail
	}
	return m
}

func is(name string, v check.Verdict) map[string]check.Verdict {
	return map[string]check.Verdict{"snp." + name: v}
}

var (
	vlek    = sim.Config{SNP: sim.SNPOptions{Provider: "CN=example"}}
	masking = sim.Config{SNP: aws}
	idBlock = sim.Config{SNP: sim.SNPOptions{IDBlock: true}}
	newest  = sim.Config{SNP: sim.SNPOptions{Report: 5, Mitigation: 5}}
	turin   = sim.Config{Product: "Turin"}
	milan   = sim.Config{Product: "Milan"}
	plain   sim.Config
)

// faults has every fault of the simulator.
var faults = []fault{
	{"debug", "", plain, fails("debug"), true, "forbids debugging"},
	{"migration", "", plain, fails("migration"), true, "forbids migration"},
	{"smt", "", plain, fails("smt"), true, "forbids SMT"},
	{"cxl", "", plain, fails("cxl"), true, "forbids CXL"},
	{"vmpl", "", plain, fails("vmpl"), true, "ask from VMPL 0"},
	{"vmpl", "2", plain, fails("vmpl"), true, "ask from VMPL 0"},
	{"vmpl", "3", turin, fails("vmpl"), true, "ask from VMPL 0"},
	{"vmpl", "4", plain, fails("format"), false, "VMPL 4"},
	{"measurement", "", plain, fails("measurement"), true, "another image"},
	{"guest-svn", "", plain, fails("guest-svn"), true, "launch the current one"},
	{"host-data", "", plain, fails("host-data"), true, "HOST_DATA"},
	{"id-key", "", idBlock, fails("id-key"), true, "id_keys"},
	{"author-key", "", idBlock, fails("author-key"), true, "author_keys"},
	{"no-author", "", idBlock, fails("author-key"), true, "none"},

	{"stale-tcb", "", plain, fails("minimum-tcb", "minimum-launch-tcb", "minimum-committed-tcb"), true, "snp 22 below 23"},
	{"stale-tcb", "", turin, fails("minimum-tcb", "minimum-launch-tcb", "minimum-committed-tcb"), true, "snp 22 below 23"},
	{"stale-tcb", "", vlek, fails("minimum-tcb", "minimum-launch-tcb", "minimum-committed-tcb"), true, "update it"},
	{"stale-launch-tcb", "", plain, fails("minimum-launch-tcb"), true, "start it anew"},
	{"provisional-firmware", "", plain, fails("provisional-firmware"), true, "have it commit"},
	{"provisional-build", "", plain, fails("provisional-firmware"), true, "1.55.4"},
	{"stale-committed-tcb", "", plain, fails("provisional-firmware", "minimum-committed-tcb"), true, "have it commit"},
	{"tcb-order", "", plain, fails("tcb-order", "minimum-committed-tcb"), true, "CURRENT is below REPORTED_TCB: microcode 83 below 84"},
	{"committed-order", "", plain, fails("tcb-order", "provisional-firmware"), true, "CURRENT is below COMMITTED_TCB: snp 23 below 24"},
	{"tcb-format", "", plain, fails("tcb-format"), true, "LAUNCH_TCB"},
	{"tcb-format", "", turin, fails("tcb-format"), true, "layout of Turin"},
	{"alias", "", plain, fails("alias-check"), true, "BadRAM"},
	{"masked-chip", "", plain, fails("certificate-chip", "chip"), true, "MASK_CHIP_ID off"},
	{"masked-chip", "", vlek, fails("chip"), true, "MASK_CHIP_ID off"},
	{"mitigations", "5,4", newest, fails("mitigations"), true, "current lacks 0x1"},
	{"mitigations", "1,7", newest, fails("mitigations"), true, "start the guest anew"},
	{"unknown-product", "", plain, is("product", check.Unsupported), false, "family 0x1b"},

	{"report-version", "2", newest, fails("format"), false, "mitigation"},
	{"report-version", "2", plain, fails("version"), true, "at least 3"},
	{"report-version", "4", plain, is("version", check.Unsupported), false, "2, 3 and 5"},
	{"report-version", "6", plain, is("version", check.Unsupported), false, "unknown report version 6"},
	{"bad-signature", "", plain, fails("signature"), false, "was changed"},
	{"signature-algorithm", "", plain, fails("signature-algorithm", "signature"), false, "ECDSA P-384"},
	{"unsigned", "", plain, fails("signer"), false, "signed nothing"},
	{"mask-chip-key", "", plain, fails("signer"), false, "MASK_CHIP_KEY off"},
	{"reserved-key", "", plain, is("signer", check.Unsupported), false, "reserved key 2"},
	{"reserved-byte", "", plain, fails("format"), false, "SIGNER_INFO"},
	{"truncated", "", plain, fails("format"), false, "1183 bytes"},
	{"wrong-nonce", "", plain, fails("report-data"), true, "does not belong to these claims"},

	{"certificate-tcb", "", plain, fails("certificate-tcb"), true, "fetch the certificate"},
	{"certificate-tcb", "", vlek, fails("certificate-tcb"), true, "fetch the certificate"},
	{"certificate-chip", "", plain, fails("certificate-chip"), true, "of another chip"},
	{"certificate-chip", "", turin, fails("certificate-chip"), true, "of another chip"},
	{"certificate-product", "Milan", plain, fails("product"), true, "of another machine"},
	{"certificate-version", "", plain, is("certificate-version", check.Unsupported), true, "structure version 2"},
	{"certificate-kind", "", vlek, fails("certificate"), false, "does not belong into the certificate of a VLEK"},
	{"provider", "CN=elsewhere", vlek, fails("provider"), true, "this region of it"},
	{"expired", "", plain, fails("validity"), true, "SEV-VCEK valid from"},
	{"expired", "", vlek, fails("validity"), true, "load a current VLEK"},
	{"not-yet-valid", "", plain, fails("validity"), true, "SEV-VCEK valid from"},
	{"missing-certificate", "", plain, is("certificate", check.Incomplete), false, "https://kdsintf.amd.com/vcek/v1/Genoa/"},
	{"missing-certificate", "", turin, is("certificate", check.Incomplete), false, "?fmcSPL=1&blSPL=10&teeSPL=1&snpSPL=23&ucodeSPL=84"},
	{"missing-certificate", "", masking, is("certificate", check.Incomplete), false, "the provider gives it"},
	{"forged-root", "", plain, fails("chain"), false, "is not accepted"},
	{"forged-root", "", vlek, fails("chain"), false, "https://kdsintf.amd.com/vlek/v1/Genoa/cert_chain"},
	{"forged-root", "", turin, fails("chain"), false, "is not accepted"},
	{"unmarked", "", plain, fails("chain"), false, "mark of a simulator"},

	{"revoked", "", plain, fails("revocation"), true, "SEV-VCEK"},
	{"revoked", "ca", plain, fails("revocation"), true, "SEV-Genoa"},
	{"revoked", "", vlek, fails("revocation"), true, "SEV-VLEK"},
	{"revoked", "ca", vlek, fails("revocation"), true, "SEV-VLEK-Genoa"},
	{"revoked", "ca", turin, fails("revocation"), true, "SEV-Turin"},
	{"revoked", "ca", milan, fails("revocation"), true, "do not send data"},
	{"expired-crl", "", plain, fails("revocation"), true, "expired at"},
	{"expired-crl", "", vlek, fails("revocation"), true, "https://kdsintf.amd.com/vlek/v1/Genoa/crl"},
	{"future-crl", "", plain, fails("revocation"), true, "from later"},
	{"partial-crl", "", plain, is("revocation", check.Incomplete), true, "https://kdsintf.amd.com/vcek/v1/Genoa/crl"},
	{"forged-crl", "", plain, is("revocation", check.Incomplete), true, "signed by ARK-Genoa"},
	{"missing-crl", "", plain, is("revocation", check.Incomplete), true, "signed by ARK-Genoa"},
}

// TestFaults breaks one thing at a time: exactly the named checks object, in
// words that say what to do.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, c := range faults {
		t.Run(c.name+c.value+c.cfg.Product+c.cfg.SNP.Provider, func(t *testing.T) {
			c.cfg.Faults = map[string]string{c.name: c.value}
			r := make1(t, c.cfg).appraise()
			expectProblems(t, r, c.want)
			if r.IsAuthentic() != c.authentic {
				t.Errorf("authentic %v", r.IsAuthentic())
			}
			if check.Summary(r.Checks()) == check.Pass || len(r.Problems()) == 0 {
				t.Fatal("passes")
			}
			p := r.Problems()[0]
			if text := p.Expected + "\n" + p.Got + "\n" + p.Advice; !strings.Contains(text, c.says) || p.Advice == "" {
				t.Errorf("%s does not say %q:\n%s", p.Name, c.says, text)
			}
		})
	}
}

// TestFaultsComplete demands a test of every fault that the simulator knows, and
// that every check that can object was made to.
func TestFaultsComplete(t *testing.T) {
	t.Parallel()
	_, err := sim.New(sim.Config{Vendor: vendor(), Platform: sim.PlatformSNP, Faults: map[string]string{"?": ""}}, now)
	if err == nil {
		t.Fatal("an unknown fault is accepted")
	}
	objected := map[string]bool{}
	tested := map[string]bool{"guest-policy": true, "platform-info": true} // in TestPolicy: a policy must ask for them
	for _, c := range faults {
		tested[c.name] = true
		for n := range c.want {
			objected[strings.TrimPrefix(n, "snp.")] = true
		}
	}
	_, known, ok := strings.Cut(err.Error(), "knows [")
	if !ok {
		t.Fatal(err)
	}
	for _, q := range strings.Fields(strings.TrimSuffix(known, "]")) {
		if name := strings.Trim(q, `"`); !tested[name] {
			t.Errorf("no test of the fault %s", name)
		}
	}
	for _, n := range everyCheck {
		// The others need another policy: TestPolicy.
		if !objected[n] && !slices.Contains([]string{"guest-policy", "platform-info", "chip-denied"}, n) {
			t.Errorf("nothing makes the check %s object", n)
		}
	}
}
