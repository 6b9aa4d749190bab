# demo: install what running needs, then generate.  test, check, fix: install what developing needs, then do it.
# Variables: PYTHON (3.11 to 3.13), ARGS (handed to pytest, or to redraft in the demo), TORCH_INDEX (see below).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check $(if $(CI),--quiet --progress-bar off)
ARGS ?=

# On Linux the default index's torch is the CUDA build, several GB. So the CPU build's index is asked too, unless this
# machine's pip was told where to look: then that is obeyed. `make demo TORCH_INDEX=` takes the default index's build.
PIP_IS_CONFIGURED = $(shell $(BIN)/python -m pip config list 2>/dev/null | grep -E 'index-url|find-links|no-index')
ON_LINUX := $(filter Linux,$(shell uname -s))
TORCH_INDEX ?= $(if $(ON_LINUX),$(if $(PIP_IS_CONFIGURED),,https://download.pytorch.org/whl/cpu))

# The tests compute on one thread each; tests/conftest.py says how many run at once.
PARALLEL := -n auto --dist worksteal

DEMO = $(BIN)/redraft generate "Extract name, date, amount as JSON: Hi, this is Ana Kovacs. I paid 42,50 EUR on 3 March 2024 and still have no receipt." --mode diffusion --step-delay 0.15 --seed 1 $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check fix clean

help:
	@echo "make demo       install into $(VENV) and write one answer with the bundled checkpoint"
	@echo "make test       the tests but the slow ones, and the docs' examples; ARGS='-k sampler -x' goes to pytest"
	@echo "make test-slow  the slow tests"
	@echo "make check      formatting, lint, types, sizes: what is known without running anything"
	@echo "make fix        format, and repair what lint can repair"
	@echo "make clean      remove $(VENV) and the caches"

demo: $(VENV)/.runs
	@$(DEMO)

# Tests start hundreds of programs. Where no bytecode may be written, each of them compiles this checkout again.
test test-slow: export PYTHONDONTWRITEBYTECODE :=

test: $(VENV)/.develops
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL) $(ARGS)

test-slow: $(VENV)/.develops
	$(BIN)/python -m pytest -m slow $(PARALLEL) $(ARGS)

check: $(VENV)/.develops
	$(BIN)/ruff format --check --quiet . || { echo "not formatted: run 'make fix'"; exit 1; }
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/python tools/check_sizes.py

fix: $(VENV)/.develops
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build src/redraft.egg-info

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
	  echo "redraft needs Python 3.11, 3.12 or 3.13; $(PYTHON) is $$($(PYTHON) --version 2>&1 || true)."; \
	  echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@echo "Making $(VENV). Downloads for running: about 230 MB, 190 of them torch's CPU build; 1 GB on disk."
	@echo "For test, check and fix about 130 MB more. The model is in the checkout: nothing is downloaded for it."
	@$(if $(and $(ON_LINUX),$(filter-out file,$(origin TORCH_INDEX))),echo "But TORCH_INDEX is given: a CUDA build of torch is several GB.")
	@$(PYTHON) -m venv $(VENV)

# Two stamps, each laid when an install has succeeded: what running needs, and that plus what developing needs.
$(VENV)/.runs: pyproject.toml constraints.txt | $(BIN)/pip
	@$(PIP) -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	@$(PIP) -c constraints.txt -e .
	@touch $@

$(VENV)/.develops: $(VENV)/.runs
	@$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@
