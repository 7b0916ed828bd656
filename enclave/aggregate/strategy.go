package aggregate

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/concordat/concordat/chunkstore/object"
)

// Class says what the outputs of a strategy depend on. It is fixed in code: no
// policy and no caller chooses it.
type Class string

const (
	// Mixing: every output value depends on every contribution with weight > 0.
	Mixing Class = "mixing"
	// Selecting: an output value can be one contribution's value, as it was sent.
	Selecting Class = "selecting"
)

// Names of the strategies, as policies list them. Formulas and arguments are those of
// flwr.serverapp.strategy (flwr 1.29), whose classes have the same names.
const (
	FedAvg        = "fedavg"        // weighted mean
	FedProx       = "fedprox"       // the same; the apps add a proximal term, by "proximal-mu" of their config
	FedAvgM       = "fedavgm"       // a step from the model towards the mean, with momentum
	FedAdagrad    = "fedadagrad"    // adaptive steps (Reddi et al. 2020, arXiv:2003.00295)
	FedAdam       = "fedadam"       // the same paper's
	FedYogi       = "fedyogi"       // the same paper's
	QFedAvg       = "qfedavg"       // members with a large loss weigh more (Li et al. 2019, arXiv:1905.10497)
	FedMedian     = "fedmedian"     // coordinate-wise median
	FedTrimmedAvg = "fedtrimmedavg" // coordinate-wise mean without the extremes
	Krum          = "krum"          // the contribution that is nearest to the others
	MultiKrum     = "multikrum"     // mean of those that are nearest to the others
	Bulyan        = "bulyan"        // MultiKrum's choice, then per coordinate the mean of those nearest to its median
	DPFedAvg      = "dpfedavg"      // mean of clipped updates, with Gaussian noise (server-side fixed clipping)
)

// MaxContributions bounds one step. Every strategy holds a tile of each.
const MaxContributions = 1 << 14

// maxExamples bounds the sum of all weights, so that sums and quotients of
// weights are exact in float64 as they are in Flower's Python integers.
const maxExamples = 1 << 53

// Errors of [New].
var (
	ErrStrategy = errors.New("unknown strategy")
	ErrArgument = errors.New("wrong argument")
)

// Refused says that one contribution cannot be aggregated and why. Found at
// admission, its sender is excluded with the others unharmed.
type Refused struct {
	Index  int    // of the contribution in its [Step]; -1 if the caller knows which ([Check], [Strategy.Weigh])
	Array  string // name of the array; empty if it is not about one
	Reason string // never holds a value of the tensor
}

func (r *Refused) Error() string {
	s := "aggregate: "
	if r.Index >= 0 {
		s += fmt.Sprintf("contribution %d: ", r.Index)
	}
	if r.Array != "" {
		s += fmt.Sprintf("array %.80q: ", r.Array)
	}
	return s + r.Reason
}

// Strategy is a named strategy with its arguments. It does not change and is safe for
// concurrent use.
type Strategy struct {
	name string
	form form
	args map[string]float64
	loss string // the metric that holds the loss, of strategies that need it
}

// form is what all uses of a named strategy share.
type form struct {
	class   Class
	profile string
	args    []argument
	loss    bool        // needs each contribution's loss
	model   bool        // reads the model that was handed out
	survey  measurement // what is measured before anything is aggregated
	combine combination
	server  optimizer
}

// argument is one that a strategy takes, under the name of Flower's parameter.
type argument struct {
	name      string
	standard  float64 // Flower's default; NaN if there is none and it must be given
	whole     bool
	allowed   string // of the range, for people
	inAllowed func(x float64) bool
}

func between(name string, standard, low, high float64) argument {
	return argument{name, standard, false, fmt.Sprintf("at least %g and below %g", low, high), func(x float64) bool { return x >= low && x < high }}
}

func above(name string, standard, low float64) argument {
	return argument{name, standard, false, fmt.Sprintf("above %g", low), func(x float64) bool { return x > low && !math.IsInf(x, 0) }}
}

func count(name string, standard, low float64) argument {
	return argument{name, standard, true, fmt.Sprintf("a whole number from %g to %d", low, MaxContributions), func(x float64) bool { return x >= low && x <= MaxContributions }}
}

var required = math.NaN()

