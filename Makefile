# The commands of this repository. `make` lists them. Requires GNU make.

SHELL := /bin/sh
.DEFAULT_GOAL := help

# rustup's directory, for shells that were started before rustup was installed.
export PATH := $(PATH):$(HOME)/.cargo/bin

CARGO ?= cargo
# Test exactly the dependency versions in Cargo.lock.
LOCKED := --locked

# Simulation: number of seeds and first seed, or a single seed to replay.
SEEDS ?= 2000
START ?= 0
SEED ?=

# Duration of `rivals` and `chaos`.
MINUTES ?= 10

# Attempts of `stale`.
TRIES ?= 10000

# Manager lifecycles of `cycles`, in memory and on a server.
LIFECYCLES ?= 10000
NATS_LIFECYCLES ?= 500

.PHONY: help
help: ## List the commands
	@awk 'BEGIN { FS = ":.*## "; print "make <command>\n" } \
	  /^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 } \
	  /^## / { printf "  %-15s   %s\n", "", substr($$0, 4) }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: need-build ## Run `divvy demo`: a fleet that starts, scales, crashes and recovers
## ARGS="--nats nats://127.0.0.1:4222" uses a real server; ARGS=--help lists all options
	@$(CARGO) run $(LOCKED) --features cli --bin divvy -- demo $(ARGS)

.PHONY: test
test: need-test ## Run all tests, including real servers and simulated fleets
	$(CARGO) test $(LOCKED) --all-features
	$(CARGO) test $(LOCKED) --no-default-features --lib
	$(MAKE) --no-print-directory test-go

# The Go binding is tested with the debug library of the other tests.
GO = GOTOOLCHAIN=local $(shell ./.ci/go || echo false)
# Go keeps test results whose inputs did not change, and the library is not one of them. The stamp, a
# header in the package's folder, is.
GO_LIBRARY = ./.ci/go-library
# The same servers as in the other tests.
GO_SERVERS = test -n "$$NATS_SERVER" || sed -n 's/^pub const .*"\(.*\)";/\1/p' tests/support/nats_binary.rs | xargs -n 1 ./.ci/nats-server >/dev/null
# Tests of mixed fleets run `divvy worker`.
GO_DIVVY = DIVVY=$(abspath target/debug/divvy)

.PHONY: test-go
test-go: need-test ## Run the tests of the Go binding (part of `make test`)
	$(CARGO) rustc $(LOCKED) --all-features --lib --crate-type staticlib
	$(CARGO) build $(LOCKED) --all-features --bin divvy
	$(GO_LIBRARY) target/debug/libdivvy.a
	$(GO_SERVERS)
	cd bindings/go && badly="$$(gofmt -l .)" && test -z "$$badly" || { echo "gofmt: $$badly" >&2; false; } && $(GO) vet ./...
	cd bindings/go && $(GO) test -count=1 -short -race ./...
	cd bindings/go && CGO_ENABLED=0 $(GO) test -count=1 ./
	cd bindings/go/foreign && $(GO) vet ./... && $(GO_DIVVY) $(GO) test -count=1 ./...
	cd bindings/go/prom && $(GO) vet ./... && $(GO) test -count=1 ./...

.PHONY: test-go-long
test-go-long: need-test go-lib ## Run the long tests of the Go binding: leaks, pointer checks, vendoring, pkg-config
	cd bindings/go && $(GO) test -count=1 ./...
	cd bindings/go && GOEXPERIMENT=cgocheck2 $(GO) test -count=1 -short ./...
	$(CARGO) build $(LOCKED) --all-features --bin divvy
	$(GO_SERVERS)
	cd bindings/go/foreign && $(GO) mod vendor && cp ../include/divvy.h vendor/github.com/divvy-rs/divvy/bindings/go/include/ && \
	  $(GO_DIVVY) $(GO) test -count=1 -mod vendor ./...; status=$$?; rm -r vendor; exit $$status
	$(MAKE) --no-print-directory install PREFIX=$(abspath target/go-prefix)
	cd bindings/go && PKG_CONFIG_PATH=$(abspath target/go-prefix/lib/pkgconfig) \
	  LD_LIBRARY_PATH=$(abspath target/go-prefix/lib) $(GO) test -count=1 -short -tags divvy_dynamic ./
	cd bindings/go && $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.7.0 ./...
	cd bindings/go && $(GO) test -count=1 -run xxx -bench . ./

