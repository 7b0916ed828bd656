# Concordat. `make demo` and `make test` need Go alone.
export CGO_ENABLED ?= 0
GO ?= go
FLAGS := -trimpath -buildvcs=false
TOOL := $(GO) tool -modfile=internal/tools/go.mod

.PHONY: all build demo test race bench lint generate check-generated wasm release-check clean

all: build

# The programs. concordat-enclave is what a confidential VM measures;
# concordat-enclave-sim is the same with a simulated machine, never released.
build:
	$(GO) build $(FLAGS) -o bin/ ./cmd/concordat ./cmd/concordat-enclave

demo: build
	$(GO) build $(FLAGS) -o bin/ ./cmd/concordat-enclave-sim ./examples/breast-cancer
	bin/concordat demo $(DEMO)

# Unit, golden, fuzz seeds and end-to-end tests; with a C compiler also under the
# race detector. Says which it did.
test:
	@$(GO) vet ./...
	@if command -v $${CC:-cc} >/dev/null 2>&1; then \
		echo "test: with the race detector ($$(command -v $${CC:-cc}))"; \
		CGO_ENABLED=1 $(GO) test -race -timeout 10m ./...; \
	else \
		echo "test: without the race detector (no C compiler found)"; \
		$(GO) test -timeout 10m ./...; \
	fi

bench: build
	bin/concordat bench

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(TOOL) staticcheck ./...

generate:
	$(TOOL) buf generate api --template api/buf.gen.yaml
	$(GO) test ./policy/source -update

# Generated code is committed; this fails where it is not current.
check-generated: generate
	git diff --exit-code -- api policy/source docs/reference

wasm:
	GOOS=js GOARCH=wasm $(GO) build $(FLAGS) -ldflags='-s -w' -o bin/concordat.wasm ./cmd/concordat-wasm

# What a release build of the enclave links, and that no simulator is in it.
release-check: build
	.ci/enclave-deps

clean:
	rm -rf bin out
