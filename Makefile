# Each target sets up what it needs in .venv, once: make and a Python of at least 3.11 are enough.

PYTHON ?= $(shell for python in python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.NOTPARALLEL: # one pip at a time
.PHONY: help demo test docs lint format clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 10

demo: $(VENV)/.stamp-run ## train a density, detect outliers, print the report
	$(BIN)/python -m flowdetect demo

# two processes of one thread each: two of two threads each would fight for two cores
test: lint ## all checks and tests; PYTEST_ARGS="-m 'not slow'" for a quick run
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(PYTEST_ARGS)

lint: $(VENV)/.stamp-dev ## style, types and who imports whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.stamp-dev ## mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.stamp-docs ## build the pages, with the gallery, into docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

clean: ## remove .venv and all that was built
	rm -rf $(VENV) build dist *.egg-info docs/_build docs/auto_examples docs/generated docs/sg_execution_times.rst
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find flowdetect tests examples docs -name __pycache__ -type d -prune -exec rm -rf {} +

# torch before anything that depends on it with an open range; no isolated builds, which would not see it.
$(VENV)/.stamp-run: pyproject.toml constraints.txt
	$(if $(PYTHON),,$(error no Python of at least 3.11 found; name one with make PYTHON=...))
	$(PYTHON) -m venv $(VENV)
	$(PIP) setuptools torch
	$(PIP) --no-build-isolation --editable .
	touch $@

$(VENV)/.stamp-%: $(VENV)/.stamp-run
	$(PIP) --no-build-isolation --editable '.[$*]'
	touch $@
