# The project's commands. Cargo does the work; here is only what takes several steps.
# State of daemons started from here lies in .local/.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.PHONY: help setup setup-build setup-conformance build run test lint test-fast test-slow conformance \
	hdfs-up hdfs-down hdfs-status etcd-up etcd-down etcd-status kafka-up kafka-down kafka-status clean-local

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing to build, run and test (quiet when nothing is)
	@scripts/setup

setup-build:
	@scripts/setup build

setup-conformance: ## Install the Kafka clients that only `make conformance` needs, too
	@scripts/setup conformance

build: setup-build ## Build bmq, optimised, into target/release
	cargo build --release --bin bmq

run: setup-build ## Start a working queue on this machine; ARGS="--data-dir DIR" and the like
	@exec cargo run --release --bin bmq -- standalone $(ARGS)

# One after the other even under `make -j`, the quick ones first.
test: setup ## Run every check and every test
	$(MAKE) lint
	$(MAKE) test-fast
	$(MAKE) test-slow

lint: ## Form, arrows between crates, formatting, clippy
	cargo xtask tidy
	cargo xtask check-deps
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

test-fast: ## Run the tests of the crates
	cargo test --workspace --exclude bmq-integration-tests

# The tests start the binary as a user would, so it is built first.
test-slow: ## Run the tests of whole clusters, on real HDFS and etcd too
	cargo build --bin bmq
	cargo test -p bmq-integration-tests

# The failures are in the document; the exit code is that of the run.
conformance: setup-conformance ## Run all Kafka clients against Kafka and bmq, write docs/CONFORMANCE.md
	cargo build --bin bmq
	integration-tests/kafka-clients/run --target kafka --target standalone --target local-cluster \
		--report docs/CONFORMANCE.md

hdfs-up: setup ## Start real HDFS, print its address (data stays until clean-local)
	@scripts/hdfs up --prefer-port 8020

hdfs-down: ## Stop it
	@scripts/hdfs down

hdfs-status: ## Show its daemons
	@scripts/hdfs status

etcd-up: setup ## Start real etcd, print its address (data stays until clean-local)
	@scripts/etcd up --prefer-port 2379

etcd-down: ## Stop it
	@scripts/etcd down

etcd-status: ## Show its members
	@scripts/etcd status

kafka-up: setup ## Start real Kafka, print its address (data stays until clean-local)
	@scripts/kafka up

kafka-down: ## Stop it
	@scripts/kafka down

kafka-status: ## Show its nodes
	@scripts/kafka status

clean-local: ## Stop the daemons and delete .local/
	@scripts/hdfs down --delete
	@scripts/etcd down --delete
	@scripts/kafka down --delete
	@rm -rf .local
