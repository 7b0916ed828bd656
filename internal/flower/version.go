package flower

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Version is a version of Flower: which of its wires its processes speak goes by it. All
// that are known have the major number 1.
type Version struct {
	Major, Minor int
	text         string
}

// String returns it as it was written: "1.42.0".
func (v Version) String() string { return v.text }

// Between reports whether v is 1.first to 1.last, whatever follows.
func (v Version) Between(first, last int) bool {
	return v.Major == 1 && v.Minor >= first && v.Minor <= last
}

// ParseVersion reads the first two numbers of a version.
func ParseVersion(s string) (Version, error) {
	v := Version{text: s}
	if _, err := fmt.Sscanf(s, "%d.%d", &v.Major, &v.Minor); err != nil {
		return Version{}, fmt.Errorf("flwr has version %.40q", s)
	}
	return v, nil
}

// VersionOf reads from a Python environment, a folder, which version of Flower is in it.
func VersionOf(environment string) (Version, error) {
	found, err := filepath.Glob(filepath.Join(environment, "lib", "python3*", "site-packages", "flwr-*.dist-info"))
	if err != nil || len(found) != 1 {
		return Version{}, fmt.Errorf("it holds flwr %d times, want once: pip install flwr", len(found))
	}
	name := filepath.Base(found[0])
	return ParseVersion(strings.TrimSuffix(strings.TrimPrefix(name, "flwr-"), ".dist-info"))
}