// lossArgument names the metric that holds a contribution's training loss.
const (
	lossArgument = "train_loss_key"
	lossStandard = "train_loss"
)

// The profiles name the arithmetic and the order of summation. They go into signed
// statements: a change of what a strategy computes is a new number.
//
// The median and its kin release single members' coordinates, Krum whole updates;
// q-fair averaging lets one large loss carry nearly all the weight.
var forms = map[string]form{
	FedAvg:  {class: Mixing, profile: "fedavg/1;order=node-id;x*T(n/N)+acc;round=T"},
	FedProx: {class: Mixing, profile: "fedprox/1;order=node-id;x*T(n/N)+acc;round=T"},
	FedAvgM: {class: Mixing, profile: "fedavgm/1;a=fedavg/1;u=mu*u+(w-a);w-lr*u;round=T", model: true, server: momentum,
		args: []argument{above("server_learning_rate", 1, 0), between("server_momentum", 0, 0, 1)}},
	FedAdagrad: {class: Mixing, profile: "fedadagrad/1;a=fedavg/1;d=a-w;v=v+d*d;w+eta*d/(sqrt(v)+tau);round=T", model: true, server: adagrad,
		args: []argument{above("eta", 0.1, 0), above("tau", 1e-3, 0)}},
	FedAdam: {class: Mixing, profile: "fedadam/1;a=fedavg/1;d=a-w;m=b1*m+(1-b1)*d;v=b2*v+(1-b2)*d*d;w+f64(eta_t*m/(sqrt(v)+tau));round=T", model: true, server: adam,
		args: []argument{above("eta", 0.1, 0), between("beta_1", 0.9, 0, 1), between("beta_2", 0.99, 0, 1), above("tau", 1e-3, 0)}},
	FedYogi: {class: Mixing, profile: "fedyogi/1;a=fedavg/1;d=a-w;m=b1*m+(1-b1)*d;v=v-(1-b2)*d*d*sign(v-d*d);w+eta*m/(sqrt(v)+tau);round=T", model: true, server: yogi,
		args: []argument{above("eta", 0.01, 0), between("beta_1", 0.9, 0, 1), between("beta_2", 0.99, 0, 1), above("tau", 1e-3, 0)}},
	DPFedAvg: {class: Mixing, profile: "dpfedavg/1;w+(x-w)*T(min(1,C/norm));fedavg/1;+N(0,z*C*max(n/N));norm=f64;round=T", model: true, survey: norms,
		args: []argument{{"noise_multiplier", required, false, "not negative", func(x float64) bool { return x >= 0 && !math.IsInf(x, 0) }}, above("clipping_norm", required, 0)}},
	QFedAvg: {class: Selecting, profile: "qfedavg/1;order=node-id;d=sum((w-x)*L*F^q);w-d/h;norm=f64;round=T", model: true, loss: true, survey: norms, combine: fair,
		args: []argument{above("client_learning_rate", required, 0), {"q", 0.1, false, "not negative", func(x float64) bool { return x >= 0 && !math.IsInf(x, 0) }}}},
	FedMedian: {class: Selecting, profile: "fedmedian/1;(lo+hi)/2;round=T", combine: middle},
	FedTrimmedAvg: {class: Selecting, profile: "fedtrimmedavg/1;order=ascending;sum=f64;round=T", combine: trimmed,
		args: []argument{between("beta", 0.2, 0, 0.5)}},
	Krum: {class: Selecting, profile: "krum/1;distance=f64;argsort=stable;fedavg/1;order=score", survey: distances,
		args: []argument{count("num_malicious_nodes", 0, 0)}},
	MultiKrum: {class: Selecting, profile: "multikrum/1;distance=f64;argsort=stable;fedavg/1;order=score", survey: distances,
		args: []argument{count("num_malicious_nodes", 0, 0), count("num_nodes_to_select", 1, 1)}},
	Bulyan: {class: Selecting, profile: "bulyan/1;multikrum/1;nearest(fedmedian/1),lower-first;order=ascending;sum=f64;round=T", survey: distances, combine: nearest,
		args: []argument{count("num_malicious_nodes", 0, 0)}},
}

// ClassOf returns the class of the named strategy, and whether [New] knows it.
func ClassOf(name string) (Class, bool) {
	f, ok := forms[name]
	return f.class, ok
}