.PHONY: go-lib
go-lib: need-build ## Build the optimised C library for static linking by the Go binding
	$(CAPI_BUILD) --crate-type staticlib
	$(STRIP) -S $(CAPI_TARGET)/capi/libdivvy.a
	$(GO_LIBRARY) $(CAPI_TARGET)/capi/libdivvy.a

.PHONY: lint
lint: need-lint ## Check formatting, clippy and rustdoc; warnings are errors
	$(CARGO) fmt --check
	$(CARGO) clippy $(LOCKED) --all-features --all-targets -- -D warnings
	$(CARGO) clippy $(LOCKED) --no-default-features --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(LOCKED) --all-features --no-deps
	@if ! $(CARGO) deny --version >/dev/null 2>&1; then \
	    echo "cargo-deny is not installed: dependencies not checked"; \
	elif ! $(CARGO) deny --all-features fetch db 2>/dev/null; then \
	    echo "the advisory database cannot be reached: advisories not checked"; \
	    $(CARGO) deny --all-features check bans licenses sources; \
	else \
	    $(CARGO) deny --all-features check; \
	fi

.PHONY: bench
bench: need-build ## Run the benchmarks
## ARGS=name selects benchmarks by name
	$(CARGO) bench $(LOCKED) --all-features --bench strategy --bench machine --bench metrics -- $(ARGS)

.PHONY: bench-nats
bench-nats: need-build ## Compare a leader on a real server with a raw client (5 minutes)
	$(CARGO) bench $(LOCKED) --bench nats

.PHONY: sim
sim: need-build ## Simulate fleets under random faults in virtual time
## SEEDS=200000 START=0 selects the seeds; SEED=7 replays one; OF=managers selects one kind
	$(if $(SEED),DIVVY_SEED=$(SEED),DIVVY_SEEDS=$(SEEDS) DIVVY_START=$(START)) \
	  $(CARGO) test $(LOCKED) --release --test sim -- --nocapture $(OF)

.PHONY: sim-store
sim-store: need-build ## Simulate the NATS store over cut, late and reordered protocol bytes in virtual time
## SEEDS=10000 START=0 selects the seeds
	DIVVY_SEEDS=$(SEEDS) DIVVY_START=$(START) \
	  $(CARGO) test $(LOCKED) --release --all-features --lib -- --nocapture store::nats::tests::

.PHONY: explore
explore: need-build ## Explore every order of the steps of the threads that deliver events
	RUSTFLAGS="--cfg divvy_loom" $(CARGO) test $(LOCKED) --no-default-features --target-dir target/explore \
	  --lib -- --nocapture --test-threads 1 explored::

.PHONY: success
success: need-build ## Simulate 100 000 rebalances with 1 % of the store calls failing
	$(CARGO) test $(LOCKED) --release --test sim -- --ignored --nocapture success

.PHONY: test-matrix
test-matrix: need-test ## Run the store tests on every supported server (long)
## ARGS=v2_12 selects tests by name
	$(CARGO) test $(LOCKED) --all-features --test long -- $(or $(ARGS),matrix:: cluster::)

.PHONY: faults
faults: need-test ## Inject server and network faults and measure their effects (5 minutes)
## Writes docs/faults.md; ONLY=cut selects faults by name and only prints
	$(if $(ONLY),DIVVY_FAULTS="$(ONLY)") \
	  $(CARGO) test $(LOCKED) --all-features --test long -- --nocapture fault_table::

.PHONY: rivals
rivals: need-test ## Run three rival leaders on a cluster whose nodes are killed
## MINUTES=10 sets the duration, half of it in each publish mode
	DIVVY_RIVALS_MINUTES=$(MINUTES) \
	  $(CARGO) test $(LOCKED) --all-features --test long -- --nocapture rivals::

.PHONY: chaos
chaos: need-test ## Run 20 worker processes while workers and servers fail
## MINUTES=10 sets the duration; SEED=7 repeats the faults of a run
	$(if $(SEED),CHAOS_SEED=$(SEED)) CHAOS_MINUTES=$(MINUTES) \
	  $(CARGO) test $(LOCKED) --all-features --test long -- --nocapture chaos::

