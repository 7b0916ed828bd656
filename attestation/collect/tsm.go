package collect

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"syscall"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/attestation/tdx"
	"github.com/google/go-configfs-tsm/configfs/configfsi"
)

// The interface is Linux, Documentation/ABI/testing/configfs-tsm-report. The report
// package of go-configfs-tsm speaks it too, but turns the kernel's error numbers into
// text, and what is worth another try would be guessed from words.
const reports = configfsi.TsmPrefix + "/report"

// platform is a kind of confidential VM.
type platform struct {
	provider string // as the attribute of this name says it
	kind     attestation.Kind
	// extra: the provider has privilege levels and a blob of certificates.
	extra bool
	// reportData reads what a report answers.
	reportData func(raw []byte) ([64]byte, error)
}

var platforms = [...]platform{
	{"sev_guest", attestation.KindSNP, true, func(raw []byte) ([64]byte, error) {
		r, err := snp.Parse(raw)
		if err != nil {
			return [64]byte{}, err
		}
		return r.ReportData, nil
	}},
	{"tdx_guest", attestation.KindTDX, false, func(raw []byte) ([64]byte, error) {
		q, err := tdx.Parse(raw)
		if err != nil {
			return [64]byte{}, err
		}
		return q.Body.ReportData, nil
	}},
}

// errRaced is a report entry that somebody else has written to.
var errRaced = errors.New("another process wrote to the report entry")

// errNoTSM is a kernel that has no configfs-tsm, or no driver behind it.
var errNoTSM = errors.New("no configfs-tsm")

// mute explains a machine without a TEE.
const mute = "this machine cannot attest itself: it needs a confidential VM (SEV-SNP or TDX), Linux 6.7 or later, the sev-guest or tdx-guest driver, and configfs at /sys/kernel/config"

// detect asks the kernel which platform this is.
func detect(files configfsi.Client) (*platform, error) {
	e, err := newEntry(files)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENXIO):
		// No configfs-tsm, or nobody behind it (drivers/virt/coco: tsm_report_make_item).
		return nil, fmt.Errorf("%s (%w): %w: %w", mute, err, errNoTSM, errors.ErrUnsupported)
	case err != nil:
		return nil, err
	}
	// Nothing is asked of the hardware before a report is read.
	err = e.write("inblob", make([]byte, 64))
	var name []byte
	if err == nil {
		name, err = e.read("provider")
	}
	if err := errors.Join(err, e.remove()); err != nil {
		return nil, err
	}
	name = bytes.TrimSuffix(name, []byte("\n"))
	for i, p := range platforms {
		if p.provider == string(name) {
			return &platforms[i], nil
		}
	}
	return nil, fmt.Errorf("%s: the provider is %.40q: %w", mute, name, errors.ErrUnsupported)
}

// ask is an [asker] through configfs-tsm.
func (p *platform) ask(files configfsi.Client, data [64]byte) (report, certs []byte, err error) {
	e, err := newEntry(files)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, e.remove()) }()
	if err := e.write("inblob", data[:]); err != nil {
		return nil, nil, err
	}
	if p.extra {
		if err := e.privilege(); err != nil {
			return nil, nil, err
		}
		// Both blobs are of one answer: the kernel keeps it while the generation stays.
		if certs, err = e.read("auxblob"); err != nil {
			return nil, nil, err
		}
	}
	if report, err = e.read("outblob"); err != nil {
		return nil, nil, err
	}
	return report, certs, nil
}

// entry is one directory under [reports]: a question and its answer.
type entry struct {
	files      configfsi.Client
	dir        string
	generation uint64 // what the kernel has counted if only this entry's owner wrote
}

func newEntry(files configfsi.Client) (*entry, error) {
	dir, err := files.MkdirTemp(reports, "concordat-")
	if err != nil {
		return nil, fmt.Errorf("configfs-tsm: %w", err)
	}
	e := &entry{files: files, dir: dir}
	if e.generation, err = e.number("generation"); err != nil {
		return nil, errors.Join(err, e.remove())
	}
	return e, nil
}

// write sets an attribute. The kernel takes a binary one when the file is closed, and
// tells nobody if it does not want it (fs/configfs/file.c); the generation then stays
// behind, and [entry.read] sees it.
func (e *entry) write(attr string, value []byte) error {
	if err := e.files.WriteFile(path.Join(e.dir, attr), value); err != nil {
		return fmt.Errorf("configfs-tsm: write %s: %w", attr, err)
	}
	e.generation++
	return nil
}

// read returns an attribute, if it belongs to what this entry wrote.
func (e *entry) read(attr string) ([]byte, error) {
	b, err := e.files.ReadFile(path.Join(e.dir, attr))
	if err != nil {
		return nil, fmt.Errorf("configfs-tsm: read %s: %w", attr, err)
	}
	got, err := e.number("generation")
	if err != nil {
		return nil, err
	}
	if got != e.generation {
		return nil, fmt.Errorf("configfs-tsm: read %s: %w: generation %d, want %d", attr, errRaced, got, e.generation)
	}
	return b, nil
}

// privilege asks for a report of the most privileged level, the only one that a
// policy accepts.
func (e *entry) privilege() error {
	floor, err := e.number("privlevel_floor")
	if err != nil {
		return err
	}
	if floor > 0 {
		return fmt.Errorf("configfs-tsm: this guest runs at VMPL %d, under an SVSM; VMPL 0 is needed: %w", floor, errors.ErrUnsupported)
	}
	return e.write("privlevel", []byte("0"))
}

// number reads a decimal attribute.
func (e *entry) number(attr string) (uint64, error) {
	b, err := e.files.ReadFile(path.Join(e.dir, attr))
	if err != nil {
		return 0, fmt.Errorf("configfs-tsm: read %s: %w", attr, err)
	}
	n, err := strconv.ParseUint(string(bytes.TrimSuffix(b, []byte("\n"))), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("configfs-tsm: %s: %w", attr, err)
	}
	return n, nil
}

func (e *entry) remove() error {
	if err := e.files.RemoveAll(e.dir); err != nil {
		return fmt.Errorf("configfs-tsm: remove the report entry: %w", err)
	}
	return nil
}
