# What people type. `make help` lists it.

.DEFAULT_GOAL := help
SHELL := /bin/bash
CARGO ?= cargo
PORT ?= 8080
IMAGE ?= tidegate
FUZZ_SECONDS ?= 20
SEEDS ?= 1000
ROUNDS ?= 1

.PHONY: help demo cluster test check fuzz chaos image clean packages

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The profile that builds soonest. A message costs it about five times the instructions of the release build.
DEMO_BUILD = $(CARGO) build --profile demo --no-default-features --locked --bin tidegate
DEMO_PROGRAM = $${CARGO_TARGET_DIR:-target}/demo/tidegate

demo: ## Run gateway, sample backend and chat page on 127.0.0.1 (PORT=8080)
	@$(DEMO_BUILD)
	@exec "$(DEMO_PROGRAM)" demo --port $(PORT)

cluster: ## Run Redis, three nodes and the chat page on 127.0.0.1 (PORT=8080)
	@$(DEMO_BUILD)
	@TIDEGATE="$${TIDEGATE:-$(DEMO_PROGRAM)}" exec deploy/local-cluster $(PORT)

check: ## Format, lints, and what the Dockerfile copies: quick, without tests
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@.ci/check-dockerfile

test: packages check ## Everything: installs what tests need, checks, runs every test
	$(CARGO) test --workspace --locked --no-fail-fast

packages:
	@.ci/install-packages

fuzz: ## Run each fuzz target for FUZZ_SECONDS=20
	@.ci/fuzz $(FUZZ_SECONDS)

chaos: packages ## Break nodes, Redis and links: SEEDS=1000 schedules of a simulated cluster, then real processes ROUNDS=1 times
	SEEDS=$(SEEDS) $(CARGO) test --locked --test simulation -- --nocapture
	@for round in $$(seq $(ROUNDS)); do $(CARGO) test --locked --test programs chaos:: || exit 1; done

image: ## Build the container image (IMAGE=tidegate)
	docker build --tag $(IMAGE) .

include deny.mk

clean: ## Remove everything that was built
	$(CARGO) clean
	rm -rf fuzz/target fuzz/corpus fuzz/artifacts

include loadtest/loadtest.mk
