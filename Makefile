# Two commands do everything: `make demo` and `make test`. Each sets up .venv by itself.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
ROOMS  := probes policies controlplane chaos

.DEFAULT_GOAL := help
.PHONY: help install servers demo test lab chaos lint bench image clean docs

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 12

install: $(STAMP) ## set up .venv with pinned versions

$(STAMP): pyproject.toml constraints.txt .ci/need_python.sh
	@sh .ci/need_python.sh $(PYTHON)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP) ## kill a site, watch the failover, see it measured (under a minute)
	@$(BIN)/python -m controlplane.cli.demo

servers: ## what tests start (etcd, BIND, Knot, PowerDNS, HAProxy, unbound, toxiproxy, Chromium)
	@sh .ci/servers.sh

test: lint servers ## everything that must pass: ruff, mypy --strict, import rules, all tests (root: the lab too)
	@$(BIN)/python .ci/tests.py

lab: $(STAMP) servers ## three sites in network namespaces that really die (root); prints a table of what was measured
	@$(BIN)/python -m pytest -s tests/lab --goals

chaos: $(STAMP) ## break everything on purpose: all shipped scenarios in the simulator, one table
	@$(BIN)/failoverctl drill run --all --world sim

lint: $(STAMP) ## ruff, mypy --strict over all rooms, the import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

bench: $(STAMP) ## measure; figures, not pass or fail
	@for b in tests/bench/bench_*.py; do $(BIN)/python $$b || exit 1; done

image: $(STAMP) ## build the container image, with buildah or podman
	@PYTHON=$(BIN)/python examples/deploy/image.sh

docs: $(STAMP) ## write again the documents that are generated from the code
	@$(BIN)/python docs/make_rules.py
	@$(BIN)/python docs/make_metrics.py
	@$(BIN)/python docs/make_scenarios.py

clean: ## remove .venv and every cache
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
