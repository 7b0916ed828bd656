# Concordat. `make demo` and `make test` need Go alone.
export CGO_ENABLED ?= 0
GO ?= go
FLAGS := -trimpath -buildvcs=false
# A release: nothing in it depends on where, when or from which checkout it was
# built. Symbols stay out; the names of packages do not, so what is linked shows.
RELEASE := $(FLAGS) -ldflags='-s -w -buildid='
TOOL := $(GO) tool -modfile=internal/tools/go.mod
# Parsers, verifiers, collection and the simulator are nearly all arithmetic, which takes
# minutes under the race detector; they run without it, everything else with it.
PURE := /(attestation|verifier|policy)(/|$$)
# These start whole federations, many at once, and take several times as long under the
# race detector: "make test RACED=all" runs them so, "make test" without.
WHOLE := /(ci|cmd/concordat)$$
PLAIN := $(PURE)$(if $(filter all,$(RACED)),,|$(WHOLE))
# Of what the others link, SQLite (C, transpiled) and the arithmetic of finite fields are
# not instrumented: they are half of the time, and hold no code of ours. No package that
# instantiates generic code may stand here, or the linker may take its uninstrumented copy.
RACE := -race -gcflags='modernc.org/sqlite/lib=-race=false -d=checkptr=0' -gcflags='modernc.org/libc/...=-d=checkptr=0' \
	-gcflags='crypto/internal/fips140/edwards25519/field=-race=false' -gcflags='crypto/internal/fips140/nistec/fiat=-race=false'

# The versions of Flower that "make interop" runs: the oldest and the newest that speak
# gRPC to a node, and the newest that was tried of those that speak HTTP.
INTEROP ?= 1.26.1 1.29.0 1.42.0
# Those that "make interop-all" runs: the first and the last of each dialect, and what lies
# between them where something changed. It takes too long for every change.
INTEROP_ALL ?= 1.26.1 1.28.0 1.29.0 1.35.0 1.37.0 1.42.0

.PHONY: all help build demo simulator test interop interop-all bench lint generate check-generated wasm release release-check clean

all: build

help:
	@echo 'make build            the programs, into bin/'
	@echo 'make demo             a whole simulated federation; DEMO="--platform tdx" passes flags'
	@echo 'make test             go vet and every test, under the race detector where there is a C compiler; RACED=all: whole federations too'
	@echo 'make interop          whole federations with what Flower publishes; INTEROP="1.28.0" chooses versions'
	@echo 'make interop-all      the same with every version that docs/flower.md says is tested: long'
	@echo 'make bench            measurements, into out/bench.json'
	@echo 'make lint             gofmt, go vet, staticcheck'
	@echo 'make generate         code of api/, the policy reference'
	@echo 'make check-generated  fails where generated files are not current'
	@echo 'make wasm             the verifier for WebAssembly, with its size'
	@echo 'make release          the programs as they are released, into bin/release/'
	@echo 'make release-check    what the measured binary links; builds it twice and compares'
	@echo 'make clean            removes bin/ and out/'

# concordat-enclave is what a confidential VM measures; concordat-enclave-apps, where apps
# aggregate by themselves.
build:
	$(GO) build $(FLAGS) -o bin/ ./cmd/concordat ./cmd/concordat-enclave ./cmd/concordat-enclave-apps

demo: build simulator
	bin/concordat demo $(DEMO)

# concordat-enclave-sim is the same enclave on a simulated machine, never released.
simulator:
	$(GO) build $(FLAGS) -o bin/ ./cmd/concordat-enclave-sim ./examples/breast-cancer

# Unit, golden, fuzz-seed and end-to-end tests. Says where the race detector ran. Federations
# wait more than they compute: several are side by side.
test:
	@$(GO) vet ./...
	@$(GO) test -tags sevioctl -run 'Older|NoDevice' ./attestation/collect
	@$(GO) build -trimpath -tags sevioctl -o /dev/null ./cmd/concordat-enclave
	@if command -v $${CC:-cc} >/dev/null 2>&1; then \
		echo "test: with the race detector ($$(command -v $${CC:-cc})), but for packages that are pure functions$(if $(filter all,$(RACED)),, and whole federations (RACED=all))"; \
		CGO_ENABLED=1 CGO_CFLAGS="-O2 -g -Wno-deprecated-declarations" $(GO) test $(RACE) -timeout 10m $$($(GO) list ./... | grep -vE '$(PLAIN)') && \
		$(GO) test -timeout 10m -parallel 6 $$($(GO) list ./... | grep -E '$(PLAIN)'); \
	else \
		echo "test: without the race detector (no C compiler found)"; \
		$(GO) test -timeout 10m ./...; \
	fi

