# Tandem's verbs. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PORT ?= 8080
BUNDLE ?= samples/digits
VENV := .venv
PYTHON := $(VENV)/bin/python
UV := $(VENV)/bin/uv
UV_VERSION := 0.13.9
STAMP := $(VENV)/.installed

.PHONY: audit help setup run test lint format types protos bench soak kills cluster cluster-down lock clean

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(STAMP) ## set up .venv (every other verb does it by itself)

$(STAMP): requirements/dev.lock pyproject.toml setup.py $(wildcard protos/*.proto) adapter/contract/openapi.yaml
	@test -x $(PYTHON) || python3 -m venv $(VENV)
	@test -x $(UV) || $(VENV)/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@echo 'setting up $(VENV) (once)'
	@$(UV) pip install --quiet --python $(PYTHON) --require-hashes -r requirements/dev.lock
	@$(UV) pip install --quiet --python $(PYTHON) --no-deps --no-build-isolation --editable .
	@touch $@

run: setup ## run a bundle here: both tasks, REST at http://127.0.0.1:8080 (PORT=, BUNDLE=); Ctrl-C stops both
	@exec $(VENV)/bin/tandem run $(BUNDLE) --port $(PORT)

test: setup ## run every test; cluster tests skip with a reason where root, Docker or Go is missing
	$(VENV)/bin/pytest $(ARGS)

lint: setup ## check style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/bandit --quiet --configfile pyproject.toml --severity-level medium --recursive adapter deploy --exclude adapter/pb

audit: setup ## look the adapter's locked dependencies up among known vulnerabilities (asks pypi.org, so not part of CI)
	$(VENV)/bin/pip-audit --strict --disable-pip --require-hashes -r requirements/adapter.lock --progress-spinner off

format: setup ## format the code
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

protos: setup ## compile protos/ into adapter/pb/ again
	$(PYTHON) -c "import setup; setup.compile_protos()"

bench: setup ## measure the adapter beside its peers; writes docs/benchmarks/
	$(PYTHON) -m tests.bench $(ARGS)

soak: setup ## hold the adapter's memory flat from the 10,000th to the 100,000th request; writes docs/benchmarks/soak.md
	$(PYTHON) -m tests.bench.soak

kills: setup ## measure how long a killed TensorFlow Serving goes unnoticed (ARGS=50 kills); writes docs/benchmarks/kills.md
	$(PYTHON) -m tests.bench.kills $(ARGS)

cluster: setup ## real Nomad, Consul and Docker on this machine, running the production job (BUNDLE=)
	$(VENV)/bin/tandem cluster up $(BUNDLE)

cluster-down: setup ## stop what `make cluster` started and leave nothing behind
	$(VENV)/bin/tandem cluster down

lock: setup ## resolve the locked dependencies again
	$(UV) pip compile --quiet pyproject.toml --all-extras --generate-hashes --no-emit-index-url --no-header -o requirements/dev.lock
	$(UV) pip compile --quiet pyproject.toml --generate-hashes --no-emit-index-url --no-header -c requirements/dev.lock -o requirements/adapter.lock
	$(UV) pip compile --quiet --generate-hashes --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
		-c requirements/dev.lock --override deploy/images/model-server.override --no-annotate --no-header --no-emit-index-url \
		deploy/images/model-server.in -o deploy/images/model-server.lock
	for name in clients bench-fastapi bench-kserve; do \
		$(UV) pip compile --quiet --generate-hashes --no-emit-index-url --no-header requirements/$$name.in -o requirements/$$name.lock; done

clean: ## remove what the build and the tests left
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .tandem
