# The commands of this repository; `make` alone lists them. GNU make.

SHELL := /bin/sh
.DEFAULT_GOAL := help

# Where rustup installs, for shells that were not told yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

CARGO ?= cargo
# The lock file is part of the repository: what is tested is what is locked.
LOCKED := --locked

# Simulation: how many seeds from which one on, or the single one to replay.
SEEDS ?= 2000
START ?= 0
SEED ?=

# Rival leaders, chaos: for how long.
MINUTES ?= 10

# Deposed leaders: how many tries.
TRIES ?= 10000

# Lives of managers: how many in memory and on a server.
LIVES ?= 10000
NATS_LIVES ?= 500

.PHONY: help
help: ## List the commands
	@awk 'BEGIN { FS = ":.*## "; print "make <command>\n" } \
	  /^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 } \
	  /^## / { printf "  %-15s   %s\n", "", substr($$0, 4) }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: need-build ## Build and run `divvy demo`: a fleet that starts, grows, shrinks and recovers
## ARGS="--nats nats://127.0.0.1:4222" on a real server; ARGS=--help lists more
	@$(CARGO) run $(LOCKED) --features cli --bin divvy -- demo $(ARGS)

.PHONY: test
test: need-test ## Run all tests, real nats-servers and thousands of simulated fleets included
	$(CARGO) test $(LOCKED) --all-features
	$(CARGO) test $(LOCKED) --no-default-features --lib
	$(MAKE) --no-print-directory test-go

# The Go binding, with the library as the other tests built it. The race detector watches both.
GO = GOTOOLCHAIN=local $(shell ./.ci/go || echo false)
GO_LIBRARY = install -m 644 include/divvy.h bindings/go/include/ && install -m 644
# The servers that the other tests use.
GO_SERVERS = test -n "$$NATS_SERVER" || sed -n 's/^pub const .*"\(.*\)";/\1/p' tests/support/nats_binary.rs | xargs -n 1 ./.ci/nats-server >/dev/null
# Mixed fleets have processes of `divvy worker`.
GO_DIVVY = DIVVY=$(abspath target/debug/divvy)

.PHONY: test-go
test-go: need-test ## Run the tests of the Go binding (part of `make test`)
	$(CARGO) rustc $(LOCKED) --all-features --lib --crate-type staticlib
	$(CARGO) build $(LOCKED) --all-features --bin divvy
	$(GO_LIBRARY) target/debug/libdivvy.a bindings/go/lib/
	$(GO_SERVERS)
	cd bindings/go && badly="$$(gofmt -l .)" && test -z "$$badly" || { echo "gofmt: $$badly" >&2; false; } && $(GO) vet ./...
	cd bindings/go && $(GO) test -short -race ./...
	cd bindings/go && CGO_ENABLED=0 $(GO) test ./
	cd bindings/go/foreign && $(GO) vet ./... && $(GO_DIVVY) $(GO) test ./...
	cd bindings/go/prom && $(GO) vet ./... && $(GO) test ./...

.PHONY: test-go-long
test-go-long: need-test go-lib ## Run the Go binding's long tests: 1 000 lives, strict pointer checks, vendoring, pkg-config
	cd bindings/go && $(GO) test ./...
	cd bindings/go && GOEXPERIMENT=cgocheck2 $(GO) test -short ./...
	$(CARGO) build $(LOCKED) --all-features --bin divvy
	$(GO_SERVERS)
	cd bindings/go/foreign && $(GO) mod vendor && cp ../include/divvy.h vendor/github.com/divvy-rs/divvy/bindings/go/include/ && \
	  $(GO_DIVVY) $(GO) test -mod vendor ./...; status=$$?; rm -r vendor; exit $$status
	$(MAKE) --no-print-directory install PREFIX=$(abspath target/go-prefix)
	cd bindings/go && PKG_CONFIG_PATH=$(abspath target/go-prefix/lib/pkgconfig) \
	  LD_LIBRARY_PATH=$(abspath target/go-prefix/lib) $(GO) test -short -tags divvy_dynamic ./
	cd bindings/go && $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.7.0 ./...
	cd bindings/go && $(GO) test -run xxx -bench . ./

.PHONY: go-lib
go-lib: need-build ## Build the C library, optimised, and lay it where the Go binding links it
	$(CAPI_BUILD) --crate-type staticlib
	$(STRIP) -S $(CAPI_TARGET)/capi/libdivvy.a
	$(GO_LIBRARY) $(CAPI_TARGET)/capi/libdivvy.a bindings/go/lib/

.PHONY: lint
lint: need-lint ## Check format, clippy and documentation, warnings denied
	$(CARGO) fmt --check
	$(CARGO) clippy $(LOCKED) --all-features --all-targets -- -D warnings
	$(CARGO) clippy $(LOCKED) --no-default-features --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(LOCKED) --all-features --no-deps

.PHONY: bench
bench: need-build ## Run the benchmarks
## ARGS=name runs those whose name contains it
	$(CARGO) bench $(LOCKED) --all-features --bench strategy --bench machine --bench metrics -- $(ARGS)

.PHONY: bench-nats
bench-nats: need-build ## Measure a leader on a real nats-server beside a raw client (5 minutes)
	$(CARGO) bench $(LOCKED) --bench nats

.PHONY: sim
sim: need-build ## Simulate fleets of calculators and of whole managers in virtual time under faults
## SEEDS=200000 START=0 how many, from which on; SEED=7 replays one; OF=managers only those
	$(if $(SEED),DIVVY_SEED=$(SEED),DIVVY_SEEDS=$(SEEDS) DIVVY_START=$(START)) \
	  $(CARGO) test $(LOCKED) --release --test sim -- --nocapture $(OF)

