package policy

import (
	"fmt"
	"strconv"
)

// Change is one difference between two versions.
type Change struct {
	Field    string // path as in the YAML form; members and apps by their id, not by number
	Old, New string // empty: not there
	Effect   Effect
}

// Effect says what a change does to what the policy lets happen.
type Effect string

// The effects. A change whose effect depends on what it stands for, such as
// another key, has [EffectNone].
const (
	EffectNone     Effect = ""
	EffectWeaker   Effect = "weaker"   // accepts or releases more than before
	EffectStricter Effect = "stricter" // accepts or releases less than before
)

// String words the change.
func (c Change) String() string {
	var s string
	switch {
	case c.Old == "":
		s = c.Field + ": added " + c.New
	case c.New == "":
		s = c.Field + ": removed " + c.Old
	default:
		s = c.Field + ": " + c.Old + " → " + c.New
	}
	if c.Effect != EffectNone {
		s += " (" + string(c.Effect) + ")"
	}
	return s
}

// Diff names every difference between two policies, in the order of their
// fields: policies without one have the same digest.
func Diff(old, new *Policy) []Change {
	before, after := old.terms(), new.terms()
	index := func(ts []term) map[string]term {
		m := make(map[string]term, len(ts))
		for _, t := range ts {
			m[t.key()] = t
		}
		return m
	}
	inOld, inNew := index(before), index(after)
	// Beside an "any", one more element or one less changes nothing.
	for _, ts := range [][]term{before, after} {
		for i := range ts {
			wild := term{field: ts[i].field, value: anyValue, element: true}.key()
			_, o := inOld[wild]
			if _, n := inNew[wild]; (o || n) && ts[i].value != anyValue {
				ts[i].more = EffectNone
			}
		}
	}
	var out []Change
	for _, t := range before {
		if n, ok := inNew[t.key()]; !ok {
			out = append(out, Change{t.field, t.value, "", effect(t.more, 1, 0)})
		} else if n.value != t.value {
			out = append(out, Change{t.field, t.value, n.value, effect(t.more, t.n, n.n)})
		}
	}
	for _, t := range after {
		if _, ok := inOld[t.key()]; !ok {
			out = append(out, Change{t.field, "", t.value, effect(t.more, 0, 1)})
		}
	}
	return out
}

func effect(more Effect, old, new uint64) Effect {
	switch {
	case more == EffectNone || old == new:
		return EffectNone
	case new > old:
		return more
	case more == EffectWeaker:
		return EffectStricter
	}
	return EffectWeaker
}

// term is one thing that a policy says: the value of a field, or one element of
// a set.
type term struct {
	field, value string
	element      bool
	n            uint64 // what to compare, where more is given
	more         Effect // of a larger n, or of one more element
}

func (t term) key() string {
	if t.element {
		return t.field + "\x00" + t.value
	}
	return t.field
}

