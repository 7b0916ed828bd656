package flwrproto

import (
	"fmt"
	"math"
)

// Scalars returns a config in Flower's form. Values of other types than bool, int64,
// float64 and string are left out: the caller has checked them.
func Scalars(config map[string]any) map[string]*Scalar {
	out := make(map[string]*Scalar, len(config))
	for k, v := range config {
		switch v := v.(type) {
		case bool:
			out[k] = &Scalar{Scalar: &Scalar_Bool{Bool: v}}
		case int64:
			out[k] = &Scalar{Scalar: &Scalar_Sint64{Sint64: v}}
		case float64:
			out[k] = &Scalar{Scalar: &Scalar_Double{Double: v}}
		case string:
			out[k] = &Scalar{Scalar: &Scalar_String_{String_: v}}
		}
	}
	return out
}

// Values is the opposite of [Scalars]. It fails for bytes and for nothing, which no
// config holds.
func Values(config map[string]*Scalar) (map[string]any, error) {
	out := make(map[string]any, len(config))
	for k, v := range config {
		switch v := v.GetScalar().(type) {
		case *Scalar_Bool:
			out[k] = v.Bool
		case *Scalar_Sint64:
			out[k] = v.Sint64
		case *Scalar_Uint64:
			if v.Uint64 > math.MaxInt64 {
				return nil, fmt.Errorf("%.80q is %d, limit %d", k, v.Uint64, int64(math.MaxInt64))
			}
			out[k] = int64(v.Uint64)
		case *Scalar_Double:
			out[k] = v.Double
		case *Scalar_String_:
			out[k] = v.String_
		default:
			return nil, fmt.Errorf("%.80q is no bool, integer, float or string", k)
		}
	}
	return out, nil
}
