package source

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
)

const keyPrefix = "ed25519:"

// FormatKey returns the text form of a member's key, "ed25519:" and 64 hex
// digits; of no key, the empty string.
func FormatKey(k cose.Key) string {
	if pub, ok := k.Public().(ed25519.PublicKey); ok {
		return keyPrefix + hex.EncodeToString(pub)
	}
	return ""
}

// ParseKey reads what [FormatKey] wrote.
func ParseKey(s string) (cose.Key, error) {
	h, ok := strings.CutPrefix(s, keyPrefix)
	b, err := hex.DecodeString(h)
	if !ok || err != nil || len(b) != ed25519.PublicKeySize {
		return cose.Key{}, fmt.Errorf("is %.100q, want %q and 64 hex digits", s, keyPrefix)
	}
	return cose.NewKey(ed25519.PublicKey(b))
}

// FormatDuration returns days, hours, minutes and seconds, such as "1d12h".
func FormatDuration(s policy.Seconds) string {
	if s == 0 {
		return "0s"
	}
	var b strings.Builder
	for _, u := range units {
		if n := s / u.seconds; n > 0 {
			fmt.Fprintf(&b, "%d%c", n, u.letter)
			s %= u.seconds
		}
	}
	return b.String()
}

var units = []struct {
	letter  byte
	seconds policy.Seconds
}{{'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}}

// ParseDuration reads whole days, hours, minutes and seconds in that order, each
// at most once.
func ParseDuration(s string) (policy.Seconds, error) {
	bad := fmt.Errorf("is %.40q, want a time such as 30d, 12h, 10m or 1d12h", s)
	var sum policy.Seconds
	rest := s
	for _, u := range units {
		num, after, ok := strings.Cut(rest, string(u.letter))
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(num, 10, 32) // 2^32 days fit many times
		if err != nil {
			return 0, bad
		}
		sum += policy.Seconds(n) * u.seconds
		rest = after
	}
	if rest != "" || s == "" {
		return 0, bad
	}
	return sum, nil
}

// formatShare writes parts per thousand as a decimal fraction.
func formatShare(n uint64) string {
	s := strings.TrimRight(fmt.Sprintf("%d.%03d", n/1000, n%1000), "0")
	return strings.TrimSuffix(s, ".")
}

func parseShare(s string) (uint64, error) {
	bad := fmt.Errorf("is %.40q, want a share from 0.001 to 1 with at most three decimals", s)
	whole, frac, _ := strings.Cut(s, ".")
	if len(whole) != 1 || len(frac) > 3 {
		return 0, bad
	}
	n, err := strconv.ParseUint(whole+frac+strings.Repeat("0", 3-len(frac)), 10, 16)
	if err != nil {
		return 0, bad
	}
	return n, nil
}

// setText sets v, a scalar of the form, from its text. Empty text is the zero
// value: it is for policy.Check to say that something is missing.
func setText(v reflect.Value, f form, s string) error {
	if s == "" && v.Kind() != reflect.Bool {
		v.SetZero()
		return nil
	}
	switch x := v.Addr().Interface().(type) {
	case *policy.Digest:
		d, err := cose.ParseDigest(s)
		if err != nil {
			return fmt.Errorf("is %.80q, want 64 hex digits", s)
		}
		*x = d
		return nil
	case *policy.Hex:
		b, err := hex.DecodeString(s)
		if err != nil {
			return fmt.Errorf("is %.80q, want hex digits", s)
		}
		*x = b
		return nil
	case *cose.Key:
		k, err := ParseKey(s)
		*x = k
		return err
	case *policy.Seconds:
		d, err := ParseDuration(s)
		*x = d
		return err
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Bool:
		if s != "true" && s != "false" {
			return fmt.Errorf("is %.40q, want true or false", s)
		}
		v.SetBool(s == "true")
	case reflect.Uint8, reflect.Uint64:
		n, err := parseNumber(s, f, v.Type().Bits())
		if err != nil {
			return err
		}
		v.SetUint(n)
	default:
		return errors.New("is a value, want fields")
	}
	return nil
}

func parseNumber(s string, f form, bits int) (uint64, error) {
	switch f {
	case formShare:
		return parseShare(s)
	case formMask, formOptionalMask:
		h, ok := strings.CutPrefix(s, "0x")
		n, err := strconv.ParseUint(h, 16, bits)
		if !ok || err != nil {
			return 0, fmt.Errorf("is %.40q, want 0x and hex digits", s)
		}
		return n, nil
	}
	n, err := strconv.ParseUint(s, 10, bits)
	if errors.Is(err, strconv.ErrRange) && bits < 64 {
		return 0, fmt.Errorf("is %.40s, want at most %d", s, uint64(math.MaxUint64)>>(64-bits))
	}
	if err != nil {
		return 0, fmt.Errorf("is %.40q, want a whole number", s)
	}
	return n, nil
}

// text is the inverse of setText; quote says that YAML needs it in quotes.
func text(v reflect.Value, f form) (s string, quote bool) {
	switch x := v.Interface().(type) {
	case policy.Digest:
		if x.IsZero() {
			return "", true
		}
		return x.String(), true
	case policy.Hex:
		return x.String(), true
	case cose.Key:
		return FormatKey(x), x.IsZero()
	case policy.Seconds:
		return FormatDuration(x), false
	}
	switch v.Kind() {
	case reflect.Bool:
		return strconv.FormatBool(v.Bool()), false
	case reflect.Uint8, reflect.Uint64:
		switch f {
		case formShare:
			return formatShare(v.Uint()), false
		case formMask, formOptionalMask:
			return fmt.Sprintf("0x%x", v.Uint()), true // without quotes YAML has a number
		}
		return strconv.FormatUint(v.Uint(), 10), false
	}
	return v.String(), !plain(v.String())
}

// plain reports whether YAML reads s as the text s without quotes. It errs on
// the side of quotes.
func plain(s string) bool {
	switch strings.ToLower(s) {
	case "", "any", "true", "false", "null", "yes", "no", "on", "off", "y", "n":
		return false
	}
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789_./+=-", r)) {
			return false
		}
	}
	return true
}