.PHONY: success
success: need-build ## Simulate 100 000 rebalances while 1 % of the store's calls go wrong
	$(CARGO) test $(LOCKED) --release --test sim -- --ignored --nocapture success

.PHONY: test-matrix
test-matrix: need-test ## Run the store's tests on every supported server, alone and in clusters (long)
## ARGS=v2_12 runs those whose name contains it
	$(CARGO) test $(LOCKED) --all-features --test long -- $(or $(ARGS),matrix:: cluster::)

.PHONY: faults
faults: need-test ## Measure what faults of servers and networks do, and what is seen of them (5 minutes)
## The tables are printed and written to docs/faults.md; ONLY=cut prints those of some faults
	$(if $(ONLY),DIVVY_FAULTS="$(ONLY)") \
	  $(CARGO) test $(LOCKED) --all-features --test long -- --nocapture fault_table::

.PHONY: rivals
rivals: need-test ## Let three leaders fight over a cluster whose nodes are killed
## MINUTES=10 for how long, half of it in each class
	DIVVY_RIVALS_MINUTES=$(MINUTES) \
	  $(CARGO) test $(LOCKED) --all-features --test long -- --nocapture rivals::

.PHONY: chaos
chaos: need-test ## Let 20 worker processes live through faults of workers and servers of a cluster
## MINUTES=10 for how long; SEED=7 for the faults of a former run
	$(if $(SEED),CHAOS_SEED=$(SEED)) CHAOS_MINUTES=$(MINUTES) \
	  $(CARGO) test $(LOCKED) --all-features --test long -- --nocapture chaos::

.PHONY: cycles
cycles: need-test ## Start and stop managers thousands of times, in memory and on a server: nothing may grow
## LIVES=10000 NATS_LIVES=500 how often
	DIVVY_LIVES=$(LIVES) DIVVY_NATS_LIVES=$(NATS_LIVES) \
	  $(CARGO) test $(LOCKED) --release --features cli --test alone -- --nocapture manager_lives::

.PHONY: figures-manager
figures-manager: need-build ## Measure what a manager takes and how soon things happen, on a server (6 minutes)
## ARGS=times or ARGS=costs: only those
	$(CARGO) bench $(LOCKED) --profile capi --target-dir $(CAPI_TARGET) --features cli --bench manager \
	  -- $(ARGS)

.PHONY: stale
stale: need-test ## Let deposed leaders try to publish, on every supported server
## TRIES=10000 how many, for each server and class
	DIVVY_STALE_TRIES=$(TRIES) DIVVY_NATS_VERSIONS=2.10.26,2.11.11,2.12.8,2.14.5,2.15.1 \
	  $(CARGO) test $(LOCKED) --all-features --test nats -- --nocapture stale_leader::

.PHONY: need-build need-lint need-test
need-build need-lint need-test: need-%:
	@./.ci/need $*

# The C library. SONAME and symbols are the binary interface, see "What may change" in divvy.h.
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
MAJOR := $(word 1,$(subst ., ,$(VERSION)))
MINOR := $(word 2,$(subst ., ,$(VERSION)))
SOVERSION := $(if $(filter 0,$(MAJOR)),0.$(MINOR),$(MAJOR))
# What the static library needs besides: `rustc --print native-static-libs`.
PRIVATE_LIBS ?= -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc
CAPI_TARGET ?= target/capi
# Where libdivvy.so and libdivvy.a are taken from by `install`; set it to libraries of your own.
LIBRARY_DIR ?= $(CAPI_TARGET)/capi
PREFIX ?= /usr/local
DESTDIR ?=
STRIP ?= strip
STAGE = $(DESTDIR)$(PREFIX)
# One kind of library at a time: beside another one link-time optimisation is without effect.
CAPI_BUILD = $(CARGO) rustc $(LOCKED) --profile capi --lib --features capi --target-dir $(CAPI_TARGET)
FILL = sed -e 's|@VERSION@|$(VERSION)|g' -e 's|@SOVERSION@|$(SOVERSION)|g' -e 's|@MAJOR@|$(MAJOR)|g' \
  -e 's|@MINOR@|$(MINOR)|g' -e 's|@PRIVATE_LIBS@|$(PRIVATE_LIBS)|g'

.PHONY: capi
capi: need-build ## Build the C library, shared and static, optimised
	$(CAPI_BUILD) --crate-type staticlib
	$(CAPI_BUILD) --crate-type cdylib -- -Clink-arg=-Wl,-soname,libdivvy.so.$(SOVERSION) \
	  -Clink-arg=-Wl,-z,nodelete
	$(STRIP) -S $(CAPI_TARGET)/capi/libdivvy.a
	$(STRIP) -x $(CAPI_TARGET)/capi/libdivvy.so

.PHONY: install
install: $(if $(filter $(CAPI_TARGET)/capi,$(LIBRARY_DIR)),capi) ## Install the C library, headers, pkg-config and CMake files
## PREFIX=/usr/local DESTDIR= where to
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

# The address and leak sanitizers and valgrind see the memory of the Rust code, too, as it comes from
# malloc. ThreadSanitizer is told to leave it alone: it does not know the locks of code that it did
# not see compiled, so what it judges is the C and C++ side only.
# valgrind tells what is definitely lost: what Rust's standard library keeps for each thread that
# calls it (48 bytes) is found by a pointer into its middle, which counts as "possibly". A forked
# child has lost its parent's threads with all that they held, so leaks are not looked for there.
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