.PHONY: cycles
cycles: need-test ## Check thousands of manager lifecycles for leaks
## LIFECYCLES=10000 NATS_LIFECYCLES=500 set the numbers in memory and on a server
	DIVVY_LIFECYCLES=$(LIFECYCLES) DIVVY_NATS_LIFECYCLES=$(NATS_LIFECYCLES) \
	  $(CARGO) test $(LOCKED) --release --features cli --test alone -- --nocapture manager_lifecycles::

.PHONY: figures-manager
figures-manager: need-build ## Measure cost and reaction times of a manager on a real server (6 minutes)
## ARGS=times or ARGS=costs selects one part
	$(CARGO) bench $(LOCKED) --profile capi --target-dir $(CAPI_TARGET) --features cli --bench manager \
	  -- $(ARGS)

.PHONY: freezes
freezes: need-test ## Freeze the connection of a store 1 000 times in a row (15 minutes)
## FREEZES=1000 sets how often
	FREEZES=$(or $(FREEZES),1000) \
	  $(CARGO) test $(LOCKED) --all-features --test alone -- --nocapture frozen_connections

.PHONY: fuzz
fuzz: need-build ## Fuzz the decoders of the NATS client; needs a nightly toolchain and cargo-fuzz
## SECONDS=300 sets the time for each target
	for target in protocol commands text; do \
	  $(CARGO) +nightly fuzz run $$target -- -max_total_time=$(or $(SECONDS),300) || exit 1; done

.PHONY: stale
stale: need-test ## Check on every supported server that deposed leaders cannot publish
## TRIES=10000 sets the attempts for each server and publish mode
	DIVVY_STALE_TRIES=$(TRIES) DIVVY_NATS_VERSIONS=2.10.26,2.11.11,2.12.8,2.14.5,2.15.1 \
	  $(CARGO) test $(LOCKED) --all-features --test nats -- --nocapture stale_leader::

REPOSITORY := $(shell sed -n 's/^repository = "\(.*\)"/\1/p' Cargo.toml)

