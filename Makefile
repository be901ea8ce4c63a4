# Everything runs in a virtual environment of its own, which is made on first use and brought up to
# date when pyproject.toml or constraints.txt change.

# Settings, as in `make train ARGS="host=mlp seed=3"`.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# Where torch comes from when it is first installed. Empty takes the default build of the package
# index, which on Linux is the CUDA build and large. For the CPU build name PyTorch's CPU index:
# `make train TORCH_INDEX_URL=<the CPU wheel index that pytorch.org names>`.
TORCH_INDEX_URL ?=

BIN := $(VENV)/bin
RUNTIME := $(VENV)/.installed
DEVELOPMENT := $(VENV)/.installed-dev
INSTALL := $(BIN)/python -m pip install -c constraints.txt
INSTALL_TORCH = $(if $(TORCH_INDEX_URL),$(INSTALL) --index-url $(TORCH_INDEX_URL) torch)

.DEFAULT_GOAL := help
.PHONY: help train test check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'On first use the default torch is installed, on Linux with CUDA. For the CPU build:'
	@echo 'make train TORCH_INDEX_URL=<the CPU wheel index that pytorch.org names>'

train: $(RUNTIME) ## train a network that grows; ARGS="host=mlp seed=3" are Hydra overrides
	$(BIN)/python train.py $(ARGS)

test: $(DEVELOPMENT) ## run the tests on all cores; ARGS="-k gates" goes to pytest
	$(BIN)/pytest -n auto $(ARGS)

check: $(DEVELOPMENT) ## lint, formatting, types, import contracts, documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/test_documents.py

clean: ## remove caches and build results; runs and the virtual environment stay
	rm -rf __pycache__ build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find callbacks conf esper_lightning tests -name __pycache__ -type d -prune -exec rm -rf {} +

# `python3 -m venv` leaves a python but no pip behind where Debian's python3-venv is missing.
$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL_TORCH)
	$(INSTALL) -e .
	@touch $@

$(DEVELOPMENT): pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL_TORCH)
	$(INSTALL) -e '.[dev]'
	@touch $(RUNTIME) $@
