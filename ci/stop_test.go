package ci_test

import (
	"strings"
	"testing"

	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/verifier/receipt"
)
