SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Set-up installs what is missing, once and visibly; rustup would otherwise try on every call, and fail without its server.
export RUSTUP_AUTO_INSTALL := 0

TARGET_DIR := $(shell scripts/target-dir)
# The tests take the filter from here.
export EVENKEEL_WASM ?= $(TARGET_DIR)/wasm32-wasip1/release/evenkeel.wasm
export EVENKEEL_MODULE ?= $(TARGET_DIR)/module/libevenkeel.so

# Written by the set-up: ENVOY, PROMETHEUS, PROMTOOL.
with_tools := . .tools/env;

.PHONY: help
help: ## show this help
	@echo "evenkeel: adaptive load balancing for Envoy as one WebAssembly filter"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 14
	@echo
	@echo "ENVOY=, PROMETHEUS= and PROMTOOL=/path/to/binary take the place of what the set-up would fetch."

.PHONY: setup
setup: ## get this machine ready: wasm targets, Envoy, Prometheus; again only checks
	@scripts/setup

.PHONY: setup-rust
setup-rust:
	@scripts/setup rust-targets

.PHONY: build
build: setup-rust ## build the filter: target/wasm32-wasip1/release/evenkeel.wasm
	@# As a cdylib alone: for one that is an rlib, too, cargo optimises nothing across crates. Names of functions are a tenth
	@# of the file, and cargo's own strip leaves them; a panic says where it was by itself.
	cargo rustc --release --target wasm32-wasip1 --lib --crate-type cdylib -- -C strip=symbols
	@ls -l "$(TARGET_DIR)/wasm32-wasip1/release/evenkeel.wasm" | awk '{ printf "build: evenkeel.wasm, %d kB\n", $$5 / 1000 }'

.PHONY: module
module: setup-rust ## build the native module for Envoy 1.38 and newer: target/module/libevenkeel.so
	cargo rustc --profile module --package evenkeel-module --lib --crate-type cdylib
	@# Envoy looks for lib<name>.so. A file that a running Envoy has mapped is replaced, not written over.
	@cp "$(TARGET_DIR)/module/libevenkeel_module.so" "$(TARGET_DIR)/module/libevenkeel.so.new"
	@mv "$(TARGET_DIR)/module/libevenkeel.so.new" "$(TARGET_DIR)/module/libevenkeel.so"
	@ls -l "$(TARGET_DIR)/module/libevenkeel.so" | awk '{ printf "module: libevenkeel.so, %d kB\n", $$5 / 1000 }'

.PHONY: demo
demo: setup build ## real Envoy, Prometheus and backends on this machine: evenkeel beside Envoy's own policies (KEEP=1: stay up)
	@# A package of its own: a third of the crates that the tests need. Unoptimised takes a fraction of the time to build, and
	@# carries the load as well.
	@$(with_tools) cargo run --package demo --bin demo

.PHONY: demo-autoscale
demo-autoscale: setup build ## replicas that really start and stop as evenkeel says, under a load that comes and goes
	@$(with_tools) cargo run --package demo --bin demo-autoscale

.PHONY: test
test: ## every test: native, the real .wasm, Node, real Envoy and Prometheus
	@# Both run to their ends: a failure in one does not hide the other's.
	@$(MAKE) --no-print-directory --keep-going test-node test-native

.PHONY: test-native
test-native: setup build module
	@scripts/setup compose-schema crd-schemas alertmanager chromium umoci sbom-schema
	$(with_tools) cargo test --workspace --no-fail-fast

.PHONY: test-node
test-node: setup-rust
	@scripts/setup wasm-bindgen
	@# By name from the PATH: cargo splits a runner's path at its spaces.
	PATH="$$PWD/.tools/wasm-bindgen/bin:$$PATH" CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=wasm-bindgen-test-runner \
	    cargo test --target wasm32-unknown-unknown --lib -p evenkeel -p evenkeel-engine -p evenkeel-config

.PHONY: trials
trials: setup build ## the long trials that make test leaves out: minutes each, with figures
	$(with_tools) cargo test --workspace -- --ignored --nocapture
	scripts/sanitizers

.PHONY: chaos
chaos: setup build ## faults on a real Envoy, with evenkeel and without it: docs/chaos.md (20 minutes; CHAOS="--only Prometheus", CHAOS=--list)
	@$(with_tools) cargo run --package chaos --bin chaos -- $(or $(CHAOS),--into docs/chaos.md)

.PHONY: soak
soak: setup build ## endpoints, configurations and faults in churn through one Envoy; does anything drift? (SOAK_MINUTES=60)
	@$(with_tools) cargo run --package chaos --bin soak -- --minutes "$(or $(SOAK_MINUTES),60)" --picture docs/images/chaos/soak.svg --into docs/chaos.md

.PHONY: fuzz
fuzz: setup-rust ## coverage-guided fuzzing of everything hostile (TARGETS="admin shared", FUZZ_SECONDS=60 each)
	@FUZZ_SECONDS="$(or $(FUZZ_SECONDS),60)" scripts/fuzz $(TARGETS)

