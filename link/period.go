package link

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Period is how long something is kept: "30d", whatever time.ParseDuration reads, or
// "forever". The zero value is the default.
type Period time.Duration

// Forever is longer than any link runs.
const Forever Period = math.MaxInt64

const day = 24 * time.Hour

// String returns what UnmarshalText reads.
func (p Period) String() string {
	switch d := time.Duration(p); {
	case p == Forever:
		return "forever"
	case d >= day && d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	default:
		return d.String()
	}
}

// MarshalText implements encoding.TextMarshaler.
func (p Period) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Period) UnmarshalText(b []byte) error {
	if string(b) == "forever" {
		*p = Forever
		return nil
	}
	d, err := time.ParseDuration(string(b))
	if days, ok := strings.CutSuffix(string(b), "d"); ok {
		var n uint64
		if n, err = strconv.ParseUint(days, 10, 16); err == nil { // up to 179 years
			d = time.Duration(n) * day
		}
	}
	if err != nil {
		return errors.New(`want a time such as "30d" or "12h", or "forever"`)
	}
	if d <= 0 {
		return fmt.Errorf("%s is no time to keep anything", b)
	}
	*p = Period(d)
	return nil
}
