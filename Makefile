# Everything is done in .venv, which is made on first use: no other preparation than Python 3.11 or newer and, for
# nothing but their own targets, the tools that those name.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.installed-demo
ARGS ?=

.DEFAULT_GOAL := help

.PHONY: help
help: ## Lists the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

$(VENV)/bin/python:
	@echo "Creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit("Pointsman needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)

$(DEMO_STAMP): pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing Pointsman's server into $(VENV) (about 350 MB, a minute or two)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[server]'
	@touch $@

$(STAMP): pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing Pointsman with its development tools into $(VENV) (about 800 MB, a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(DEMO_STAMP)

.PHONY: setup
setup: $(STAMP) ## Creates .venv with everything that development needs.

.PHONY: demo
demo: $(DEMO_STAMP) ## Routes real prompts among simulated providers and leaves the server running. ARGS=--once ends by itself.
	@$(BIN)/pointsman demo $(ARGS)

.PHONY: test
test: check-tools ## Checks and tests everything that CI does.
	@$(MAKE) --no-print-directory check
	@$(BIN)/python -m pytest $(ARGS)

JAEGER := .tools/jaeger

$(JAEGER): tools/jaeger/go.mod tools/jaeger/go.sum
	@command -v go >/dev/null || { echo "Jaeger is built with Go 1.26 or newer, which is not here; docs/tracing.md names its image" >&2; exit 1; }
	@echo "Building Jaeger into .tools, once (about 12 minutes of one core, and 1 GB to download)"
	@mkdir -p .tools && cd tools/jaeger && GOFLAGS="-mod=readonly -buildvcs=false" go build -trimpath -ldflags "-s -w" -o ../../$(JAEGER) github.com/jaegertracing/jaeger/cmd/jaeger

.PHONY: jaeger
jaeger: $(JAEGER) ## Runs a Jaeger on loopback: OTLP on port 4317, pages and API on 16686.
	@echo "Jaeger takes OTLP on 127.0.0.1:4317 and shows traces on http://127.0.0.1:16686"
	@exec $(JAEGER) --config deploy/jaeger/config.yaml

.PHONY: test-jaeger
test-jaeger: $(STAMP) ## Sends requests through client, router and providers, and looks at their traces in a real Jaeger.
	@if command -v go >/dev/null || [ -n "$(CI)" ] || [ -x $(JAEGER) ]; then \
		$(MAKE) --no-print-directory $(JAEGER) && POINTSMAN_JAEGER=$(CURDIR)/$(JAEGER) $(BIN)/python -m pytest tests/jaeger $(ARGS); \
	else echo "no Go, so no Jaeger: its tests are left out"; fi

.PHONY: check-tools
check-tools: $(STAMP)

.PHONY: check
check: $(STAMP) lint types ## Formatting, lint, types, imports, protocol.
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/buf lint proto
	@$(BIN)/buf breaking proto --against proto/released.binpb
	@$(BIN)/hadolint Dockerfile

.PHONY: lint
lint: $(STAMP)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

.PHONY: types
types: $(STAMP)
	@$(BIN)/mypy
	@$(BIN)/mypy --explicit-package-bases tests benchmarks conformance tools

.PHONY: format
format: $(STAMP) ## Formats the code and applies the safe fixes of the linter.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

FUZZ_SECONDS ?= 30
FUZZ_TARGETS := sse chunks openai anthropic gemini headers prices

.PHONY: fuzz
fuzz: $(STAMP) ## Feeds each parser of foreign bytes with what no provider would send, FUZZ_SECONDS=30 each. Linux alone.
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	@for target in $(FUZZ_TARGETS); do echo "fuzzing $$target" && $(BIN)/python tests/fuzz/run.py $$target $(FUZZ_SECONDS) build/fuzz || exit 1; done

.PHONY: stubs
stubs: $(STAMP) ## Generates client/python/pointsman/v1 from proto/.
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/generate_stubs.py

.PHONY: clients
clients: $(STAMP) ## Generates the stubs of the other languages' clients from proto/; ARGS=go for one alone.
	@$(BIN)/python -m tools.generate_clients $(ARGS)

.PHONY: conformance
conformance: $(STAMP) ## Runs the conformance suite with every client, and writes the matrix in docs/clients.md. ARGS="--language go".
	@$(BIN)/python -m conformance --write $(ARGS)

.PHONY: release-protocol
release-protocol: $(STAMP) ## At a release: makes the protocol as it is the one that later ones must not break.
	@$(BIN)/buf build proto --exclude-source-info --output proto/released.binpb

.PHONY: descriptors
descriptors: $(STAMP) ## Generates deploy/envoy/pointsman.binpb from proto/, by which Envoy turns JSON into messages.
	@$(BIN)/python tools/generate_descriptors.py

.PHONY: web
web: $(STAMP) ## Builds the browser's page in client/web/dist. Takes Node.
	@cd client/web && npm ci --ignore-scripts --silent
	@$(BIN)/python tools/generate_web_client.py
	@cd client/web && npm run --silent check && npm run --silent build

.PHONY: artifact
artifact: $(STAMP) ## Trains the shipped quality model anew. DATA=folder of prompts.parquet and outcomes.parquet.
	@$(BIN)/python -m pointsman_server.training.build --data $(DATA) --out server/pointsman_server/quality/builtin

.PHONY: frontier
frontier: $(STAMP) ## Draws the pictures of docs/frontier.md anew. DATA=folder of prompts, outcomes and model_prices.csv.
	@$(BIN)/pointsman frontier --data $(DATA) --source llmrouter --prices $(DATA)/model_prices.csv --x price --out docs/frontier-llmrouter.png
	@$(BIN)/pointsman frontier --data $(DATA) --source zeroeval --prices $(DATA)/model_prices.csv --x cost --out docs/frontier-zeroeval.png

.PHONY: bench-overhead
bench-overhead: $(STAMP) ## Measures what Route and Complete cost, beside a bare gRPC echo and a bare httpx call.
	@$(BIN)/python benchmarks/overhead.py $(ARGS)

.PHONY: bench-telemetry
bench-telemetry: $(STAMP) ## Measures what traces and metrics cost a request, with collectors that are well, slow, frozen and dead; eight minutes of idle cores.
	@$(BIN)/python -m benchmarks.telemetry $(ARGS)

.PHONY: bench-quality
bench-quality: $(STAMP) ## Measures how well prompts are routed, out of fold. DATA=folder of prompts.parquet and outcomes.parquet.
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.quality --data $(DATA) $(ARGS)

.PHONY: bench-quality-latency
bench-quality-latency: $(STAMP) ## Measures what a quality prediction costs.
	@$(BIN)/python benchmarks/quality_latency.py $(ARGS)

.PHONY: bench-risk
bench-risk: $(STAMP) ## Measures whether stated risks hold on test prompts. DATA=folder of prompts.parquet and model_prices.csv.
	@$(BIN)/python benchmarks/risk.py --data $(DATA)

.PHONY: bench-joining
bench-joining: $(STAMP) ## Measures how well models join without retraining. DATA=folder of prompts.parquet and outcomes.parquet.
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.joining --data $(DATA) $(ARGS)

.PHONY: bench-replay
bench-replay: $(STAMP) ## Measures what the decision log costs, and whether replays repeat it and estimate truly; minutes.
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.replay $(ARGS)

.PHONY: bench-drift
bench-drift: $(STAMP) ## Measures routing while providers drift, in virtual time, beside other rules and an oracle. DATA=folder of the runtime traces.
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.drift $(if $(DATA),--data $(DATA)) $(ARGS)

.PHONY: bench-drift-live
bench-drift-live: $(STAMP) .venv-litellm ## Routes in real time through a brown-out and a hang, beside LiteLLM's proxy on the same providers; four minutes.
	@$(BIN)/python -m benchmarks.drift_live --litellm .venv-litellm/bin/litellm $(ARGS)

.PHONY: bench-faults
bench-faults: $(STAMP) ## Measures what becomes of streams when callers leave and providers fail, and writes docs/reliability.md; 50 minutes.
	@GRPC_VERBOSITY=ERROR OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.faults $(ARGS)

.venv-litellm:
	@echo "making .venv-litellm, the proxy to compare with (pip install litellm[proxy])"
	@$(PYTHON) -m venv $@ && $@/bin/python -m pip install --quiet "litellm[proxy]==1.108.7" || { rm -rf $@; exit 1; }

.PHONY: clean
clean: ## Removes what was made here, .venv included.
	rm -rf client/java/target client/rust/target client/rust/generator/target
	rm -rf client/typescript/dist client/typescript/node_modules
	rm -rf client/web/dist client/web/node_modules client/web/src/gen tests/openai_door/node/node_modules
	rm -rf $(VENV) .venv-litellm .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