.PHONY: mutants
mutants: setup-rust ## change the engine in small ways and see whether a test notices (MUTATE="crates/engine/src/health/*.rs", SHARD=0/10)
	@MUTATE="$(MUTATE)" SHARD="$(SHARD)" scripts/mutants

.PHONY: test-envoys
test-envoys: setup build ## the essentials on every supported Envoy, 1.36 to 1.40; fetches them, about a gigabyte
	@$(with_tools) scripts/test-envoys

.PHONY: platforms
platforms: setup build module ## the files for Istio, Envoy Gateway, autoscaling, Docker, the presets and plain Envoy on the real programs, built once in half an hour, 7 GB meanwhile (PLATFORMS="istio envoy-gateway kubernetes docker services matrix", ONLY=parts, KEEP=folder, JOBS=1: one suite after the other)
	@scripts/setup alertmanager
	@$(with_tools) scripts/platforms/run

.PHONY: reload-trial
reload-trial: setup build ## 500 new configurations under load, by LDS and by ECDS: nothing failed, memory flat
	@$(with_tools) cargo test --test e2e -- --ignored --nocapture five_hundred

.PHONY: bench
bench: setup build ## measure what a decision costs
	$(with_tools) cargo bench

.PHONY: bench-envoy
bench-envoy: setup build module ## measure what the filter and the module cost a real Envoy (ARGS="--quick --only none,filter"; --help)
	@$(with_tools) cargo run --package bench-envoy -- --into docs/benchmarks/envoy.md $(ARGS)

SIMULATE := cargo run --release -p simulator --
EVIDENCE := docs/benchmarks/simulated.md
OURS := adaptive,ours-peak_ewma,ours-weighted_score,ours-least_request,ours-weighted_round_robin,ours-round_robin,ours-random,ours-consistent_hash,ours-ip_hash
PICTURES := docs/images/adaptive

.PHONY: evidence
evidence: setup-rust ## simulate everything that docs/benchmarks/simulated.md and docs/policies.md show: their tables and pictures (some 20 minutes)
	@mkdir -p $(PICTURES)
	$(SIMULATE) --seeds 5 --into $(EVIDENCE)#catalogue --summary $(PICTURES)/summary.svg
	$(SIMULATE) --seeds 5 --utilisation 0.7 --into $(EVIDENCE)#catalogue-70
	$(SIMULATE) --seeds 5 --scenario equal,equal-90,one-10x,three-4x-600,black-hole,crash,fast-errors,heavy,bursts,newcomers \
	    --policy $(OURS) --into docs/policies.md#ours
	$(SIMULATE) --seeds 5 --ablation --by-term --into $(EVIDENCE)#ablation
	$(SIMULATE) --seeds 5 --scenario load-ramp --policy adaptive,orca,orca-eager,least_request,peak_ewma,c3,prequal,oracle \
	    --plots $(PICTURES) --into $(EVIDENCE)#ramp
	$(SIMULATE) --quick --scenario roaming,healed-slow --policy adaptive,least_request+od,peak_ewma,prequal --plots $(PICTURES)
	$(SIMULATE) --quick --scenario prometheus-15s-8 --policy adaptive,ours-least_signal,prequal --plots $(PICTURES)

.PHONY: evidence-big
evidence-big: setup-rust ## … and its largest fleet, which takes as long again and gigabytes
	$(SIMULATE) --quick --scenario big-fleet --policy adaptive,random,least_request,peak_ewma,prequal,oracle \
	    --into $(EVIDENCE)#big-fleet

.PHONY: advisories
advisories: ## known vulnerabilities in the dependencies; fetches RustSec's list (cargo install cargo-deny)
	cargo deny check advisories

.PHONY: lint
lint: setup-rust ## everything that can be judged without running it
	@scripts/setup rust-lints
	@scripts/lint-shell
	@scripts/lint-words
	@scripts/lint-actions
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --target wasm32-wasip1 --lib -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check bans licenses sources; \
	else echo "lint: licences and sources of dependencies: SKIPPED, cargo-deny is not installed (cargo install cargo-deny)"; fi

.PHONY: schema
schema: ## write what follows from the configuration's fields: envoy/evenkeel.schema.json, the tables of docs/configuration.md
	cargo run --quiet -p evenkeel-cli -- schema >"$(TARGET_DIR)/evenkeel.schema.json"
	cargo run --quiet -p evenkeel-cli --example reference <docs/configuration.md >"$(TARGET_DIR)/configuration.md"
	mv "$(TARGET_DIR)/evenkeel.schema.json" envoy/evenkeel.schema.json
	mv "$(TARGET_DIR)/configuration.md" docs/configuration.md

.PHONY: fmt
fmt: ## format the code
	@scripts/setup rust-targets rust-lints
	cargo fmt --all

.PHONY: image
image: build ## pack the filter as an OCI image, with checksums and a bill of materials (IMAGE=registry/name:tag)
	@scripts/image "$(TARGET_DIR)/wasm32-wasip1/release/evenkeel.wasm" "$(TARGET_DIR)/image"

.PHONY: release
release: setup-rust ## everything that a release is made of in one folder, the same bytes on any machine (RELEASE_DIR=, IMAGE=)
	@scripts/release "$(or $(RELEASE_DIR),$(TARGET_DIR)/release-files)"
