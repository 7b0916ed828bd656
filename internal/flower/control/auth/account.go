package auth

import (
	"errors"
	"fmt"
	"slices"
)

// Account is who somebody was verified to be. Only this package makes one, from a
// provider's signed word, and [Recall] makes it again; accounts are compared with ==. The zero Account is nobody's.
type Account struct{ issuer, subject string }

// Local is the one account of an address without a login: whoever uses this machine.
func Local() Account { return Account{subject: "local"} }

// Parts are what [Recall] makes the account of again.
func (a Account) Parts() (issuer, subject string) { return a.issuer, a.subject }

// Recall returns the account of which this package has given the parts: they were kept
// where nobody else can have written.
func Recall(issuer, subject string) Account { return Account{issuer, subject} }

// String is for logs: subjects are the provider's, and mean nothing without it.
func (a Account) String() string {
	switch a {
	case Account{}:
		return "nobody"
	case Local():
		return "whoever uses this machine"
	}
	return a.subject + " at " + a.issuer
}

// Allow says which accounts of a provider may call. One fitting line is enough; without a
// line nobody may.
type Allow struct {
	Subjects []string `yaml:"subjects,omitempty"`
	// Emails count if the provider says that it has verified the account's. They are
	// compared as they are written.
	Emails []string `yaml:"emails,omitempty"`
	// Claims are by name the values that let an account in: of a claim that is a string,
	// or a list of them, as those that name groups are.
	Claims map[string][]string `yaml:"claims,omitempty"`
}

// check refuses what lets nobody in, or others than it seems to.
func (a Allow) check() error {
	values := append(slices.Clone(a.Subjects), a.Emails...)
	for name, v := range a.Claims {
		switch name {
		case "email":
			return errors.New("allow.claims.email: use allow.emails, which asks whether the address was verified")
		case "", "iss", "aud", "azp", "exp", "nbf", "iat":
			return fmt.Errorf("allow.claims.%s tells no accounts apart", name)
		}
		if len(v) == 0 {
			return fmt.Errorf("allow.claims.%s has no value", name)
		}
		values = append(values, v...)
	}
	if len(values) == 0 {
		return errors.New("allow names no subject, email or claim: nobody could log in")
	}
	if slices.Contains(values, "") {
		return errors.New("allow has an empty value")
	}
	return nil
}

// admits reports whether the account of a verified token may call.
func (a Allow) admits(c *claims) bool {
	if slices.Contains(a.Subjects, c.subject) || c.email != "" && slices.Contains(a.Emails, c.email) {
		return true
	}
	for name, wanted := range a.Claims {
		for _, v := range c.strings(name) {
			if slices.Contains(wanted, v) {
				return true
			}
		}
	}
	return false
}
