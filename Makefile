# `make quickstart` and `make test` do everything from a bare clone: environment, installation, work.

PYTHON ?= python3.11
VENV ?= .venv
# The versions that tests and measurements were made with, torch's build for processors among them; `PINS=` takes the
# newest that pyproject.toml allows.
PINS ?= torch==2.13.0 transformers==5.23.0 deepspeed==0.19.8 datasets==5.2.0 mlflow==3.17.2
NPROC ?= 2
JOBS ?= 2
PYTEST_ARGS ?=

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
# Both installations write the same environment.
.NOTPARALLEL:

BIN := $(VENV)/bin
# The stamps are written last: an environment that was interrupted has none, and is completed the next time.
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
# How to become root, where one is not; nothing where there is no way.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)

.PHONY: help quickstart install test test-cluster check format reference clean

help:  ## what there is
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22
	@echo
	@echo '  variables: PYTHON=$(PYTHON)  VENV=$(VENV)  PINS  NPROC=$(NPROC) (ranks of the quickstart)  JOBS=$(JOBS) (test files at a time)  PYTEST_ARGS'

quickstart: $(INSTALLED)  ## train a small model on real text, grow it twice, export it (minutes)
	$(BIN)/ligo-dist run configs/quickstart.yaml --nproc $(NPROC)

install: $(INSTALLED)  ## the environment and the installation alone

test: $(INSTALLED_DEV)  ## the test suite
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# Root leaves no caches in a tree that may be another user's.
test-cluster: $(INSTALLED_DEV)  ## the tests on a cluster: three hosts made of network namespaces (needs root)
	$(AS_ROOT) tests/cluster/install.sh
	$(AS_ROOT) $(BIN)/python -B -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder \
	    -p no:cacheprovider tests/cluster -m cluster $(PYTEST_ARGS)

check: $(INSTALLED_DEV)  ## lint, import rules, format, types, the generated page
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy --num-workers $(JOBS)
	$(BIN)/python -m ligo_dist.config.reference --check

format: $(INSTALLED_DEV)  ## format the code
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

reference: $(INSTALLED_DEV)  ## write docs/configuration.md anew from the configuration's docstrings
	$(BIN)/python -m ligo_dist.config.reference

clean:  ## remove the environment and all caches; runs and prepared data stay
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What pip says, cut down to what shows that it gets on: large downloads, builds, the long last step.
SHOW_PROGRESS := sed -unE \
	-e 's/^ *(Downloading|Using cached) ([^ ]*\/)?([^ /]+) \(([0-9.]+ [MG]B)\)$$/  \3 (\4)/p' \
	-e 's/^ *(Building wheel for [^ ]+) .*: started.*/  \1/p' \
	-e 's/^Installing collected packages:.*/  installing (this takes a while)/p'
# Byte code takes pip half of the time, on one core; all cores make it, without that of the libraries' own tests, and pass
# over what is not meant for this Python. Ours is made too: where nobody may write any, each rank would make it again.
COMPILE := $(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib ligo_dist launcher || true
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --no-compile

# $(call INSTALL,what pip is given)
define INSTALL
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null || { \
	    echo 'make: Python 3.11, 3.12 or 3.13 is needed, and "$(PYTHON)" is none; name one: make PYTHON=/path/to/python' >&2; \
	    exit 1; }
	@echo 'making the environment $(VENV); the first time this downloads torch and takes some minutes'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) $(PINS) --editable '$(1)' | $(SHOW_PROGRESS)
	@$(COMPILE)
endef

$(INSTALLED): pyproject.toml
	$(call INSTALL,.)
	@touch $@

$(INSTALLED_DEV): pyproject.toml
	$(call INSTALL,.[dev])
	@touch $(INSTALLED) $@
