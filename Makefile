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

# Deposed leaders: how many tries.
TRIES ?= 10000

.PHONY: help
help: ## List the commands
	@awk 'BEGIN { FS = ":.*## "; print "make <command>\n" } \
	  /^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 } \
	  /^## / { printf "  %-13s   %s\n", "", substr($$0, 4) }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: need-build ## Build and run `divvy demo`: a fleet that starts, grows, shrinks and recovers
## ARGS="--nats nats://127.0.0.1:4222" on a real server; ARGS=--help lists more
	@$(CARGO) run $(LOCKED) --features cli --bin divvy -- demo $(ARGS)

.PHONY: test
test: need-test ## Run all tests, real nats-servers and 2 000 simulated fleets included
	$(CARGO) test $(LOCKED) --all-features
	$(CARGO) test $(LOCKED) --no-default-features --lib

.PHONY: lint
lint: need-lint ## Check format, clippy and documentation, warnings denied
	$(CARGO) fmt --check
	$(CARGO) clippy $(LOCKED) --all-features --all-targets -- -D warnings
	$(CARGO) clippy $(LOCKED) --no-default-features --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(LOCKED) --all-features --no-deps

.PHONY: bench
bench: need-build ## Run the benchmarks
## ARGS=name runs those whose name contains it
	$(CARGO) bench $(LOCKED) --all-features --bench '*' -- $(ARGS)

.PHONY: sim
sim: need-build ## Simulate fleets in virtual time under faults
## SEEDS=200000 START=0 how many, from which on; SEED=7 replays one
	$(if $(SEED),DIVVY_SEED=$(SEED),DIVVY_SEEDS=$(SEEDS) DIVVY_START=$(START)) \
	  $(CARGO) test $(LOCKED) --release --test sim -- --nocapture

.PHONY: test-matrix
test-matrix: need-test ## Run the store's tests on every supported server, alone and in clusters (long)
## ARGS=v2_12 runs those whose name contains it
	$(CARGO) test $(LOCKED) --all-features --test nats_matrix --test nats_cluster -- $(ARGS)

.PHONY: stale
stale: need-test ## Let deposed leaders try to publish, on every supported server
## TRIES=10000 how many, for each server and class
	DIVVY_STALE_TRIES=$(TRIES) DIVVY_NATS_VERSIONS=2.10.26,2.11.11,2.12.8,2.14.5,2.15.1 \
	  $(CARGO) test $(LOCKED) --all-features --test nats_stale_leader -- --nocapture

.PHONY: need-build need-lint need-test
need-build need-lint need-test: need-%:
	@./.ci/need $*
