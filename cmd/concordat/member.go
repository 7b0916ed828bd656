package main

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/daemon/keyfile"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/policy/source"
	"github.com/concordat/concordat/verifier/tlog"
)

func newMemberCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "member",
		Short: "Make a member's keys, certify its nodes, deny what is not to be relied on",
		Long: `A member has two keys of its own: the policy key, kept offline, approves policies and signs denials; the
issuer key, kept online, certifies the member's nodes. Nobody else can enrol a node for the member.`,
	}
	cmd.AddCommand(newMemberKeyCommand(), newMemberCertifyCommand(), newMemberDenyCommand())
	return cmd
}

func newMemberKeyCommand() *cobra.Command {
	var id, out, witness string
	cmd := &cobra.Command{
		Use:   "key --id ID --out DIR",
		Short: "Make a member's policy key and issuer key",
		Long: `Key makes policy.key and issuer.key in a directory, and member.yaml with their public halves, ready to be
pasted into the policy or given to "concordat policy new". Keys are never overwritten. The witness key is
the node's: run "concordat node enroll" first and give what it prints with --witness, or paste it later.`,
		Example: "  concordat member key --id hospital-a --out hospital-a --witness hospital-a/witness+c759f3b2+BKab...",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m := policy.Member{ID: policy.MemberID(id), WitnessKey: witness}
			if err := m.ID.Check(); err != nil {
				return usagef("--id %w", err)
			}
			if k, err := tlog.ParseVerifierKey(witness); witness != "" && (err != nil || !k.IsWitness()) {
				return usagef("--witness %q is not the key of a witness", witness)
			}
			policyPath, issuerPath, snippet := filepath.Join(out, "policy.key"), filepath.Join(out, "issuer.key"), filepath.Join(out, "member.yaml")
			if err := absent(policyPath, issuerPath, snippet); err != nil {
				return err
			}
			if err := os.MkdirAll(out, 0o700); err != nil {
				return err
			}
			pk, err := newKey(policyPath)
			if err != nil {
				return err
			}
			if m.IssuerKey, err = newKey(issuerPath); err != nil {
				return err
			}
			m.PolicyKeys = []cose.Key{pk}
			if err := createFile(snippet, source.RenderMember(m)); err != nil {
				return err
			}
			v := struct {
				Member    policy.MemberID `json:"member"`
				PolicyKey string          `json:"policy_key"`
				IssuerKey string          `json:"issuer_key"`
				Files     []string        `json:"files"`
			}{m.ID, source.FormatKey(pk), source.FormatKey(m.IssuerKey), []string{policyPath, issuerPath, snippet}}
			return emit(cmd, v, func(w io.Writer) {
				fmt.Fprintf(w, "policy key  %s\nissuer key  %s\n", v.PolicyKey, v.IssuerKey)
				fmt.Fprintf(w, "wrote %s, %s and %s\nnext: take policy.key offline; send member.yaml to whoever writes the policy\n", policyPath, issuerPath, snippet)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&id, "id", "", "the member's id in the policy, a role such as hospital-a")
	f.StringVarP(&out, "out", "o", "", "directory for the keys")
	f.StringVar(&witness, "witness", "", "C2SP verifier key of the member's witness")
	must(cmd.MarkFlagRequired("id"))
	must(cmd.MarkFlagRequired("out"))
	return cmd
}

// newKey makes an Ed25519 key in a new file.
func newKey(path string) (cose.Key, error) {
	s, err := cose.GenerateSigner(cose.EdDSA)
	if err != nil {
		return cose.Key{}, err
	}
	return s.Public(), keyfile.CreateSigner(path, s)
}

func newMemberCertifyCommand() *cobra.Command {
	var (
		request, key, chain, out, valid string
		serial                          uint64
	)
	cmd := &cobra.Command{
		Use:   "certify --request FILE --key FILE --policy CHAIN",
		Short: "Sign a credential for one of the member's nodes",
		Long: `Certify signs, with the member's issuer key, that the key in a request of "concordat node enroll" is a node
of the member. Compare the node id that it prints with the one that enroll printed: the request may have
come by any way.`,
		Example: "  concordat member certify --request enroll.json --key hospital-a/issuer.key --policy federation.policy --out node.credential",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadChain(chain)
			if err != nil {
				return err
			}
			r, err := readEnrollment(request)
			if err != nil {
				return err
			}
			s, err := keyfile.ReadSigner(key)
			if err != nil {
				return err
			}
			p := c.Head()
			m := p.Member(r.Member)
			if m == nil {
				return fmt.Errorf("%s: %q is not a member of the federation", request, r.Member)
			}
			if m.IssuerKey != s.Public() {
				return hinted(exitFail, fmt.Errorf("%s: is not the issuer key of %s in the policy", key, r.Member), "use the member's issuer.key, or change the policy")
			}
			life := p.Nodes.CredentialAge
			if valid != "" {
				if life, err = source.ParseDuration(valid); err != nil || life == 0 {
					return usagef("--valid is %q, want a time such as 30d", valid)
				}
			}
			if serial == 0 {
				serial = randomSerial()
			}
			now := time.Now()
			end := now.Add(life.Duration())
			raw, err := policy.SignCredential(s, policy.NodeCredential{Federation: c.Federation(), Member: r.Member, NodeKey: r.key, Serial: serial, NotAfter: uint64(end.Unix())})
			if err != nil {
				return err
			}
			cred, _, err := p.VerifyCredential(raw, now) // as the enclave will
			if err != nil {
				return err
			}
			if err := createFile(out, raw); err != nil {
				return err
			}
			v := struct {
				File     string          `json:"file"`
				Member   policy.MemberID `json:"member"`
				NodeID   cose.Digest     `json:"node_id"`
				Serial   uint64          `json:"serial"`
				NotAfter time.Time       `json:"not_after"`
			}{out, r.Member, cred.NodeID(), serial, end.UTC().Truncate(time.Second)}
			return emit(cmd, v, func(w io.Writer) {
				fmt.Fprintf(w, "member      %s\nnode id     %s\nserial      %d\nvalid until %s\n", v.Member, v.NodeID, v.Serial, v.NotAfter.Format(time.RFC3339))
				fmt.Fprintf(w, "wrote %s\nnext: compare the node id with what \"concordat node enroll\" printed, then give the file to the node\n", out)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&request, "request", "", "enroll.json of the node")
	f.StringVar(&key, "key", "", "the member's issuer key")
	f.StringVar(&chain, "policy", "", "the federation's signed chain")
	f.StringVar(&valid, "valid", "", "validity, such as 30d (default the longest that the policy allows)")
	f.Uint64Var(&serial, "serial", 0, "your own number for the credential (default random)")
	f.StringVarP(&out, "out", "o", "node.credential", "file for the credential")
	for _, name := range []string{"request", "key", "policy"} {
		must(cmd.MarkFlagRequired(name))
	}
	return cmd
}

func randomSerial() uint64 {
	var b [8]byte
	rand.Read(b[:])                             // never fails
	return binary.BigEndian.Uint64(b[:])>>1 | 1 // not 0, and a positive number in every language
}
