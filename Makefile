# Two commands: `make run` and `make test`. The rest is for those who build Haystore.

HTTP ?= 127.0.0.1:8080
DIR ?= ./data
ONCE ?=
CARGO = cargo --locked
# Most tests of the whole wait for processes: more of them than cores keep the machine at work.
TEST_THREADS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -gt 4 ] && echo $$n || echo 4)

CLUSTER_DIR ?= ./cluster

.PHONY: help run cluster test soak build setup setup-tests lint fmt deny

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

run: build ## Build, start a server on ./data, store and read back a real folder, keep serving
	@HTTP='$(HTTP)' DIR='$(DIR)' ONCE='$(ONCE)' sh scripts/run.sh

cluster: build ## Build, start a cluster of processes on loopback, store and read back a real folder, keep serving
	@DIR='$(CLUSTER_DIR)' ONCE='$(ONCE)' sh scripts/cluster.sh

test: setup-tests build lint ## Everything that CI checks
	RUST_TEST_THREADS=$(TEST_THREADS) $(CARGO) test --release --workspace --exclude hay-simulation
# Apart: it needs a tokio whose clock can be turned, and with it here everything would be built with that once more.
	$(CARGO) test --release -p hay-simulation

soak: setup-tests build ## The same tests with their whole number of rounds, and the timing statistics
	HAY_SOAK=1 $(CARGO) test --release -p hay-tests -- --nocapture
	HAY_SOAK=1 $(CARGO) test --release -p hay-simulation -- --nocapture

build: setup ## target/release/hay
	@[ -d target/release/deps ] || echo "First build: 5 to 10 minutes on 2 cores."
	$(CARGO) build --release -p hay-cli

setup: ## System packages and RocksDB's static library
	@sh scripts/setup.sh

setup-tests:
	@sh scripts/setup.sh tests

lint: setup ## rustfmt and clippy, where the toolchain has them
	@if cargo fmt --version >/dev/null 2>&1; then cargo fmt --all --check; else echo "rustfmt is not there: not checked"; fi
	@if cargo clippy --version >/dev/null 2>&1; then $(CARGO) clippy --release --workspace --all-targets -- -D warnings; else echo "clippy is not there: not checked"; fi

fmt: ## Format the code
	cargo fmt --all

deny: ## Licences and advisories, by hand: needs cargo-deny
	cargo deny check