// terms lists everything that p says. A test holds it complete.
func (p *Policy) terms() []term {
	var l terms
	l.number("schema", p.Schema, EffectNone)
	l.number("version", p.Version, EffectNone)
	l.value("federation", p.Federation.String())
	l.value("previous", p.Previous.String())
	l.value("name", p.Name)
	l.yes("simulated", p.Simulated, EffectWeaker)
	set(&l, "simulated_roots", p.SimulatedRoots, EffectWeaker)
	for _, m := range p.Members {
		l.set("members", string(m.ID), EffectNone)
		at := "members[" + string(m.ID) + "]."
		for _, k := range m.PolicyKeys {
			l.set(at+"policy_keys", "key "+k.ID().String(), EffectNone)
		}
		l.value(at+"issuer_key", "key "+m.IssuerKey.ID().String())
		l.value(at+"witness_key", m.WitnessKey)
	}
	l.number("approvals", p.Approvals, EffectStricter)
	l.platforms(&p.Platforms)
	l.seconds("evidence.max_age", p.Evidence.MaxAge, EffectWeaker)
	l.seconds("evidence.max_collateral_age", p.Evidence.MaxCollateralAge, EffectWeaker)
	l.seconds("evidence.max_epoch_age", p.Evidence.MaxEpochAge, EffectWeaker)
	l.number("evidence.max_rounds_per_epoch", p.Evidence.MaxRoundsPerEpoch, EffectWeaker)
	l.value("log.origin", p.Log.Origin)
	l.value("log.key", p.Log.Key)
	l.number("log.witnesses", p.Log.Witnesses, EffectStricter)
	l.number("log.max_unpublished_steps", p.Log.MaxUnpublishedSteps, EffectWeaker)
	l.seconds("log.denial_lag", p.Log.DenialLag, EffectWeaker)
	for _, a := range p.Apps {
		l.set("apps", a.Digest.String(), EffectWeaker)
		at := "apps[" + a.Digest.String() + "]." // in full: a short form can be made to collide
		l.value(at+"name", a.Name)
		l.rank(at+"exposure", string(a.Exposure), a.Exposure == ExposureIndividual)
		set(&l, at+"configs", orAny(a.Configs), EffectWeaker)
		set(&l, at+"strategies", a.Strategies, EffectWeaker)
		l.number(at+"max_rounds", a.MaxRounds, EffectWeaker)
		l.yes(at+"addressed", a.Addressed, EffectWeaker)
	}
	for _, a := range p.SignedApps {
		l.set("signed_apps", strconv.Quote(a.App), EffectWeaker)
		at := "signed_apps[" + strconv.Quote(a.App) + "]."
		for _, k := range a.Signers {
			l.set(at+"signers", "key "+k.ID().String(), EffectWeaker)
		}
		l.number(at+"threshold", a.Threshold, EffectStricter)
		set(&l, at+"configs", orAny(a.Configs), EffectWeaker)
		set(&l, at+"strategies", a.Strategies, EffectWeaker)
		l.number(at+"max_rounds", a.MaxRounds, EffectWeaker)
	}
	r := &p.Release
	l.number("release.min_contributors", r.MinContributors, EffectStricter)
	l.number("release.collusion", r.Collusion, EffectStricter)
	l.number("release.max_weight_share", r.MaxWeightShare, EffectWeaker)
	l.rank("release.cohort", r.Cohort, r.Cohort == CohortSampled)
	l.rank("release.dropouts", r.Dropouts, r.Dropouts == DropoutsAllow)
	l.rank("release.downlink", r.Downlink, r.Downlink == DownlinkPerNode)
	l.number("release.max_metric_bytes", r.MaxMetricBytes, EffectWeaker)
	l.seconds("release.step_deadline", r.StepDeadline, EffectNone)
	l.seconds("release.ack_deadline", r.AckDeadline, EffectNone)
	set(&l, "nodes.message_types", p.Nodes.MessageTypes, EffectWeaker)
	set(&l, "nodes.metric_keys", orAny(quoted(p.Nodes.MetricKeys)), EffectWeaker)
	l.seconds("nodes.credential_age", p.Nodes.CredentialAge, EffectWeaker)
	return l
}

type terms []term

func (l *terms) platforms(p *Platforms) {
	if s := p.SNP; s != nil {
		const at = "platforms.snp."
		l.set("platforms", "snp", EffectWeaker)
		set(l, at+"products", s.Products, EffectWeaker)
		set(l, at+"measurements", s.Measurements, EffectWeaker)
		for _, t := range s.MinTCB {
			tcb := at + "min_tcb[" + t.Product + "]."
			l.number(tcb+"fmc", uint64(t.FMC), EffectStricter)
			l.number(tcb+"boot_loader", uint64(t.BootLoader), EffectStricter)
			l.number(tcb+"tee", uint64(t.TEE), EffectStricter)
			l.number(tcb+"snp", uint64(t.SNP), EffectStricter)
			l.number(tcb+"microcode", uint64(t.Microcode), EffectStricter)
		}
		set(l, at+"chips", anyOf(s.Chips, s.AnyChip), EffectWeaker)
		l.yes(at+"allow_smt", s.AllowSMT, EffectWeaker)
		l.number(at+"min_guest_svn", s.MinGuestSVN, EffectStricter)
		l.number(at+"min_version", s.MinVersion, EffectStricter)
		l.yes(at+"host_data", s.HostData, EffectStricter)
		set(l, at+"providers", s.Providers, EffectWeaker)
		set(l, at+"denied_chips", s.Denied, EffectStricter)
		l.yes(at+"allow_provisional", s.AllowProvisional, EffectWeaker)
		l.yes(at+"allow_cxl", s.AllowCXL, EffectWeaker)
		l.yes(at+"allow_unchecked_alias", s.AllowUncheckedAlias, EffectWeaker)
		set(l, at+"guest_policy", s.GuestPolicy, EffectStricter)
		set(l, at+"platform_required", s.PlatformRequired, EffectStricter)
		set(l, at+"platform_forbidden", s.PlatformForbidden, EffectStricter)
		l.value(at+"mitigations", fmt.Sprintf("%#x", s.Mitigations))
		set(l, at+"id_keys", orAny(s.IDKeys), EffectWeaker)
		set(l, at+"author_keys", orAny(s.AuthorKeys), EffectWeaker)
	}
	if t := p.TDX; t != nil {
		const at = "platforms.tdx."
		l.set("platforms", "tdx", EffectWeaker)
		set(l, at+"mrtd", t.MRTD, EffectWeaker)
		set(l, at+"rtmrs", orAny(t.RTMRs), EffectWeaker)
		set(l, at+"statuses", t.Statuses, EffectWeaker)
		l.number(at+"min_evaluation", t.MinEvaluation, EffectStricter)
		set(l, at+"platform_instances", anyOf(t.PIIDs, t.AnyPlatform), EffectWeaker)
		l.value(at+"xfam_mask", fmt.Sprintf("%#x", t.XFAMMask))
		l.yes(at+"mr_config_id", t.MRConfigID, EffectStricter)
		l.value(at+"mr_signer_seam", t.MRSignerSEAM.String())
		l.yes(at+"allow_migration", t.AllowMigration, EffectWeaker)
		l.events(at+"events", t.Events)
	}
	if g := p.GPU; g != nil {
		const at = "platforms.gpu."
		l.set("platforms", "gpu", EffectNone) // evidence of a GPU is accepted, and demanded
		set(l, at+"architectures", g.Architectures, EffectWeaker)
		l.number(at+"min_count", g.MinCount, EffectStricter)
		l.value(at+"min_driver", g.MinDriver)
		l.value(at+"min_vbios", g.MinVBIOS)
		for _, m := range g.Measurements {
			l.set(at+"measurements", m.Name+" "+m.Digest.String(), EffectWeaker)
		}
		set(l, at+"devices", anyOf(g.Devices, g.AnyDevice), EffectWeaker)
		l.yes(at+"rim", g.RIM, EffectWeaker)
		set(l, at+"modes", g.AcceptedModes(), EffectWeaker)
		set(l, at+"denied", g.Denied, EffectStricter)
		l.value(at+"max_ocsp_age", strconv.FormatUint(uint64(g.MaxOCSPAge), 10)+" s") // 0 is another field's bound
		l.yes(at+"allow_rim_hold", g.AllowRIMHold, EffectWeaker)
		l.number(at+"min_switches", g.MinSwitches, EffectStricter)
		l.value(at+"min_switch_vbios", g.MinSwitchVBIOS)
	}
	if t := p.TPM; t != nil {
		const at = "platforms.tpm."
		l.set("platforms", "tpm", EffectNone) // another form of enclave is accepted, and the one before is not
		for _, r := range t.PCRs {
			field := fmt.Sprintf("%spcrs[%d]", at, r.Index)
			l.set(at+"pcrs", strconv.FormatUint(r.Index, 10), EffectStricter)
			set(l, field+".values", r.Values, EffectWeaker)
		}
		l.events(at+"events", t.Events)
	}
}

