package main

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ocsp"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/tdx"
)

// documentLine is one dated thing in a document. Nothing of it is verified.
type documentLine struct {
	Digest attestation.Digest `json:"digest"`
	Type   string             `json:"type"`
	About  string             `json:"about"`
	From   *time.Time         `json:"from,omitempty"`
	Until  *time.Time         `json:"until,omitempty"`
}

func newEndorsementsShowCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "show SET",
		Short: "List the documents of a set and how long they are good",
		Long: `Show lists every certificate, revocation list, status and collateral part of a set with its window of validity
in UTC. It verifies nothing: what it prints is what the documents say of themselves. With --files it writes each
document into a directory, in the form that "concordat appraise" and other tools take.`,
		Example: "  concordat endorsements show set.cbor --files documents",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set := new(attestation.Endorsements)
			if err := addSet(set, args[0]); err != nil {
				return err
			}
			if dir != "" {
				if err := writeDocuments(set, dir); err != nil {
					return err
				}
			}
			v := struct {
				Count int            `json:"count"`
				Parts []documentLine `json:"parts"`
			}{set.Len(), describeAll(set)}
			return emit(cmd, v, func(w io.Writer) { printDocuments(w, v.Parts) })
		},
	}
	cmd.Flags().StringVar(&dir, "files", "", "`directory` to write the documents into")
	return cmd
}

// extensions are how files of a type are called.
var extensions = map[string]string{
	attestation.TypeAMDVCEK: "der", attestation.TypeAMDVLEK: "der", attestation.TypeAMDChain: "pem", attestation.TypeAMDCRL: "crl.der",
	attestation.TypeIntelCollateral: "json", attestation.TypeNVIDIAChain: "pem", attestation.TypeNVIDIAOCSP: "ocsp.der", attestation.TypeNVIDIARIM: "xml",
}

func writeDocuments(set *attestation.Endorsements, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, e := range set.All() {
		ext := extensions[e.Type]
		if ext == "" {
			ext = "bin"
		}
		if err := createFile(filepath.Join(dir, fmt.Sprintf("%s-%s.%s", e.Type, e.Digest().Short(), ext)), e.Data); err != nil {
			return err
		}
	}
	return nil
}

func printDocuments(w io.Writer, lines []documentLine) {
	date := func(t *time.Time) string {
		if t == nil {
			return "-"
		}
		return t.UTC().Format("2006-01-02 15:04")
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "digest\ttype\tfrom\tuntil\tabout")
	for _, l := range lines {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", l.Digest.Short(), l.Type, date(l.From), date(l.Until), l.About)
	}
	t.Flush()
}

func describeAll(set *attestation.Endorsements) []documentLine {
	out := []documentLine{}
	for _, e := range set.All() {
		d := &describer{digest: e.Digest(), typ: e.Type}
		if err := d.describe(e.Data); err != nil {
			d.add(fmt.Sprintf("does not parse: %v", err), time.Time{}, time.Time{})
		}
		out = append(out, d.lines...)
	}
	return out
}

type describer struct {
	digest attestation.Digest
	typ    string
	lines  []documentLine
}

func (d *describer) add(about string, from, until time.Time) {
	l := documentLine{Digest: d.digest, Type: d.typ, About: about}
	if !from.IsZero() {
		l.From = &from
	}
	if !until.IsZero() {
		l.Until = &until
	}
	d.lines = append(d.lines, l)
}

// rimName finds what a manifest is about.
var rimName = regexp.MustCompile(`colloquialVersion="([^"]{1,64})"`)

func (d *describer) describe(data []byte) error {
	switch d.typ {
	case attestation.TypeAMDVCEK, attestation.TypeAMDVLEK:
		return d.certificates(data)
	case attestation.TypeAMDChain, attestation.TypeNVIDIAChain:
		return d.chain("", data)
	case attestation.TypeAMDCRL:
		return d.list("", data)
	case attestation.TypeIntelCollateral:
		return d.collateral(data)
	case attestation.TypeNVIDIAOCSP:
		r, err := ocsp.ParseResponse(data, nil)
		if err != nil {
			return err
		}
		status := map[int]string{ocsp.Good: "good", ocsp.Revoked: "revoked"}[r.Status]
		if status == "" {
			status = "unknown"
		}
		d.add(fmt.Sprintf("status of serial %x: %s", r.SerialNumber, status), r.ThisUpdate, r.NextUpdate)
	case attestation.TypeNVIDIARIM:
		m := rimName.FindSubmatch(data)
		if m == nil {
			return fmt.Errorf("no version in it")
		}
		d.add(fmt.Sprintf("reference manifest of version %q", m[1]), time.Time{}, time.Time{})
	default:
		d.add(fmt.Sprintf("%d bytes", len(data)), time.Time{}, time.Time{})
	}
	return nil
}

func (d *describer) certificates(der []byte) error {
	certs, err := x509.ParseCertificates(der)
	for _, c := range certs {
		d.add(fmt.Sprintf("certificate %.100q of %.100q", c.Subject.CommonName, c.Issuer.CommonName), c.NotBefore, c.NotAfter)
	}
	return err
}

func (d *describer) chain(prefix string, b []byte) error {
	certs, err := parseCertificates(b)
	for _, c := range certs {
		d.add(fmt.Sprintf("%scertificate %.100q of %.100q", prefix, c.Subject.CommonName, c.Issuer.CommonName), c.NotBefore, c.NotAfter)
	}
	return err
}

func (d *describer) list(prefix string, der []byte) error {
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		return err
	}
	number := "without a number"
	if l.Number != nil {
		number = "number " + l.Number.String()
	}
	d.add(fmt.Sprintf("%srevocation list of %.100q, %s, %d revoked", prefix, l.Issuer.CommonName, number, len(l.RevokedCertificateEntries)), l.ThisUpdate, l.NextUpdate)
	return nil
}

func (d *describer) collateral(b []byte) error {
	c, err := tdx.ParseCollateral(b)
	if err != nil {
		return err
	}
	for _, x := range []struct {
		name string
		doc  *tdx.Signed
	}{{"TCB info", c.TCBInfo}, {"QE identity", c.QEIdentity}} {
		if x.doc == nil {
			continue
		}
		var v struct {
			FMSPC      string    `json:"fmspc"`
			Issued     time.Time `json:"issueDate"`
			Next       time.Time `json:"nextUpdate"`
			Evaluation uint64    `json:"tcbEvaluationDataNumber"`
		}
		if err := json.Unmarshal(x.doc.Doc, &v); err != nil {
			return fmt.Errorf("%s: %w", x.name, err)
		}
		about := fmt.Sprintf("%s, evaluation %d", x.name, v.Evaluation)
		if v.FMSPC != "" {
			about += ", platform " + strings.ToLower(fmt.Sprintf("%.12s", v.FMSPC))
		}
		d.add(about, v.Issued, v.Next)
		if err := d.chain(x.name+": ", x.doc.Chain); err != nil {
			return fmt.Errorf("%s: chain: %w", x.name, err)
		}
	}
	for _, der := range [][]byte{c.PCKCRL, c.RootCRL} {
		if len(der) == 0 {
			continue
		}
		if err := d.list("", der); err != nil {
			return err
		}
	}
	if block, _ := pem.Decode(c.PCKCRLChain); block == nil {
		return nil
	}
	return d.chain("PCK revocation list: ", c.PCKCRLChain)
}
