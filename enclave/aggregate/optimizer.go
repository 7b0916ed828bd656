package aggregate

import (
	"math"
	"math/big"
)

// optimizer is what the server does with the mean and the model that it had.
type optimizer int

const (
	none optimizer = iota
	momentum
	adagrad
	adam
	yogi
)

// rate returns the optimizer's learning rate in a round. FedAdam's corrects for the zeros
// that its moments begin with (Kingma and Ba 2014, arXiv:1412.6980, before section 2.1),
// with the powers that Flower uses: round + 1.
func (s *Strategy) rate(round uint64) float64 {
	switch s.form.server {
	case momentum:
		return s.args["server_learning_rate"]
	case adam:
		return s.args["eta"] * math.Sqrt(1-power(s.args["beta_2"], round+1)) / (1 - power(s.args["beta_1"], round+1))
	case adagrad, yogi:
		return s.args["eta"]
	}
	return 0
}

// power returns x^n, correctly rounded: math.Pow may be off by the last bit, and then
// the bytes would not be Flower's.
func power(x float64, n uint64) float64 {
	const precision = 320
	result := big.NewFloat(1).SetPrec(precision)
	square := big.NewFloat(x).SetPrec(precision)
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			result.Mul(result, square)
		}
		square.Mul(square, square)
	}
	f, _ := result.Float64()
	return f
}

// optimize replaces the mean in c.out by the next model, and the state by the next one.
// Every operation is rounded to F, as numpy's of arrays with Python numbers are, except
// FedAdam's last: its learning rate is a numpy.float64, and so makes all of it float64.
func optimize[F float](p *Plan, c columns[F]) {
	a := p.s.args
	switch p.s.form.server {
	case momentum:
		mu, rate := F(a["server_momentum"]), F(p.step)
		if mu == 0 && rate == 1 {
			return // Flower then leaves the mean as it is
		}
		for i, w := range c.model {
			u := w - c.out[i]
			if mu > 0 {
				if !c.first {
					u = F(mu*c.state[0][i]) + u
				}
				c.state[0][i] = u
			}
			c.out[i] = w - F(rate*u)
		}
	case adagrad:
		eta, tau := F(p.step), F(a["tau"])
		v := c.state[0]
		for i, w := range c.model {
			d := c.out[i] - w
			v[i] += F(d * d)
			c.out[i] = w + F(eta*d)/(root(v[i])+tau)
		}
	case adam:
		b1, b2, tau := a["beta_1"], a["beta_2"], F(a["tau"])
		m, v := c.state[0], c.state[1]
		for i, w := range c.model {
			d := c.out[i] - w
			m[i] = F(F(b1)*m[i]) + F(F(1-b1)*d)
			v[i] = F(F(b2)*v[i]) + F(F(1-b2)*F(d*d))
			c.out[i] = F(float64(w) + float64(p.step*float64(m[i]))/float64(root(v[i])+tau))
		}
	case yogi:
		b1, b2, eta, tau := a["beta_1"], a["beta_2"], F(p.step), F(a["tau"])
		m, v := c.state[0], c.state[1]
		for i, w := range c.model {
			d := c.out[i] - w
			m[i] = F(F(b1)*m[i]) + F(F(1-b1)*d)
			square := F(d * d)
			v[i] -= F(F(F(1-b2)*square) * sign(v[i]-square))
			c.out[i] = w + F(eta*m[i])/(root(v[i])+tau)
		}
	}
}

// root is correctly rounded in either type: 53 bits are more than twice 24 and two.
func root[F float](x F) F { return F(math.Sqrt(float64(x))) }

func sign[F float](x F) F {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	}
	return x
}