// events have no effect of their own: one more event widens what a register may
// hold, and the first one closes the register.
func (l *terms) events(field string, list []Event) {
	for _, e := range list {
		at := fmt.Sprintf("%s[%d/%s]", field, e.Register, e.Digest)
		l.set(field, fmt.Sprintf("%d/%s", e.Register, e.Digest), EffectNone)
		l.yes(at+".required", e.Required, EffectStricter)
		l.value(at+".name", e.Name)
	}
}

func (l *terms) value(field, v string) { *l = append(*l, term{field: field, value: v}) }
func (l *terms) number(field string, n uint64, more Effect) {
	*l = append(*l, term{field: field, value: strconv.FormatUint(n, 10), n: n, more: more})
}
func (l *terms) seconds(field string, s Seconds, more Effect) {
	*l = append(*l, term{field: field, value: strconv.FormatUint(uint64(s), 10) + " s", n: uint64(s), more: more})
}
func (l *terms) yes(field string, b bool, more Effect) {
	t := term{field: field, value: strconv.FormatBool(b), more: more}
	if b {
		t.n = 1
	}
	*l = append(*l, t)
}

// rank is a word of two, of which one is the weaker.
func (l *terms) rank(field, word string, weaker bool) {
	l.yes(field, weaker, EffectWeaker)
	(*l)[len(*l)-1].value = word
}
func (l *terms) set(field, element string, more Effect) {
	*l = append(*l, term{field: field, value: element, element: true, more: more})
}

func set[T any](l *terms, field string, list []T, more Effect) {
	for _, x := range list {
		l.set(field, fmt.Sprint(x), more)
	}
}

const anyValue = "any"

// anyOf and orAny give a list that accepts everything an element that says so.
func anyOf(list []Hex, all bool) []string {
	var out []string
	for _, x := range list {
		out = append(out, x.String())
	}
	if all {
		out = append(out, anyValue)
	}
	return out
}

func orAny[T any](list []T) []string {
	if len(list) == 0 {
		return []string{anyValue}
	}
	var out []string
	for _, x := range list {
		out = append(out, fmt.Sprint(x))
	}
	return out
}

// quoted keeps a name that somebody chose apart from [anyValue].
func quoted(list []string) []string {
	var out []string
	for _, x := range list {
		out = append(out, strconv.Quote(x))
	}
	return out
}
