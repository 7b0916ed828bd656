package snp

import (
	"maps"
	"slices"
)

// policyWords and platformWords are the words by which people name bits. Bits
// that give the host more are not among the first: for them a policy has fields
// of its own. Neither is the alias check among the second.
var policyWords = map[string]Policy{
	"aes-256-xts":        PolicyAES256XTS,
	"ciphertext-hiding":  PolicyCiphertextHide,
	"page-swap-disabled": PolicyNoPageSwap,
	"rapl-disabled":      PolicyRAPLDisabled,
	"single-socket":      PolicySingleSocket,
}

var platformWords = map[string]PlatformInfo{
	"ciphertext-hiding": PlatformCiphertextHide,
	"ecc":               PlatformECC,
	"rapl-disabled":     PlatformRAPLDisabled,
	"smt":               PlatformSMT,
	"tio":               PlatformTIO,
	"tsme":              PlatformTSME,
}

// PolicyWords returns, sorted, the names of the guest policy bits that restrict
// the host.
func PolicyWords() []string { return slices.Sorted(maps.Keys(policyWords)) }

// PlatformWords returns, sorted, the names of the bits of PLATFORM_INFO.
func PlatformWords() []string { return slices.Sorted(maps.Keys(platformWords)) }

// Lacks returns those of the words whose bits p has not set. An unknown word is
// lacking: nothing has it.
func (p Policy) Lacks(words []string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(w string) bool { return p&policyWords[w] != 0 })
}

// Lacks returns those of the words whose bits p has not set. An unknown word is
// lacking: nothing has it.
func (p PlatformInfo) Lacks(words []string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(w string) bool { return p&platformWords[w] != 0 })
}

// AnyOf returns those of the words whose bits p has set, and every unknown one:
// who forbids it is to be told that it means nothing here.
func (p PlatformInfo) AnyOf(words []string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(w string) bool {
		bit, known := platformWords[w]
		return known && p&bit == 0
	})
}
