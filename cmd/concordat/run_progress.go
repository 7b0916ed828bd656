package main

import (
	"encoding/hex"
	"fmt"
	"strings"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/verifier/receipt"
)

// roundLine is what one node tells of one round that was released.
type roundLine struct {
	Round         uint64             `json:"round"`
	Contributions uint64             `json:"contributions"` // in the training step
	Excluded      uint64             `json:"excluded"`
	Metrics       map[string]float64 `json:"metrics"`     // of the members together: of the evaluation where there is one
	Moved         uint64             `json:"bytes_moved"` // sealed bytes of this node
	Saved         uint64             `json:"bytes_saved"`
}

// String is a line of progress.
func (l roundLine) String() string {
	return fmt.Sprintf("round %3d  %s  %s  moved %s  saved %s", l.Round, contributions(l), metricText(l.Metrics), bytesText(l.Moved), bytesText(l.Saved))
}

func contributions(l roundLine) string {
	s := fmt.Sprintf("%d contributions", l.Contributions)
	if l.Excluded > 0 {
		s += fmt.Sprintf(" (%d excluded)", l.Excluded)
	}
	return s
}

// metricText shows the two metrics that most apps have.
func metricText(m map[string]float64) string {
	var s []string
	for _, k := range []string{"loss", "accuracy"} {
		if v, ok := m[k]; ok {
			s = append(s, fmt.Sprintf("%s %.4f", k, v))
		}
	}
	return strings.Join(s, "  ")
}

// bytesText shows a count of bytes in at most four digits.
func bytesText(n uint64) string {
	v := float64(n)
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if v < 1000 {
			if unit == "B" {
				return fmt.Sprintf("%d B", n)
			}
			return fmt.Sprintf("%.1f %s", v, unit)
		}
		v /= 1024
	}
	return fmt.Sprintf("%.1f TiB", v)
}

// progress follows the events of one run at one node.
type progress struct {
	Run     string // hex; empty until the run exists
	Request string
	State   string // "requested", "running", or the outcome: "completed", "failed", "stopped", "refused", "declined"
	Reason  string // in words, where it did not complete
	Round   uint64 // the last that was released
	Steps   uint64 // that were released
	Moved   uint64
	Saved   uint64

	line roundLine // of the round in progress
}

// ended reports whether nothing more comes.
func (p *progress) ended() bool { return p.State != "requested" && p.State != "running" }

// follow takes an event and returns the line of the round that it completes, if it
// does.
func (p *progress) follow(e *concordatv1.WatchRunsResponse) *roundLine {
	if len(e.GetRun()) > 0 {
		p.Run = hex.EncodeToString(e.GetRun())
	}
	if len(e.GetRequest()) > 0 {
		p.Request = hex.EncodeToString(e.GetRequest())
	}
	p.Moved, p.Saved = p.Moved+e.GetBytesMoved(), p.Saved+e.GetBytesSaved()
	p.line.Moved, p.line.Saved = p.line.Moved+e.GetBytesMoved(), p.line.Saved+e.GetBytesSaved()
	switch e.GetEvent() {
	case "requested":
		p.State = "requested"
	case "offered":
		p.State, p.Reason = "waits for approval", e.GetReason()
	case "started":
		p.State, p.Reason = "running", ""
	case "refused", "declined":
		if p.State == "requested" || p.State == "" {
			p.State = e.GetEvent()
		}
		p.Reason = e.GetReason()
	case "failed", "ack-refused", "deferred":
		p.Reason = e.GetReason()
	case "ended":
		p.State = e.GetOutcome()
		if p.State == receipt.Completed {
			p.Reason = ""
		} else if p.Reason == "" {
			p.Reason = e.GetReason()
		}
	case "step":
		p.State, p.Steps = "running", max(p.Steps, e.GetSeq())
		return p.step(e)
	}
	return nil
}

// step takes a released step. A round ends with the step that opens a training, or nothing.
func (p *progress) step(e *concordatv1.WatchRunsResponse) *roundLine {
	if e.GetInputs() == 0 {
		return nil // the first: it hands out the initial model
	}
	l := &p.line
	l.Excluded = max(l.Excluded, e.GetExcluded())
	if l.Contributions == 0 {
		l.Contributions = e.GetInputs()
	}
	l.Metrics = e.GetMetrics()
	if e.GetOpens() == receipt.OpensEvaluate || e.GetOpens() == receipt.OpensQuery {
		return nil
	}
	l.Round = e.GetRound()
	if e.GetOpens() == receipt.OpensTrain {
		l.Round-- // it opens the next
	}
	done := *l
	p.Round, p.line = done.Round, roundLine{}
	return &done
}
