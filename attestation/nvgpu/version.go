package nvgpu

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Version is a dotted version, one number a part. The zero value is no version.
// Versions are compared number by number: as text, "550.9" would come after
// "550.90".
type Version []uint32

// maxParts bounds a version: drivers have three parts, VBIOSes five.
const maxParts = 8

// ParseDriver decodes a driver version, dotted decimal ("550.90.07").
func ParseDriver(s string) (Version, error) { return parseVersion("driver", s, 10) }

// ParseVBIOS decodes a VBIOS version, dotted hex of one byte a part
// ("96.00.9F.00.01").
func ParseVBIOS(s string) (Version, error) {
	v, err := parseVersion("VBIOS", s, 16)
	for _, n := range v {
		if n > 0xff {
			return nil, fmt.Errorf("nvgpu: VBIOS version %.40q: a part is over one byte", s)
		}
	}
	return v, err
}

func parseVersion(what, s string, base int) (Version, error) {
	parts := strings.SplitN(s, ".", maxParts+1)
	if len(parts) > maxParts {
		return nil, fmt.Errorf("nvgpu: %s version %.40q: more than %d parts", what, s, maxParts)
	}
	v := make(Version, len(parts))
	for i, p := range parts {
		n, err := strconv.ParseUint(p, base, 32)
		if err != nil || len(p) > 10 {
			return nil, fmt.Errorf("nvgpu: %s version %.40q: part %d is not a number to base %d", what, s, i+1, base)
		}
		v[i] = uint32(n)
	}
	return v, nil
}

// Compare returns -1, 0 or +1 as v is lower than, equal to or higher than w.
// Missing parts count as 0.
func (v Version) Compare(w Version) int {
	for i := range max(len(v), len(w)) {
		var a, b uint32
		if i < len(v) {
			a = v[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			if a < b {
				return -1
			}
			return 1
		}
	}
	return 0
}

// Driver returns the driver's version as the report spells it. The text has
// passed [ParseDriver].
func (r *Report) Driver() (string, error) {
	b, ok := r.Field(FieldDriver)
	if !ok {
		return "", fmt.Errorf("nvgpu: the report states no driver version")
	}
	s := string(bytes.TrimRight(b, "\x00"))
	if _, err := ParseDriver(s); err != nil {
		return "", err
	}
	return s, nil
}

// VBIOS returns the VBIOS version in NVIDIA's spelling, upper-case hex. A GPU
// states it in 8 bytes: a u32 and a byte, little-endian, and zeros, so that
// 00 9f 00 96 01 00 00 00 are "96.00.9F.00.01". A switch states it in ASCII.
func (r *Report) VBIOS() (string, error) {
	b, ok := r.Field(FieldVBIOS)
	if !ok {
		return "", fmt.Errorf("nvgpu: the report states no VBIOS version")
	}
	if len(b) != 8 {
		s := strings.ToUpper(string(bytes.TrimRight(b, "\x00")))
		if !vbiosForm.MatchString(s) {
			return "", fmt.Errorf("nvgpu: VBIOS version %.40q is neither 8 bytes nor five numbers in text", s)
		}
		return s, nil
	}
	if b[5]|b[6]|b[7] != 0 {
		return "", fmt.Errorf("nvgpu: VBIOS version %x is not five bytes and three zeros", b)
	}
	return fmt.Sprintf("%02X.%02X.%02X.%02X.%02X", b[3], b[2], b[1], b[0], b[4]), nil
}

var vbiosForm = regexp.MustCompile(`^[0-9A-F]{2}(\.[0-9A-F]{2}){4}$`)

// EncodeVBIOS is the inverse of [Report.VBIOS] for a GPU: the 8 bytes of
// [FieldVBIOS] for a version of five parts.
func EncodeVBIOS(s string) ([]byte, error) {
	v, err := ParseVBIOS(s)
	if err != nil {
		return nil, err
	}
	if len(v) != 5 {
		return nil, fmt.Errorf("nvgpu: VBIOS version %.40q: %d parts, want 5", s, len(v))
	}
	return []byte{byte(v[3]), byte(v[2]), byte(v[1]), byte(v[0]), byte(v[4]), 0, 0, 0}, nil
}
