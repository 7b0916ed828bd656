package chunkstore_test

import (
	"testing"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/storetest"
)

func TestMem(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T, c storetest.Config) chunkstore.Store {
		return &chunkstore.Mem{FederationBytes: c.FederationBytes, Now: c.Now}
	})
}
