# Each target sets up what it needs in .venv, once: make and a Python of at least 3.11 are enough.

PYTHON ?= $(shell for python in python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --disable-pip-version-check --quiet --constraint
PIP := $(BIN)/python $(PIP_INSTALL) constraints.txt
PIP_SMOKE = $(SMOKE)/bin/python $(PIP_INSTALL) $(CONSTRAINTS_$(PINS))
PIP_ENGINES = $(ENGINES)/bin/python $(PIP_INSTALL) constraints.txt
PIP_BENCHMARKS = $(BENCHMARKS)/bin/python $(PIP_INSTALL) constraints.txt
PINS := oldest
CONSTRAINTS_oldest := constraints-oldest.txt
CONSTRAINTS_newest := constraints.txt
SMOKE := .venv-$(PINS)
ENGINES := .venv-engines
BENCHMARKS := .venv-benchmarks
OTHER_PYTHONS := 3.12 3.13 3.14
PYTEST_ARGS ?=
BENCHMARKS_ARGS ?=
NOX_ARGS ?=
MUTANTS ?=

.DEFAULT_GOAL := help
.NOTPARALLEL: # one pip at a time
.PHONY: help demo test test-engines test-oldest test-pythons test-versions test-long fuzz coverage mutants wheel types
.PHONY: benchmarks docs links lint format changelog clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

demo: $(VENV)/.stamp-run ## train a density, detect outliers, print the report
	$(BIN)/python -m flowdetect demo

# two processes of one thread each: two of two threads each would fight for two cores
test: lint ## all checks and tests; PYTEST_ARGS="-m 'not slow'" for a quick run
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(PYTEST_ARGS)

# One process: each engine has a local cluster of two workers.
test-engines: $(ENGINES)/.stamp-engines ## Ray, Spark (which needs Java), Dask and joblib on local clusters, workers killed
	OMP_NUM_THREADS=1 $(ENGINES)/bin/python -m pytest tests/engines tests/test_how_to.py $(PYTEST_ARGS)

test-oldest: $(SMOKE)/.stamp-run ## fit every density with the least versions of the libraries
	OMP_NUM_THREADS=1 $(SMOKE)/bin/python tests/smoke.py

# Without a build of torch for them, the other Pythons can only be asked whether they read the code.
test-pythons: ## compile the code with each other installed Python
	@for version in $(OTHER_PYTHONS); do \
		found=no; \
		for python in python$$version $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python; do \
			if [ $$found = no ] && $$python -c '' 2>/dev/null; then \
				found=yes; \
				$$python -W error tests/syntax.py || exit 1; \
			fi; \
		done; \
		[ $$found = yes ] || echo "Python $$version is not here: skipped"; \
	done

# noxfile.py lists the pairs and calls test-oldest with PYTHON, PINS and SMOKE.
test-versions: $(VENV)/.stamp-tools ## fit every density with each installed Python, oldest and newest libraries
	$(BIN)/python -m nox $(NOX_ARGS)

coverage: $(VENV)/.stamp-dev ## all tests, and which lines and branches they run
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal --cov $(PYTEST_ARGS)

mutants: $(VENV)/.stamp-dev $(VENV)/.stamp-tools ## change metrics and calibration in small ways; the tests have to notice
	rm -rf mutants
	OMP_NUM_THREADS=1 $(BIN)/python -m mutmut run --max-children 2 $(MUTANTS)
	$(BIN)/python -m mutmut results

wheel: $(VENV)/.stamp-tools ## build the wheel and the sdist into dist, install the wheel elsewhere and use it
	$(BIN)/python tests/wheel.py $(ADDRESS)

types: $(VENV)/.stamp-tools ## how much of the public API has complete types
	-PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH="$(CURDIR)" pyright --verifytypes flowdetect --ignoreexternal

fuzz: $(VENV)/.stamp-dev ## 5,005 damaged and forged estimator files, 1,000 checkpoints, 500 archives: some minutes
	FLOWDETECT_FUZZ=20 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --capture=no tests/test_fuzz_files.py

test-long: $(VENV)/.stamp-dev ## the stateful test of an estimator's life, with new draws and many of them: an hour
	FLOWDETECT_LONG=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 tests/laws/test_life.py

benchmarks: $(BENCHMARKS)/.stamp-benchmarks ## ours beside other libraries, an hour; BENCHMARKS_ARGS=--quick shows that all run
	OMP_NUM_THREADS=1 $(BENCHMARKS)/bin/python examples/benchmarks/suite.py $(BENCHMARKS_ARGS)
	$(BENCHMARKS)/bin/python examples/benchmarks/draw_results.py

lint: $(VENV)/.stamp-dev ## style, types, spelling and who imports whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell flowdetect tests examples docs changelog.d *.md *.toml *.cff Makefile

format: $(VENV)/.stamp-dev ## mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# two processes make the gallery, of one thread each
docs: $(VENV)/.stamp-docs ## build the pages, with the gallery, into docs/_build/html, and check their links
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html
	$(BIN)/python docs/contributing/check_links.py docs/_build/html

links: $(VENV)/.stamp-docs ## open every link of the pages to another site, which needs a network
	$(BIN)/python -m sphinx -b linkcheck -D plot_gallery=0 docs docs/_build/links

changelog: $(VENV)/.stamp-tools ## show what the fragments will become; VERSION=0.2.0 writes them into CHANGELOG.md
	$(BIN)/towncrier build $(if $(VERSION),--yes --version $(VERSION),--draft --version "next version")

clean: ## remove .venv and all that was built
	rm -rf $(VENV) $(VENV)-oldest* $(VENV)-newest* $(ENGINES) $(BENCHMARKS) .nox mutants .coverage* build dist *.egg-info docs/_build docs/auto_examples docs/generated docs/sg_execution_times.rst
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find flowdetect tests examples docs -name __pycache__ -type d -prune -exec rm -rf {} +

# torch before anything that depends on it with an open range; no isolated builds, which would not see it.
# What is written in C is compiled again where it changed, if there is a compiler.
$(VENV)/.stamp-run: pyproject.toml constraints.txt $(wildcard flowdetect/nets/c/*)
	$(if $(PYTHON),,$(error no Python of at least 3.11 found; name one with make PYTHON=...))
	$(PYTHON) -m venv $(VENV)
	$(PIP) setuptools torch
	$(PIP) --no-build-isolation --editable .
	touch $@

$(SMOKE)/.stamp-run: pyproject.toml $(CONSTRAINTS_$(PINS))
	$(if $(PYTHON),,$(error no Python of at least 3.11 found; name one with make PYTHON=...))
	$(PYTHON) -m venv $(SMOKE)
	$(PIP_SMOKE) setuptools torch
	$(PIP_SMOKE) --no-build-isolation --editable '.[parquet,tables]' polars
	touch $@

$(ENGINES)/.stamp-engines: pyproject.toml constraints.txt
	$(if $(PYTHON),,$(error no Python of at least 3.11 found; name one with make PYTHON=...))
	$(PYTHON) -m venv $(ENGINES)
	$(PIP_ENGINES) setuptools torch
	$(PIP_ENGINES) --no-build-isolation --editable '.[dev,engines,mlflow]' datasets zarr
	touch $@

$(BENCHMARKS)/.stamp-benchmarks: pyproject.toml constraints.txt $(wildcard flowdetect/nets/c/*)
	$(if $(PYTHON),,$(error no Python of at least 3.11 found; name one with make PYTHON=...))
	$(PYTHON) -m venv $(BENCHMARKS)
	$(PIP_BENCHMARKS) setuptools torch
	$(PIP_BENCHMARKS) --no-build-isolation --editable '.[benchmarks]'
	touch $@

$(VENV)/.stamp-%: $(VENV)/.stamp-run
	$(PIP) --no-build-isolation --editable '.[$*]'
	touch $@
