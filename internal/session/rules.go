package session

import (
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

// StepRules is what a policy says about the steps of a run, in the plain values that
// a receipt.StepChain takes.
func StepRules(p *policy.Policy) receipt.Rules {
	return receipt.Rules{
		MinContributors: p.Release.MinContributors, Collusion: p.Release.Collusion, Dropouts: p.Release.Dropouts,
		Opens: p.Nodes.MessageTypes, StepsPerEpoch: p.Evidence.MaxRoundsPerEpoch,
	}
}
