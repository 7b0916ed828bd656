package collect

import (
	"bytes"
	"encoding/binary"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"github.com/concordat/concordat/attestation"
	"github.com/google/go-sev-guest/abi"
	spb "github.com/google/go-sev-guest/proto/sevsnp"
)

// certTable makes the table of a host, with another implementation than ours.
func certTable(t testing.TB, docs []attestation.Endorsement) []byte {
	t.Helper()
	chain := new(spb.CertificateChain)
	for _, d := range docs {
		switch d.Type {
		case attestation.TypeAMDVCEK:
			chain.VcekCert = d.Data
		case attestation.TypeAMDVLEK:
			chain.VlekCert = d.Data
		case attestation.TypeAMDChain:
			ask, rest := pem.Decode(d.Data)
			ark, _ := pem.Decode(rest)
			chain.AskCert, chain.ArkCert = ask.Bytes, ark.Bytes
		default:
			t.Fatalf("a table has no %s", d.Type)
		}
	}
	return abi.CertsFromProto(chain).Marshal()
}

func pemOf(der ...string) (out []byte) {
	for _, d := range der {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(d)})...)
	}
	return out
}

func TestCertTable(t *testing.T) {
	t.Parallel()
	chain := attestation.Endorsement{Type: attestation.TypeAMDChain, Data: pemOf("ask", "ark")}
	vcek := attestation.Endorsement{Type: attestation.TypeAMDVCEK, Data: []byte("vcek")}
	vlek := attestation.Endorsement{Type: attestation.TypeAMDVLEK, Data: []byte("vlek")}
	extra := &spb.CertificateChain{VcekCert: vcek.Data, ArkCert: []byte("ark"), Extras: map[string][]byte{"92f81bc3-5811-4d3d-97ff-d19f88dc67ea": []byte("crl")}}
	for name, c := range map[string]struct {
		table []byte
		want  []attestation.Endorsement
	}{
		"nothing":              {nil, nil},
		"an end":               {make([]byte, certEntrySize), nil},
		"a page of zeros":      {make([]byte, 4096), nil},
		"VCEK":                 {certTable(t, []attestation.Endorsement{vcek}), []attestation.Endorsement{vcek}},
		"VCEK and chain":       {certTable(t, []attestation.Endorsement{chain, vcek}), []attestation.Endorsement{vcek, chain}},
		"VLEK and chain":       {certTable(t, []attestation.Endorsement{vlek, chain}), []attestation.Endorsement{vlek, chain}},
		"padded to a page":     {append(certTable(t, []attestation.Endorsement{vcek}), make([]byte, 4000)...), []attestation.Endorsement{vcek}},
		"half a chain, others": {abi.CertsFromProto(extra).Marshal(), []attestation.Endorsement{vcek}},
	} {
		got, err := parseCertTable(c.table)
		if err != nil || !slices.EqualFunc(got, c.want, func(a, b attestation.Endorsement) bool { return a.Type == b.Type && bytes.Equal(a.Data, b.Data) }) {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
}

// table lays out entries as given, and then data.
func table(data string, entries ...struct {
	id             guid
	offset, length uint32
}) (b []byte) {
	for _, e := range entries {
		b = append(b, e.id[:]...)
		b = binary.LittleEndian.AppendUint32(b, e.offset)
		b = binary.LittleEndian.AppendUint32(b, e.length)
	}
	return append(b, data...)
}

func TestCertTableRefused(t *testing.T) {
	t.Parallel()
	type entry = struct {
		id             guid
		offset, length uint32
	}
	end := entry{}
	var many []entry
	for i := range maxCertEntries + 1 {
		many = append(many, entry{guid{byte(i), 1}, 1000, 1})
	}
	for name, c := range map[string]struct {
		table []byte
		want  string
	}{
		"one byte":         {[]byte{0}, "no end after 0"},
		"no end":           {table("", entry{guidVCEK, 0, 24}), "no end after 1"},
		"beyond the table": {table("vcek", entry{guidVCEK, 48, 5}, end), "bytes 48 to 53 of 52"},
		"wraps around":     {table("vcek", entry{guidVCEK, 1<<32 - 1, 5}, end), "bytes 4294967295 to 4294967300"},
		"largest":          {table("vcek", entry{guidVCEK, 1<<32 - 1, 1<<32 - 1}, end), "of 52"},
		"empty":            {table("vcek", entry{guidVCEK, 48, 0}, end), "empty"},
		"twice":            {table("vcekvcek", entry{guidVCEK, 72, 4}, entry{guidVCEK, 76, 4}, end), "twice"},
		"inside entries":   {table("vcek", entry{guidVCEK, 47, 5}, end), "among the entries"},
		"too many":         {table(strings.Repeat("x", 4096), append(many, end)...), "no end after 33"},
	} {
		if got, err := parseCertTable(c.table); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
}

// FuzzCertTable: no table is a surprise, and what is found go-sev-guest finds too.
func FuzzCertTable(f *testing.F) {
	all := &spb.CertificateChain{VcekCert: []byte("vcek"), VlekCert: []byte("vlek"), AskCert: []byte("ask"), ArkCert: []byte("ark")}
	f.Add(abi.CertsFromProto(all).Marshal())
	f.Add(make([]byte, certEntrySize))
	f.Add(table("vcek", struct {
		id             guid
		offset, length uint32
	}{guidVCEK, 1<<32 - 1, 5}))
	f.Fuzz(func(t *testing.T, b []byte) {
		docs, err := parseCertTable(b)
		if err != nil {
			return
		}
		theirs := new(abi.CertTable)
		if err := theirs.Unmarshal(b); err != nil {
			t.Fatalf("go-sev-guest: %v", err)
		}
		for _, d := range docs {
			name := map[string]string{attestation.TypeAMDVCEK: abi.VcekGUID, attestation.TypeAMDVLEK: abi.VlekGUID}[d.Type]
			if name == "" {
				continue
			}
			if want, err := theirs.GetByGUIDString(name); err != nil || !bytes.Equal(d.Data, want) {
				t.Errorf("%s: %x, go-sev-guest has %x, %v", d.Type, d.Data, want, err)
			}
		}
	})
}
