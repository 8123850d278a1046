.DEFAULT_GOAL := help
.PHONY: help demo dev page screenshots test test-node test-oldest model faults fuzz bench bench-quick check deny image plots release generate
CARGO_DENY_VERSION := 0.20.2
CARGO_FUZZ_VERSION := 0.13.2
CARGO_CYCLONEDX_VERSION := 0.5.9
FUZZ := -runs=10000000

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: page ## watch the operator work, on a control plane of its own (under a minute; the first time also builds it)
	@examples/demo.sh

dev: page ## the same, left running for kubectl until Ctrl-C
	@examples/demo.sh --keep

page: ## build the page that the PM API serves, into page/dist; needs Node 20.19, or 22.12 or newer: without, the operator has no page
	@if ! command -v node >/dev/null || ! command -v npm >/dev/null; then echo "page: node and npm are not on PATH: the operator is built without the page"; \
	elif ! node -e '[a, b] = process.versions.node.split("."); process.exit(a > 22 || (a == 22 && b >= 12) || (a == 20 && b >= 19) ? 0 : 1)'; \
	then echo "page: needs Node 20.19, or 22.12 or newer, and this is $$(node --version): the operator is built without the page"; \
	else $(MAKE) --silent page/dist/index.html; fi

page/dist/index.html: $(wildcard page/*.json page/*.ts page/index.html page/public/* page/src/*) page/node_modules/.package-lock.json
	cd page && npm --silent run build

page/node_modules/.package-lock.json: page/package-lock.json
	cd page && npm ci && touch node_modules/.package-lock.json

screenshots: page ## take the pictures of docs/page/ anew, in the test of the page; all of what it sees is in a folder that it names
	@tests/control-plane/build.sh >/dev/null
	@tests/page/build.sh >/dev/null
	@mkdir -p docs/page
	@folder=$$(mktemp -d) && TASKRUN_SCREENSHOTS=$$folder cargo test --locked --test cluster -- --nocapture --test-threads 1 page:: && \
	for picture in $$(grep -o 'docs/page/[a-z0-9-]*\.png' README.md); do cp "$$folder/$${picture##*/}" "$$picture"; done && \
	echo "all pictures: $$folder"

test: page ## all tests, those against a real control plane too
	@tests/control-plane/build.sh >/dev/null
	@tests/control-plane/build.sh helm >/dev/null
	@tests/control-plane/build.sh prometheus >/dev/null
	@tests/control-plane/build.sh kube-score >/dev/null
	@tests/schemathesis/build.sh >/dev/null
	@tests/page/build.sh >/dev/null
	cargo test --locked

test-node: page ## the image on a real node, with kubelet and containerd; needs root (NODE=PART runs the tests with this in their names)
	@tests/node/run.sh $(NODE)

test-oldest: ## the same against the oldest Kubernetes that is supported (1.33; the first time builds it, 8 minutes)
	@assets=$$(tests/control-plane/build.sh oldest) && KUBEBUILDER_ASSETS=$$assets $(MAKE) --no-print-directory test

model: ## every interleaving of the run protocol within larger bounds than `make test` has (minutes)
	cargo test --locked --test model -- --include-ignored --show-output

faults: page ## the whole matrix of scenarios and faults (20 to 30 minutes; FAULTS=PART runs the plans with this in their names)
	@tests/control-plane/build.sh >/dev/null
	FAULTS="$(FAULTS)" cargo test --locked --test faults -- --nocapture

fuzz: ## ten million odd reviews against the webhook, on all cores (about an hour; FUZZ=-max_total_time=SECONDS for so long)
	@cargo fuzz --version >/dev/null 2>&1 || { \
	echo "installing cargo-fuzz $(CARGO_FUZZ_VERSION): takes a minute, once"; \
	cargo install cargo-fuzz --locked --version $(CARGO_FUZZ_VERSION); }
	@tests/fuzz/run.sh $(FUZZ)

bench: page ## the operator beside its peers and its limits, on a machine that does nothing else (up to two hours; BENCH=ARGUMENTS, such as --help)
	@tests/control-plane/build.sh >/dev/null
	@cd benches/peers && GOEXPERIMENT=jsonv2 GOTOOLCHAIN=local go test ./...
	@tests/control-plane/build.sh peer >/dev/null
	cargo bench --locked --bench side-by-side -- $(BENCH)

bench-quick: ## a little of it, in minutes
	@$(MAKE) --no-print-directory bench BENCH="--quick $(BENCH)"

check: page ## formatting, lints, documentation; the page's types and pure parts; duplicates, licences, sources and advisories of dependencies; a little of fuzz
	cargo fmt --check
	cargo fmt --check --manifest-path tests/fuzz/Cargo.toml
	cargo clippy --all-targets --locked -- -D warnings
	cargo clippy --test node --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items --locked
	@if command -v npm >/dev/null; then cd page && npm --silent run check; fi
	@$(MAKE) --no-print-directory deny
	@$(MAKE) --no-print-directory fuzz FUZZ=-max_total_time=20

# The database of advisories comes from the network: without it there is nothing to compare with.
deny:
	@cargo deny --version >/dev/null 2>&1 || { \
	echo "installing cargo-deny $(CARGO_DENY_VERSION): takes some minutes, once"; \
	cargo install cargo-deny --locked --version $(CARGO_DENY_VERSION); }
	cargo deny --locked check bans licenses sources
	@if GIT_TERMINAL_PROMPT=0 timeout --foreground -k 5 60 cargo deny --log-level off fetch db; \
	then echo cargo deny check advisories; cargo deny --locked --offline check advisories; \
	else echo "the advisory database cannot be reached: advisories are not checked"; fi

plots: ## draw docs/monitoring/ anew, from what a Prometheus says of a minute of load
	@tests/control-plane/build.sh >/dev/null
	@tests/control-plane/build.sh prometheus >/dev/null
	TASKRUN_PLOTS=1 cargo test --locked --test monitoring -- every_query

image: ## the operator's image, by Docker, Podman or Buildah, and its SBOM, both in target/image too (IMAGE=NAME:TAG)
	@cargo cyclonedx --version >/dev/null 2>&1 || { \
	echo "installing cargo-cyclonedx $(CARGO_CYCLONEDX_VERSION): takes some minutes, once"; \
	cargo install cargo-cyclonedx --locked --version $(CARGO_CYCLONEDX_VERSION); }
	@deploy/image.sh --sbom $(IMAGE)

release: ## what a release has, in target/release-VERSION; says what is missing, and publishes nothing (docs/releasing.md)
	@deploy/release.sh

generate: ## write crds/ and docs/metrics.md anew from the code
	cargo run --locked --bin taskrun-operator -- crds --output crds
	cargo run --locked --bin taskrun-operator -- metrics --output docs/metrics.md