.PHONY: docs
docs: ## Build the book into target/book
	@command -v mdbook >/dev/null || $(CARGO) install --quiet --locked mdbook
	mdbook build
	@# Sources are not part of the book: link to them in the repository.
	sed -i 's|href="\.\./\([a-z]\)|href="$(REPOSITORY)/blob/main/\1|g' target/book/*.html

.PHONY: pictures
pictures: need-build ## Regenerate every picture of the documents from real runs (2 minutes)
	./docs/pictures.py drawings
	$(CARGO) build $(LOCKED) --features cli --bin divvy
	./docs/pictures.py demo target/debug/divvy
	$(CARGO) run $(LOCKED) --release --example plan_picture
	./docs/pictures.py stamp docs/plans.svg examples/plan_picture.rs tests/support/fleets.rs
	$(CARGO) build $(LOCKED) --release --features metrics --example metrics
	./docs/dashboard.py
	./docs/pictures.py stamp docs/dashboard.svg dashboards/divvy.json docs/dashboard.py examples/metrics.rs

.PHONY: need-build need-lint need-test
need-build need-lint need-test: need-%:
	@./.ci/need $*

# The C library. divvy.h defines what may change in the binary interface.
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
MAJOR := $(word 1,$(subst ., ,$(VERSION)))
MINOR := $(word 2,$(subst ., ,$(VERSION)))
SOVERSION := $(if $(filter 0,$(MAJOR)),0.$(MINOR),$(MAJOR))
# System libraries that the static library needs: `rustc --print native-static-libs`.
PRIVATE_LIBS ?= -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc
CAPI_TARGET ?= target/capi
# Source directory of `install` for libdivvy.so and libdivvy.a.
LIBRARY_DIR ?= $(CAPI_TARGET)/capi
PREFIX ?= /usr/local
DESTDIR ?=
STRIP ?= strip
STAGE = $(DESTDIR)$(PREFIX)
# Build one crate type at a time: with several, rustc disables link-time optimisation.
CAPI_BUILD = $(CARGO) rustc $(LOCKED) --profile capi --lib --features capi --target-dir $(CAPI_TARGET)
FILL = sed -e 's|@VERSION@|$(VERSION)|g' -e 's|@SOVERSION@|$(SOVERSION)|g' -e 's|@MAJOR@|$(MAJOR)|g' \
  -e 's|@MINOR@|$(MINOR)|g' -e 's|@PRIVATE_LIBS@|$(PRIVATE_LIBS)|g'

.PHONY: capi
capi: need-build ## Build the optimised C library, shared and static
	$(CAPI_BUILD) --crate-type staticlib
	$(CAPI_BUILD) --crate-type cdylib -- -Clink-arg=-Wl,-soname,libdivvy.so.$(SOVERSION) \
	  -Clink-arg=-Wl,-z,nodelete
	$(STRIP) -S $(CAPI_TARGET)/capi/libdivvy.a
	$(STRIP) -x $(CAPI_TARGET)/capi/libdivvy.so

.PHONY: install
install: $(if $(filter $(CAPI_TARGET)/capi,$(LIBRARY_DIR)),capi) ## Install the C library, headers, pkg-config and CMake files
## PREFIX=/usr/local DESTDIR= set the destination
	install -d $(STAGE)/lib/pkgconfig $(STAGE)/lib/cmake/divvy $(STAGE)/include $(STAGE)/share/doc/divvy
	install -m 644 include/divvy.h include/divvy.hpp $(STAGE)/include
	install -m 644 $(LIBRARY_DIR)/libdivvy.a $(STAGE)/lib
	install -m 755 $(LIBRARY_DIR)/libdivvy.so $(STAGE)/lib/libdivvy.so.$(VERSION)
	ln -sf libdivvy.so.$(VERSION) $(STAGE)/lib/libdivvy.so.$(SOVERSION)
	ln -sf libdivvy.so.$(SOVERSION) $(STAGE)/lib/libdivvy.so
	$(FILL) packaging/divvy.pc.in > $(STAGE)/lib/pkgconfig/divvy.pc
	$(FILL) packaging/divvyConfig.cmake.in > $(STAGE)/lib/cmake/divvy/divvyConfig.cmake
	$(FILL) packaging/divvyConfigVersion.cmake.in > $(STAGE)/lib/cmake/divvy/divvyConfigVersion.cmake
	install -m 644 LICENSE-MIT LICENSE-APACHE packaging/THIRD-PARTY-NOTICES $(STAGE)/share/doc/divvy

# ThreadSanitizer ignores the Rust code, which is not instrumented. valgrind reports definite leaks only:
# std keeps 48 bytes per thread behind an interior pointer. A forked child leaks its parent's threads, so
# its leaks are not checked.
VALGRIND := valgrind --quiet --error-exitcode=9 --fair-sched=yes
VALGRIND_LEAKS := --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite
.PHONY: test-sanitize
test-sanitize: need-test ## Run the C and C++ tests under sanitizers and valgrind
	DIVVY_TEST_SANITIZE="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer" \
	  DIVVY_TEST_CYCLES=100 $(CARGO) test $(LOCKED) --features capi --test bindings -- capi::
	DIVVY_TEST_WRAPPER="$(VALGRIND) $(VALGRIND_LEAKS)" DIVVY_TEST_CYCLES=20 \
	  $(CARGO) test $(LOCKED) --features capi --test bindings -- --test-threads 1 capi:: --skip forked_child
	DIVVY_TEST_WRAPPER="$(VALGRIND)" \
	  $(CARGO) test $(LOCKED) --features capi --test bindings -- --test-threads 1 forked_child
	TSAN_OPTIONS=ignore_noninstrumented_modules=1 DIVVY_TEST_SHARED_ONLY=1 \
	  DIVVY_TEST_SANITIZE="-fsanitize=thread -fno-omit-frame-pointer" $(CARGO) test $(LOCKED) \
	  --features capi --test bindings -- calculator_lifecycle callback_poll cpp_programs

.PHONY: figures
figures: capi ## Measure what the C ABI costs
	$(CC) -std=gnu99 -O2 -Iinclude -Itests/capi tests/capi/figures.c $(CAPI_TARGET)/capi/libdivvy.a \
	  $(PRIVATE_LIBS) -o $(CAPI_TARGET)/figures
	$(CAPI_TARGET)/figures
	ls -l $(CAPI_TARGET)/capi/libdivvy.so $(CAPI_TARGET)/capi/libdivvy.a
