package collect

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"fmt"

	"github.com/concordat/concordat/attestation"
)

// guid names a certificate in the table that a host passes to its guest beside an SNP
// report (AMD 56421, "SEV-ES Guest-Hypervisor Communication Block Standardization",
// SNP Extended Guest Request). Its bytes are in the order in which it is written.
type guid [16]byte

// The names of section "SNP Extended Guest Request", table "GUIDs for certificates".
// A VLEK's ASVK comes under the ASK's name.
var (
	guidVCEK = mustGUID("63da758de6644564adc5f4b93be8accd")
	guidVLEK = mustGUID("a8074bc2a25a483eaae639c045a0b8a1")
	guidASK  = mustGUID("4ab7b379bbac4fe4a02f05aef327c782")
	guidARK  = mustGUID("c0b406a4a803495297433fb6014cd0ae")
)

func mustGUID(s string) (g guid) {
	if n, err := hex.Decode(g[:], []byte(s)); err != nil || n != len(g) {
		panic("collect: bad GUID " + s)
	}
	return g
}

// Limits of a table. The kernel passes on 16 KiB at most (SEV_FW_BLOB_MAX_SIZE); the
// caller's limit for any attribute bounds what is left of the size.
const (
	certEntrySize  = 16 + 4 + 4 // GUID, u32 offset from the table's start, u32 length; little-endian
	maxCertEntries = 32
)

// parseCertTable reads the table: entries, one of zeros, certificates in DER. It
// returns the endorsements that a verifier of SNP reports looks for and passes over
// what has another name. An empty table is none. The host made it and is not
// believed: nothing is known about the certificates but where they lie.
func parseCertTable(b []byte) ([]attestation.Endorsement, error) {
	if len(b) == 0 {
		return nil, nil
	}
	found := make(map[guid][]byte)
	first := uint64(len(b)) // where certificates begin
	end := uint64(0)        // where entries end
	for i := 0; ; i++ {
		if len(b) < (i+1)*certEntrySize || i > maxCertEntries {
			return nil, fmt.Errorf("certificate table: no end after %d entries", i)
		}
		e := b[i*certEntrySize:][:certEntrySize]
		if [certEntrySize]byte(e) == [certEntrySize]byte{} {
			end = uint64(i+1) * certEntrySize
			break
		}
		id := guid(e)
		offset, length := uint64(binary.LittleEndian.Uint32(e[16:])), uint64(binary.LittleEndian.Uint32(e[20:]))
		if offset+length > uint64(len(b)) {
			return nil, fmt.Errorf("certificate table: entry %d: bytes %d to %d of %d", i, offset, offset+length, len(b))
		}
		if length == 0 {
			return nil, fmt.Errorf("certificate table: entry %d: empty", i)
		}
		if found[id] != nil {
			return nil, fmt.Errorf("certificate table: entry %d: %x is there twice", i, id)
		}
		found[id] = b[offset:][:length:length]
		first = min(first, offset)
	}
	if first < end {
		return nil, fmt.Errorf("certificate table: a certificate at byte %d, among the entries", first)
	}
	var docs []attestation.Endorsement
	add := func(typ string, data []byte) {
		docs = append(docs, attestation.Endorsement{Type: typ, Data: data})
	}
	if der := found[guidVCEK]; der != nil {
		add(attestation.TypeAMDVCEK, der)
	}
	if der := found[guidVLEK]; der != nil {
		add(attestation.TypeAMDVLEK, der)
	}
	if ask, ark := found[guidASK], found[guidARK]; ask != nil && ark != nil {
		chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ask})
		add(attestation.TypeAMDChain, append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ark})...))
	}
	return docs, nil
}
