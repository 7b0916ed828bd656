package fab

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of a bundle. Flower's own is MaxSize.
const (
	MaxSize     = 10 << 20 // bytes of the zip
	maxFiles    = 4096
	maxUnpacked = 32 << 20 // bytes of all files
	maxName     = 512      // bytes of a path
	maxProject  = 64 << 10 // bytes of pyproject.toml
)

const (
	manifestName = ".info/CONTENT"
	projectName  = "pyproject.toml"
)

// ErrBundle is wrapped by every error of [Parse].
var ErrBundle = errors.New("fab: not a bundle that may run")

func badf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrBundle, fmt.Errorf(format, args...))
}

// Bundle is a checked app bundle.
type Bundle struct {
	Digest  [32]byte // SHA-256 of Content: Flower's hash of the bundle
	Content []byte   // the zip; not to be changed
	Files   []File   // in the order of the manifest
	Project
}

// File is a file of the app.
type File struct {
	Path   string
	Size   int64
	Digest [32]byte
}

// Hash returns the digest as Flower writes it.
func (b *Bundle) Hash() string { return hex.EncodeToString(b.Digest[:]) }

// Parse checks a bundle. It keeps content. Every error wraps [ErrBundle] and names
// the file that it is about.
func Parse(content []byte) (*Bundle, error) {
	if len(content) > MaxSize {
		return nil, badf("%d bytes, limit %d", len(content), MaxSize)
	}
	z, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		return nil, badf("%w", err)
	}
	if len(z.File) > maxFiles {
		return nil, badf("%d files, limit %d", len(z.File), maxFiles)
	}
	files, err := unpack(z)
	if err != nil {
		return nil, err
	}
	b := &Bundle{Digest: sha256.Sum256(content), Content: content}
	if b.Files, err = checkManifest(files); err != nil {
		return nil, err
	}
	if b.Project, err = parseProject(files[projectName]); err != nil {
		return nil, err
	}
	return b, nil
}

// unpack reads every file, within the limits. What it refuses, Python's zipfile or
// a file system might read another way than the manifest's writer meant it.
func unpack(z *zip.Reader) (map[string][]byte, error) {
	files := make(map[string][]byte, len(z.File))
	folded := make(map[string]string, len(z.File)) // for file systems without case
	left := int64(maxUnpacked)
	for _, f := range z.File {
		if err := checkName(f.Name); err != nil {
			return nil, err
		}
		fold := strings.ToLower(f.Name)
		if other, twice := folded[fold]; twice {
			return nil, badf("%q and %q are one file", other, f.Name)
		}
		folded[fold] = f.Name
		switch {
		case !f.Mode().IsRegular():
			return nil, badf("%q is no regular file", f.Name)
		case f.Method != zip.Store && f.Method != zip.Deflate:
			return nil, badf("%q is packed with method %d", f.Name, f.Method)
		case f.Flags&1 != 0:
			return nil, badf("%q is encrypted", f.Name)
		}
		r, err := f.Open()
		if err != nil {
			return nil, badf("%q: %w", f.Name, err)
		}
		b, err := io.ReadAll(io.LimitReader(r, left+1)) // whatever size the header states
		if err = errors.Join(err, r.Close()); err != nil {
			return nil, badf("%q: %w", f.Name, err)
		}
		if left -= int64(len(b)); left < 0 {
			return nil, badf("%q: more than %d bytes of files", f.Name, maxUnpacked)
		}
		files[f.Name] = b
	}
	for fold, name := range folded {
		for dir := path.Dir(fold); dir != "."; dir = path.Dir(dir) {
			if other, both := folded[dir]; both {
				return nil, badf("%q is a file, and the folder of %q", other, name)
			}
		}
	}
	return files, nil
}

// checkName takes clean relative paths that mean the same on every system.
func checkName(name string) error {
	switch {
	case len(name) > maxName:
		return badf("a path of %d bytes, limit %d", len(name), maxName)
	case !utf8.ValidString(name) || !fs.ValidPath(name) || name == ".":
		return badf("%.80q is no clean relative path", name)
	case strings.ContainsAny(name, "\\:") || strings.ContainsFunc(name, unicode.IsControl):
		return badf("%.80q has characters that paths of other systems give a meaning", name)
	}
	return nil
}

// checkManifest compares the files with the manifest: all of them, and no others.
func checkManifest(files map[string][]byte) ([]File, error) {
	manifest, ok := files[manifestName]
	if !ok {
		return nil, badf("has no %s", manifestName)
	}
	var list []File
	listed := make(map[string]bool)
	for line := range strings.Lines(string(manifest)) {
		name, sum, bits, ok := fields(strings.TrimSuffix(line, "\n"))
		if !ok {
			return nil, badf("%s: %.80q is no line \"path,sha256,bits\"", manifestName, line)
		}
		content, there := files[name]
		if !there || listed[name] || name == manifestName {
			return nil, badf("%s lists %q, which is not a file, or twice", manifestName, name)
		}
		listed[name] = true
		digest := sha256.Sum256(content)
		if sum != hex.EncodeToString(digest[:]) || bits != int64(len(content))*8 {
			return nil, badf("%q is not the file that %s lists", name, manifestName)
		}
		list = append(list, File{Path: name, Size: int64(len(content)), Digest: digest})
	}
	// Older versions (1.26) do not list the project file; the bundle's own hash covers it.
	if project, there := files[projectName]; there && !listed[projectName] {
		listed[projectName] = true
		list = append([]File{{Path: projectName, Size: int64(len(project)), Digest: sha256.Sum256(project)}}, list...)
	}
	if len(list) != len(files)-1 {
		for name := range files {
			if !listed[name] && name != manifestName {
				return nil, badf("%q is not in %s", name, manifestName)
			}
		}
	}
	return list, nil
}

// fields cuts a line of the manifest; a path may hold commas.
func fields(line string) (name, sum string, bits int64, ok bool) {
	i := strings.LastIndexByte(line, ',')
	if i < 0 {
		return "", "", 0, false
	}
	bits, err := strconv.ParseInt(line[i+1:], 10, 64)
	j := strings.LastIndexByte(line[:i], ',')
	if err != nil || j < 1 {
		return "", "", 0, false
	}
	return line[:j], line[j+1 : i], bits, true
}
