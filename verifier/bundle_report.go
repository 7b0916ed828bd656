package verifier

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
)

// Report is the outcome of [VerifyBundle]. The same bundle, trust file and time
// give the same report, byte for byte.
type Report struct {
	Verdict    Verdict          `json:"verdict"`
	Bundle     cose.Digest      `json:"bundle"` // SHA-256 of the file
	Trust      cose.Digest      `json:"trust"`  // [Trust.Fingerprint]
	Federation cose.Digest      `json:"federation"`
	Name       string           `json:"name,omitempty"` // of the federation, as its policy says
	Member     policy.MemberID  `json:"member"`
	Simulated  bool             `json:"simulated"`
	Log        LogReport        `json:"log"`
	Checks     []Check          `json:"checks"`
	Runs       []RunReport      `json:"runs"`
	Evidence   []EvidenceReport `json:"evidence"` // of the enclaves of these runs
	Results    []ResultReport   `json:"results,omitempty"`
	// ValidAsOf says in words for what time the verdict speaks, DeniedSince what
	// members have denied after that, as far as the bundle's log goes.
	ValidAsOf   string   `json:"valid_as_of"`
	DeniedSince []string `json:"denied_since"`
	Warnings    []string `json:"warnings"`   // what the policy allows
	NotProven   []string `json:"not_proven"` // what no bundle proves
}

// LogReport is the log as far as the bundle shows it.
type LogReport struct {
	Origin  string    `json:"origin,omitempty"`
	Size    uint64    `json:"size"` // of the newest checkpoint
	Root    string    `json:"root,omitempty"`
	Entries uint64    `json:"entries"`         // replayed
	Void    []string  `json:"void"`            // entries that count for nothing, and why; the first of them
	Voided  uint64    `json:"voided"`          // how many there are
	Newest  time.Time `json:"newest,omitzero"` // own witness's time of the newest checkpoint
}

// RunReport is one run.
type RunReport struct {
	Run     cose.Digest `json:"run"`
	RunID   uint64      `json:"run_id"`
	App     cose.Digest `json:"app"`
	AppName string      `json:"app_name,omitempty"`
	// Signers are the ids of the keys by whose signatures, in the log before the run, the
	// policy let the app in; none where it lists the app.
	Signers   []cose.Digest `json:"signers,omitempty"`
	Config    cose.Digest   `json:"config"`
	Strategy  string        `json:"strategy"`
	Class     string        `json:"class"`
	Exposure  string        `json:"exposure"`
	Requester string        `json:"requester,omitempty"` // member
	Members   []string      `json:"members"`
	Nodes     uint64        `json:"nodes"`
	Rounds    uint64        `json:"rounds"`
	Frozen    []string      `json:"frozen,omitempty"`  // arrays that nobody sent; they stayed as they began
	Released  uint64        `json:"released"`          // steps whose outputs left the enclave
	Inputs    uint64        `json:"inputs"`            // contributions in them
	Excluded  uint64        `json:"excluded"`          // times that a node was left out of them
	Unasked   uint64        `json:"unasked,omitempty"` // of those, times that the ServerApp did not ask it
	// SmallestDifference is in how many members two released steps on the same model
	// differ at least, those that are alike left aside; 0: none differ (protocol F17).
	SmallestDifference uint64 `json:"smallest_difference"`

	Outcome string      `json:"outcome,omitempty"`
	Began   time.Time   `json:"began,omitzero"` // not later than, by the own witness's clock
	Ended   time.Time   `json:"ended,omitzero"`
	Output  cose.Digest `json:"output"` // outputs root of the last released step
}

// EvidenceReport is the appraisal of one evidence statement.
type EvidenceReport struct {
	Statement cose.Digest    `json:"statement"`
	Index     uint64         `json:"index"` // in the log
	Instance  attestation.ID `json:"-"`
	Name      string         `json:"instance"`
	Epoch     uint64         `json:"epoch"`
	JudgedAt  time.Time      `json:"judged_at,omitzero"`
	Verdict   Verdict        `json:"verdict"`
	Reason    string         `json:"reason,omitempty"`
	Checks    []Check        `json:"checks"`
}

// notProven is what no bundle can show; see docs/threat-model.md.
var notProven = []string{
	"that the service was available, or that nobody was kept from taking part",
	"that nobody attacked the silicon physically, or broke an accepted enclave or chip while it was live",
	"that a GPU sits in the same host as the confidential VM, beyond what its evidence says",
	"that nothing else was summed: this rests on the attested code, not on the log alone",
	"that single updates stay hidden from somebody who compares many runs without differential privacy, or from all other contributors together",
	"that the link did not learn who took part, when, and the padded sizes of what was sent",
	"that signatures withstand quantum computers: keep your own node's checkpoints",
}

// Word returns the verdict as people read it.
func (r *Report) Word() string {
	switch r.Verdict {
	case Pass:
		return "VERIFIED"
	case PassSimulated:
		return "VERIFIED-SIMULATED"
	case Incomplete:
		return "INCOMPLETE"
	case Unsupported:
		return "UNSUPPORTED"
	}
	return "FAILED"
}

