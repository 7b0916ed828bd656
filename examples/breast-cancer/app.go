package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/examples/breast-cancer/model"
	"github.com/concordat/concordat/internal/flower/clientapp"
)

// Names in the messages, as Flower's strategies use them by default.
const (
	arraysKey  = "arrays"
	configKey  = "config"
	metricsKey = "metrics"
	weightsKey = "weights" // float64, shape (30,)
	biasKey    = "bias"    // float64, a scalar
)

// Bounds of what a run's config may ask for, so that no run keeps a hospital's
// machine busy for ever.
const maxEpochs = 10_000

// app answers the messages of one run.
type app struct {
	file        string // "" is the node's config value "data"
	train, held []model.Row
}

// handle trains the model of a "train" message on this hospital's rows, or
// evaluates that of an "evaluate" message on the rows that it holds out.
func (a *app) handle(_ context.Context, in clientapp.Message) (object.RecordDict, error) {
	if a.train == nil {
		if err := a.load(in.NodeConfig); err != nil {
			return nil, err
		}
	}
	m, err := modelOf(in.Content)
	if err != nil {
		return nil, err
	}
	switch in.Type {
	case "train":
		c, err := configOf(in.Content)
		if err != nil {
			return nil, err
		}
		m.Train(a.train, c)
		loss, accuracy := m.Evaluate(a.train)
		arrays, err := arraysOf(m)
		if err != nil {
			return nil, err
		}
		return object.RecordDict{
			{Name: arraysKey, Record: arrays},
			{Name: metricsKey, Record: metrics(len(a.train), loss, accuracy)},
		}, nil
	case "evaluate":
		loss, accuracy := m.Evaluate(a.held)
		return object.RecordDict{{Name: metricsKey, Record: metrics(len(a.held), loss, accuracy)}}, nil
	}
	return nil, fmt.Errorf("message type %.40q, want train or evaluate", in.Type)
}

// echoed answers for one example with the model as it came, whatever it is.
func echoed(_ context.Context, in clientapp.Message) (object.RecordDict, error) {
	reply := object.RecordDict{{Name: metricsKey, Record: metrics(1, 0, 0)}}
	if in.Type == "train" {
		reply = append(object.RecordDict{{Name: arraysKey, Record: in.Content.Get(arraysKey)}}, reply...)
	}
	return reply, nil
}

func (a *app) load(config map[string]any) error {
	file := a.file
	if file == "" {
		file, _ = config["data"].(string)
	}
	if file == "" {
		return errors.New("no file of rows: neither --data nor the node's config names one")
	}
	rows, err := read(file)
	if err != nil {
		return err
	}
	a.train, a.held = model.Split(rows)
	return nil
}

func metrics(n int, loss, accuracy float64) object.MetricRecord {
	return object.MetricRecord{
		{Key: "num-examples", Value: object.Sint(n)},
		{Key: "loss", Value: object.Double(loss)},
		{Key: "accuracy", Value: object.Double(accuracy)},
	}
}

// configOf reads the run's config; what it does not say stays as it is.
func configOf(content object.RecordDict) (model.Config, error) {
	c := model.DefaultConfig
	record, _ := content.Get(configKey).(object.ConfigRecord)
	for _, it := range record {
		switch v := it.Value.(type) {
		case object.Sint:
			if it.Key == "epochs" {
				c.Epochs = int(min(max(v, 0), maxEpochs+1))
			}
		case object.Double:
			switch it.Key {
			case "rate":
				c.Rate = float64(v)
			case "decay":
				c.Decay = float64(v)
			}
		}
	}
	if c.Epochs < 1 || c.Epochs > maxEpochs || !(c.Rate > 0 && c.Rate <= 100) || !(c.Decay >= 0 && c.Decay <= 1) {
		return c, errors.New("config: epochs, rate or decay out of range")
	}
	return c, nil
}

// modelOf reads the model that came with a message.
func modelOf(content object.RecordDict) (*model.Model, error) {
	record, ok := content.Get(arraysKey).(object.ArrayRecord)
	if !ok {
		return nil, errors.New("message without arrays")
	}
	m := &model.Model{}
	for _, it := range record {
		var to []float64
		switch it.Name {
		case weightsKey:
			to = m.Weights[:]
		case biasKey:
			to = []float64{0}
		}
		if err := floats(it.Array, to); err != nil {
			return nil, err
		}
		if it.Name == biasKey {
			m.Bias = to[0]
		}
	}
	if len(record) != 2 || record[0].Name == record[1].Name {
		return nil, errors.New("arrays: want weights and bias")
	}
	return m, nil
}

// floats reads len(to) float64 values.
func floats(a *object.Array, to []float64) error {
	var b []byte
	for _, c := range a.Chunks {
		b = append(b, c.Data...)
	}
	h, err := object.ParseNPY(b)
	if err != nil {
		return err
	}
	n, err := h.Len()
	if err != nil {
		return err
	}
	if h.Descr != "<f8" || n != len(to) || len(b) != h.HeaderSize+8*n {
		return fmt.Errorf("arrays: %s of %d elements, want <f8 of %d", h.Descr, n, len(to))
	}
	for i := range to {
		to[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[h.HeaderSize+8*i:]))
	}
	return nil
}

func arraysOf(m *model.Model) (object.ArrayRecord, error) {
	weights, err := array(m.Weights[:], model.Features)
	if err != nil {
		return nil, err
	}
	bias, err := array([]float64{m.Bias})
	if err != nil {
		return nil, err
	}
	return object.ArrayRecord{{Name: weightsKey, Array: weights}, {Name: biasKey, Array: bias}}, nil
}

func array(values []float64, shape ...int) (*object.Array, error) {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	return object.NewArray(object.NPY{Descr: "<f8", Shape: shape}, b)
}