# What the example in JAX and the app with scikit-learn need; they run with the last of
# those versions alone.
JAX := examples/flower-jax/requirements.txt
SKLEARN := ci/interop/testdata/sklearn/requirements.txt

# Needs Python 3.10 to 3.13 with venv (JAX: from 3.11 on), and PyPI the first time. An
# environment without its mark is made anew. INTEROP_BIG=1GiB adds a model of that size.
interop:
	@command -v python3 >/dev/null || { echo 'interop: NOT TESTED with Flower: there is no python3'; exit 75; }
	@for v in $(INTEROP); do \
		dir=$(CURDIR)/out/interop/flwr-$$v; \
		test -e $$dir/installed || { rm -rf $$dir && python3 -m venv $$dir && \
			$$dir/bin/pip install --quiet --disable-pip-version-check flwr==$$v numpy && touch $$dir/installed; } || \
			{ rm -rf $$dir; echo "interop: NOT TESTED with Flower: flwr $$v could not be installed"; exit 75; }; \
	done
	@dir=$(CURDIR)/out/interop/flwr-$(lastword $(INTEROP)); \
	cmp -s $(JAX) $$dir/jax.txt || { $$dir/bin/pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r $(JAX) && \
		cp $(JAX) $$dir/jax.txt; } || echo 'interop: NOT TESTED with JAX: it could not be installed'
	@dir=$(CURDIR)/out/interop/flwr-$(lastword $(INTEROP)); \
	cmp -s $(SKLEARN) $$dir/sklearn.txt || { $$dir/bin/pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r $(SKLEARN) && \
		cp $(SKLEARN) $$dir/sklearn.txt; } || echo 'interop: NOT TESTED with scikit-learn: it could not be installed'
	@for v in $(INTEROP); do \
		CONCORDAT_FLWR=$(CURDIR)/out/interop/flwr-$$v/bin $(GO) test -count=1 -v -timeout 5m -run '^TestUnmodifiedFlower$$' ./internal/flower/appio || exit 1; \
	done
	CONCORDAT_INTEROP=$(CURDIR)/out/interop CONCORDAT_INTEROP_VERSIONS="$(INTEROP)" CONCORDAT_INTEROP_BIG="$(INTEROP_BIG)" $(GO) test -count=1 -v -timeout 60m ./ci/interop

interop-all:
	$(MAKE) interop INTEROP="$(INTEROP_ALL)"

bench: build simulator
	bin/concordat bench

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags sevioctl ./attestation/collect
	cd ci/interop/provider && $(GO) vet ./...
	$(TOOL) staticcheck ./...
	$(TOOL) staticcheck -tags sevioctl ./attestation/collect

generate:
	$(TOOL) buf generate api --template api/buf.gen.yaml
	cd internal/lanes && $(GO) run -modfile=../tools/go.mod asm.go -out lanes_amd64.s -stubs stub_amd64.go -pkg lanes
	cd enclave/aggregate && $(GO) run -modfile=../../internal/tools/go.mod asm.go -out kernel_amd64.s -stubs kernelstub_amd64.go -pkg aggregate
	$(GO) test ./policy/source -update

# Generated files are committed; this fails where they are not current.
check-generated: generate
	git diff --exit-code -- api policy/source docs/reference internal/lanes enclave/aggregate/kernel_amd64.s enclave/aggregate/kernelstub_amd64.go
	@test -z "$$(git ls-files --others --exclude-standard -- api docs/reference)" || \
		{ echo 'not committed:'; git ls-files --others --exclude-standard -- api docs/reference; exit 1; }

wasm:
	GOOS=js GOARCH=wasm $(GO) build $(FLAGS) -ldflags='-s -w' -o bin/concordat.wasm ./cmd/concordat-wasm
	@echo "wasm: concordat.wasm is $$(wc -c < bin/concordat.wasm) bytes, $$(gzip -9 -c bin/concordat.wasm | wc -c) with gzip"

release:
	CGO_ENABLED=0 $(GO) build $(RELEASE) -o bin/release/ ./cmd/concordat ./cmd/concordat-enclave ./cmd/concordat-enclave-apps

release-check: release
	.ci/enclave-deps bin/release/concordat-enclave
	.ci/reproducible bin/release/concordat-enclave

clean:
	rm -rf bin out