// New returns the named strategy with arguments under the names of Flower's parameters:
// values are int64 or float64, of train_loss_key a string. What is not given is Flower's
// default. An unknown name is [ErrStrategy]; an argument that the strategy does not take,
// lacks or cannot have is [ErrArgument].
func New(name string, args map[string]any) (*Strategy, error) {
	f, known := forms[name]
	if !known {
		return nil, fmt.Errorf("aggregate: %w %.40q", ErrStrategy, name)
	}
	s := &Strategy{name: name, form: f, args: map[string]float64{}}
	takes := []string{}
	for _, a := range f.args {
		takes = append(takes, a.name)
		given, ok := args[a.name]
		x, isNumber := number(given)
		_, isInt := given.(int64)
		switch {
		case !ok && math.IsNaN(a.standard):
			return nil, fmt.Errorf("aggregate: %s: %w: %s is not given; it is %s", name, ErrArgument, a.name, a.allowed)
		case !ok:
			x = a.standard
		case !isNumber || a.whole && !isInt || !a.inAllowed(x):
			return nil, fmt.Errorf("aggregate: %s: %w: %s is %.40v, want %s", name, ErrArgument, a.name, given, a.allowed)
		}
		s.args[a.name] = x
	}
	if f.loss {
		takes = append(takes, lossArgument)
		s.loss = lossStandard
		if given, ok := args[lossArgument]; ok {
			if s.loss, ok = given.(string); !ok || s.loss == "" {
				return nil, fmt.Errorf("aggregate: %s: %w: %s is %.40v, want the name of a metric", name, ErrArgument, lossArgument, given)
			}
		}
	}
	for _, k := range slices.Sorted(maps.Keys(args)) {
		if !slices.Contains(takes, k) {
			return nil, fmt.Errorf("aggregate: %s: %w: %.40q; it takes %s", name, ErrArgument, k, orNone(takes))
		}
	}
	return s, nil
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

// Name returns the name that policies list.
func (s *Strategy) Name() string { return s.name }

// Class returns the strategy's class.
func (s *Strategy) Class() Class { return s.form.class }

// Profile names the arithmetic and the order of summation, for the step statement: with
// the same inputs and arguments, an equal profile promises equal bytes.
func (s *Strategy) Profile() string { return s.form.profile }

// NeedsModel reports whether [Survey.Array] and [Plan.Array] read the model that the
// contributions answer.
func (s *Strategy) NeedsModel() bool { return s.form.model }

// State returns the names of the records of arrays that the strategy keeps from round
// to round beside the model: each has an array for every one of the model's, of type
// [Tensor.StateType]. It follows from what members may know: it may be handed to them.
func (s *Strategy) State() []string {
	switch s.form.server {
	case momentum:
		if s.args["server_momentum"] > 0 {
			return []string{"momentum"}
		}
	case adagrad:
		return []string{"v"}
	case adam, yogi:
		return []string{"m", "v"}
	}
	return nil
}

// Noisy reports whether a [Step] needs a secret to make noise of.
func (s *Strategy) Noisy() bool { return s.name == DPFedAvg && s.args["noise_multiplier"] > 0 }

// Contribution is what a strategy must know of one contribution beside its
// tensors.
type Contribution struct {
	// Examples is the weight: Flower's "num-examples". Zero is legal; its caller does not
	// count it as a contributor.
	Examples uint64
	// Loss is the training loss, for strategies that weigh by it.
	Loss float64
}

// Weigh returns what a contribution's MetricRecord declares: its examples under key,
// and its loss where the strategy needs it. Only a whole number that is not negative
// is a weight: a fraction of an example would be a contributor that contributes
// nothing. The error is a [*Refused].
func (s *Strategy) Weigh(m object.MetricRecord, key string) (Contribution, error) {
	c, err := Weigh(m, key)
	if err != nil || s.loss == "" {
		return c, err
	}
	x, list := numbers(m.Get(s.loss))
	if len(x) != 1 || list || !(x[0] >= 0) || math.IsInf(x[0], 0) {
		return Contribution{}, &Refused{Index: -1, Reason: fmt.Sprintf("metric %.80q is no loss: %s needs a number that is not negative", s.loss, s.name)}
	}
	c.Loss = x[0]
	return c, nil
}