func (r *Report) conclude() {
	r.Verdict = check.Summary(r.Checks)
	if r.Verdict == Pass && r.Simulated {
		r.Verdict = PassSimulated
	}
}

const timeForm = "2006-01-02 15:04:05 UTC"

// Text renders the report for people: the verdict first, then what it is about,
// the checks, and what is not proven. Text from the bundle is quoted where it may
// hold anything but plain characters.
func (r *Report) Text() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&b, "%s\n\n", r.Word())
	line("bundle", "sha256 %s", r.Bundle)
	line("trust", "sha256 %s", r.Trust)
	line("federation", "%s %q", r.Federation, r.Name)
	line("for", "%s", r.Member)
	line("log", "%q, %d entries, checkpoint of %d", r.Log.Origin, r.Log.Entries, r.Log.Size)
	if r.Simulated {
		line("simulated", "the evidence proves nothing about hardware")
	}
	for i := range r.Runs {
		r.Runs[i].text(&b)
	}
	for _, e := range r.Evidence {
		fmt.Fprintf(&b, "\nevidence %s\n", e.Statement)
		line("  enclave", "instance %s, epoch %d, log entry %d", e.Name, e.Epoch, e.Index)
		if !e.JudgedAt.IsZero() {
			line("  judged", "%s as of %s", e.Verdict, e.JudgedAt.Format(timeForm))
		}
		for _, c := range e.Checks {
			if c.Verdict != Pass {
				b.WriteString(checkLine(c))
			}
		}
	}
	for _, x := range r.Results {
		fmt.Fprintf(&b, "\nresult %s\n", x.Result)
		line("  node", "%s of %q", x.Node.Short(), x.Member)
		if !x.JudgedAt.IsZero() {
			line("  found", "%s as of %s, evidence %s", plain(x.Found), x.JudgedAt.Format(timeForm), x.Evidence.Short())
		}
		line("  again", "%s", map[bool]string{true: "the same, byte for byte", false: "not shown to be the same"}[x.Same])
	}
	b.WriteString("\nchecks\n")
	for _, c := range r.Checks {
		b.WriteString(checkLine(c))
	}
	section(&b, "log entries that count for nothing", r.Log.Void)
	if more := r.Log.Voided - uint64(len(r.Log.Void)); more > 0 {
		fmt.Fprintf(&b, "  and %d more\n", more)
	}
	fmt.Fprintf(&b, "\nvalid as of then\n  %s\n", r.ValidAsOf)
	denied := r.DeniedSince
	if len(denied) == 0 {
		denied = []string{"nothing, as far as this bundle's log goes"}
	}
	section(&b, "denied since", denied)
	section(&b, "what the policy allows", r.Warnings)
	section(&b, "what this does not prove", r.NotProven)
	return b.String()
}

// plain replaces what is not printable, so that no text of a bundle can pretend to
// be a line of the report.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}

func section(b *strings.Builder, title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s\n", title)
	for _, l := range lines {
		fmt.Fprintf(b, "  %s\n", plain(l))
	}
}

func checkLine(c Check) string {
	s := fmt.Sprintf("  %-12s %s", c.Verdict, c.Name)
	if c.Got != "" {
		s += ": " + c.Got
	}
	if c.Expected != "" {
		s += "; want " + c.Expected
	}
	if c.Advice != "" {
		s += " (" + c.Advice + ")"
	}
	return plain(s) + "\n"
}

// shownFrozen is how many names of frozen arrays people see.
const shownFrozen = 4

func (r *RunReport) text(b *strings.Builder) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(b, "  %-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(b, "\nrun %s\n", r.Run)
	line("app", "%s %q, config %s", r.App.Short(), r.AppName, r.Config.Short())
	for i, k := range r.Signers {
		line(map[bool]string{true: "signed by"}[i == 0], "key %s", k)
	}
	line("strategy", "%s (%s), exposure %s", r.Strategy, r.Class, r.Exposure)
	line("asked by", "%s", r.Requester)
	line("cohort", "%d nodes of %s", r.Nodes, strings.Join(r.Members, ", "))
	if n := len(r.Frozen); n > 0 {
		names := plain(fmt.Sprintf("%q", r.Frozen[:min(n, shownFrozen)]))
		line("frozen", "%d arrays: %s%s", n, strings.Trim(names, "[]"), map[bool]string{true: " and others"}[n > shownFrozen])
	}
	unasked := ""
	if r.Unasked > 0 {
		unasked = fmt.Sprintf(", %d of them because the ServerApp asked others", r.Unasked)
	}
	line("steps", "%d released, with %d contributions; %d times a node was left out%s", r.Released, r.Inputs, r.Excluded, unasked)
	line("output", "%s", r.Output)
	if !r.Began.IsZero() {
		line("in the log", "from %s", r.Began.Format(timeForm))
	}
	if !r.Ended.IsZero() {
		line("", "to %s", r.Ended.Format(timeForm))
	}
	line("outcome", "%s", r.Outcome)
}
