# Everything runs in a virtual environment of its own, made from the lock.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
BENCH := .venv-bench
BENCH_READY := $(BENCH)/ready
NODE_READY := benchmarks/peers/node_modules/ready
FIGURES := benchmarks/figures
TS := sdk_typescript
TS_READY := $(TS)/node_modules/ready
TS_BUILT := $(TS)/dist/index.js
WITH_NODE = PATH="$$($(BIN)/python tools/toolchains.py node):$$PATH"
TEXT ?=

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Stepwire needs Python 3.11 or newer; set PYTHON=…")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(BENCH_READY): benchmarks/requirements.lock
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r benchmarks/requirements.lock
	@touch $@

# Without npm there is no server of Restate, and it is left out.
$(NODE_READY): benchmarks/peers/package.json benchmarks/peers/package-lock.json
	@if command -v npm >/dev/null; then \
	  npm ci --prefix benchmarks/peers --ignore-scripts --no-audit --no-fund --loglevel error && touch $@; \
	else echo "there is no npm, which brings Restate's server: it is left out"; fi

$(TS_READY): $(TS)/package.json $(TS)/package-lock.json | $(READY)
	$(WITH_NODE) npm ci --prefix $(TS) --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@

$(TS_BUILT): $(TS_READY) $(wildcard $(TS)/tsconfig*.json) $(shell find $(TS)/src $(TS)/examples $(TS)/tests/apps $(TS)/bench -name '*.ts')
	$(WITH_NODE) npm run --silent --prefix $(TS) build
	@touch $@

typescript: $(TS_BUILT) ## Build the TypeScript SDK

setup: $(READY) ## Make the virtual environment

demo: $(READY) ## Run the main job on a real text (TEXT=path for your own)
	$(BIN)/python -m examples.demo $(if $(TEXT),--text "$(TEXT)")

test: check $(TS_BUILT) ## Check and test everything (JOBS=n at once)
	@echo "what the tests need beyond Python:"
	@$(BIN)/python -m tools.needs
	$(BIN)/python -m pytest --numprocesses $(or $(JOBS),3) --dist loadfile --no-loadscope-reorder
	$(WITH_NODE) npm run --silent --prefix $(TS) test:built

check: $(READY) $(TS_READY) ## Formatting, lint, types, layers, the contract, advisories
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/buf lint
	$(BIN)/buf breaking --against proto/baseline.binpb
	$(BIN)/python tools/generate.py --check
	$(WITH_NODE) npm run --silent --prefix $(TS) check
	$(BIN)/python -m tools.advisories

format: $(READY) $(TS_READY) ## Format the code and mend what lint can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(WITH_NODE) npm run --silent --prefix $(TS) format

generate: $(READY) $(TS_READY) ## Generate the code of the contract
	$(BIN)/python tools/generate.py
	$(BIN)/python tools/clients.py go examples/go_worker --go-package stepwire.example/go_worker/gen/go
	$(WITH_NODE) npm run --silent --prefix $(TS) generate

baseline: $(READY) ## Take the contract as released: later changes must be compatible with it
	$(BIN)/buf build --output proto/baseline.binpb

lock: $(READY) ## Resolve the dependencies anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes --no-header --no-annotate \
	  --extra executor --group dev pyproject.toml --output-file requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes --no-header --no-annotate \
	  benchmarks/requirements.in --output-file benchmarks/requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes --no-header --no-annotate \
	  tools/toolchains.in --output-file tools/toolchains.lock

bench: $(READY) ## Measure every workload, and the limits of gRPC and the disk
	$(BIN)/python -m benchmarks

bench-more: $(READY) ## Measure growth, fairness, neighbours, real work, tracing and large values
	for each in growth fairness neighbours work tracing values; do $(BIN)/python -m benchmarks.$$each || exit 1; done

bench-peers: $(READY) $(BENCH_READY) $(NODE_READY) ## Measure Stepwire beside its peers (REPEAT=n; README=1 writes it down)
	$(BIN)/python -m benchmarks.peers --repeat $(or $(REPEAT),3) --json $(FIGURES)/peers.json $(if $(README),--readme benchmarks/README.md)
	$(BENCH)/bin/python -m benchmarks.plot bars $(FIGURES)/peers.json $(FIGURES)/peers.svg

bench-languages: $(READY) $(TS_BUILT) ## Measure workers in TypeScript beside workers in Python
	$(BIN)/python -m benchmarks.languages

bench-plots: $(BENCH_READY) ## Draw every figure anew from what was measured
	$(foreach data,$(wildcard $(FIGURES)/*.json),$(BENCH)/bin/python -m benchmarks.plot \
	  $(if $(findstring peers,$(data)),bars,lines) $(data) $(data:.json=.svg) &&) true

simulate: $(READY) ## Simulate many schedules and faults (SEEDS=n FIRST=seed; POINTS=1 for every crash point)
	$(BIN)/python -m tests.simulation $(if $(POINTS),--points --pairs 1,--seeds $(or $(SEEDS),10000)) $(if $(FIRST),--first $(FIRST))

soak: $(TS_BUILT) ## Soak a real system in random faults (MINUTES=n STORE=postgres SEED=n EVERY=1s FOLDER=kept)
	$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),20) --store $(or $(STORE),sqlite) $(if $(SEED),--seed $(SEED)) $(if $(EVERY),--every $(EVERY)) $(if $(FOLDER),--folder $(FOLDER))

fuzz: $(TS_BUILT) ## Fuzz a real executor and real workers, beside others' traffic (MINUTES=n STORE=postgres SEED=n FOLDER=kept)
	$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),10) --store $(or $(STORE),sqlite) $(if $(SEED),--seed $(SEED)) $(if $(FOLDER),--folder $(FOLDER))

clean: ## Remove what was made
	rm -rf $(VENV) $(BENCH) .toolchains examples/rust_worker/target benchmarks/peers/node_modules $(TS)/node_modules $(TS)/dist $(TS)/build .stepwire .mypy_cache .pytest_cache .ruff_cache

.PHONY: help typescript setup demo test check format generate baseline lock bench bench-languages bench-more bench-peers bench-plots simulate soak fuzz clean
