# make up      build release, run all four roles in one process on ./isle-data (Ctrl-C drains)
# make test    install what the tests need, build, run every test
# make check   formatting and lints
# make build   every program in release, every store and form of coordination
# make fuzz    fuzz every decoder for FUZZ_SECONDS each (default 60)
# make bench   the benchmark's standard workloads
# make soak    simulated schedules for SOAK_MINUTES (default 10), from the seed SOAK_SEED on (default: the date)
# make chaos   a cluster of real programs under faults of every kind for CHAOS_MINUTES from SEED, judged at the end
# make takeover  how long a database is without a writer after a crash and after a planned stop

CARGO ?= cargo
DIR ?= ./isle-data
FUZZ_SECONDS ?= 60
SOAK_MINUTES ?= 10
SOAK_SEED ?= $(shell date +%Y%m%d)0000
CHAOS_MINUTES ?= 30
SEED ?= 1
FUZZ_TARGETS = $(basename $(notdir $(wildcard common/storage/fuzz/targets/*.rs)))

# What ships, and with what: never the whole workspace with every feature, one of which breaks rules on purpose.
PROGRAMS = isle writer-node reader-node tailer-node compactor-node
FEATURES = aws,azure,etcd,gcp

# A C compiler for zstd and jemalloc; protoc for the etcd client.
BUILD_PACKAGES = gcc g++ make protobuf-compiler libprotobuf-dev

.PHONY: up build test test-deps check fmt lint fuzz bench soak chaos takeover clean

up: build-deps
	$(CARGO) build --release --locked -p isle --all-features
	exec target/release/isle up --dir $(DIR)

build: build-deps
	$(CARGO) build --release --locked --bins $(PROGRAMS:%=-p %) --features $(FEATURES)

.PHONY: build-deps
build-deps:
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing: install it from https://rustup.rs" >&2; exit 1; }
	@deploy/debian-packages.sh $(BUILD_PACKAGES)

test-deps: build-deps
	@e2e/install.sh

test: test-deps
	$(CARGO) build --locked --workspace --bins --all-features
	$(CARGO) test --locked --workspace --all-features --no-fail-fast

check: fmt lint

fmt:
	$(CARGO) fmt --all --check

lint: build-deps
	$(CARGO) clippy --locked --workspace --all-targets --all-features -- -D warnings

# cargo-fuzz asks for a nightly compiler; the stable one does with this variable.
fuzz: build-deps
	@command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	for t in $(FUZZ_TARGETS); do RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --fuzz-dir common/storage/fuzz $$t \
	    -- -max_total_time=$(FUZZ_SECONDS) || exit 1; done

bench: build
	target/release/isle bench put --store null:
	target/release/isle bench get
	target/release/isle bench mixed
	target/release/isle bench tail

soak: build-deps
	$(CARGO) run --release --locked -p simulation -- --minutes $(SOAK_MINUTES) --from-seed $(SOAK_SEED) --go-on

chaos: test-deps
	$(CARGO) build --locked --workspace --bins --all-features
	target/debug/e2e-chaos --minutes $(CHAOS_MINUTES) --seed $(SEED)

takeover: test-deps build
	$(CARGO) build --release --locked --bins -p e2e --all-features
	target/release/e2e-takeover

clean:
	$(CARGO) clean
