package model

import "math"

// Model is logistic regression: the probability of "benign" is
// 1/(1+exp(-(Weights·x + Bias))). The zero value is where training starts.
type Model struct {
	Weights [Features]float64
	Bias    float64
}

// Config says how long and how fast [Model.Train] goes.
type Config struct {
	Epochs int     // sweeps over all rows
	Rate   float64 // learning rate
	Decay  float64 // L2 penalty on the weights, not on the bias
}

// DefaultConfig is what the example uses where a run's config says nothing.
var DefaultConfig = Config{Epochs: 20, Rate: 1, Decay: 1e-3}

// Train improves m by full-batch gradient descent on the mean cross-entropy of
// rows. It is deterministic. No rows change nothing.
func (m *Model) Train(rows []Row, c Config) {
	if len(rows) == 0 {
		return
	}
	n := float64(len(rows))
	for range c.Epochs {
		var g Model
		for i := range rows {
			d := m.probability(&rows[i]) - target(&rows[i])
			for j, x := range rows[i].X {
				g.Weights[j] += d * x
			}
			g.Bias += d
		}
		for j := range m.Weights {
			m.Weights[j] -= c.Rate * (g.Weights[j]/n + c.Decay*m.Weights[j])
		}
		m.Bias -= c.Rate * g.Bias / n
	}
}

// Evaluate returns the mean cross-entropy of m on rows and the share of rows
// that it classifies correctly. Both are 0 without rows.
func (m *Model) Evaluate(rows []Row) (loss, accuracy float64) {
	if len(rows) == 0 {
		return 0, 0
	}
	for i := range rows {
		p := m.probability(&rows[i])
		if (p > 0.5) == rows[i].Benign {
			accuracy++
		}
		if !rows[i].Benign {
			p = 1 - p
		}
		loss -= math.Log(max(p, 1e-15)) // so that one confident error stays finite
	}
	return loss / float64(len(rows)), accuracy / float64(len(rows))
}

func (m *Model) probability(r *Row) float64 {
	z := m.Bias
	for j, x := range r.X {
		z += m.Weights[j] * x
	}
	return 1 / (1 + math.Exp(-z))
}

func target(r *Row) float64 {
	if r.Benign {
		return 1
	}
	return 0
}
