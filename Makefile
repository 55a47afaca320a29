# Every target sets up what it needs in .venv, the first time and after a change of the requirements;
# test-latest has a .venv-latest of its own.
# Needed beforehand: make, and Python 3.11 to 3.13 (another one: make demo PYTHON=python3.12).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LATEST := .venv-latest
REQUIREMENTS := pyproject.toml constraints.txt
PEERS ?=
NEEDS_PYTHON := 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "featdiff needs Python 3.11 to 3.13; give one with PYTHON=")'

.PHONY: help demo test test-latest check bench clean
.DELETE_ON_ERROR:

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1	/' | expand -t 20

demo: $(VENV)/.stamp-demo ## the whole method on a small real study; ends with the path of the report
	@$(BIN)/featdiff demo

test: $(VENV)/.stamp-dev ## all tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-latest: ## all tests on the newest versions inside pyproject.toml's ranges, constraints.txt set aside
	@$(PYTHON) -c $(NEEDS_PYTHON)
	@echo 'setting up $(LATEST) with the newest versions' >&2
	@$(PYTHON) -m venv $(LATEST)
	@$(LATEST)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(LATEST)/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager -e '.[demo]' --group dev
	@OMP_NUM_THREADS=1 $(LATEST)/bin/python -m pytest -n 2 --dist loadfile

check: $(VENV)/.stamp-dev ## lint, format, types and the direction of imports; repairs nothing
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/lint-imports --no-cache

bench: $(VENV)/.stamp-dev ## all benchmarks; beside peers with PEERS='NAME[=PATH] ...' (benchmarks/README.md)
	@$(BIN)/python benchmarks/training_step.py --shape small --peer $(PEERS)
	@$(BIN)/python benchmarks/training_step.py --shape medium --peer $(PEERS)
	@$(BIN)/python benchmarks/scaling.py

clean: ## remove .venv, .venv-latest, caches and built packages; runs/ stays
	rm -rf $(VENV) $(LATEST) .hypothesis .pytest_cache .ruff_cache build dist

$(VENV)/.stamp-demo: $(REQUIREMENTS)
	@$(PYTHON) -c $(NEEDS_PYTHON)
	@echo 'setting up $(VENV): a minute or two the first time, seconds after a change' >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-demo
	@$(BIN)/python -m pip install --quiet -c constraints.txt --group dev
	@touch $@
