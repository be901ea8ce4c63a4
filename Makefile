# Everything runs in a virtual environment of its own, which is made on first use and brought up to
# date when pyproject.toml or constraints.txt change. The lowest supported versions have a second one.

# Settings, as in `make train ARGS="host=mlp seed=3"`.
PYTHON ?= python3
VENV ?= .venv
VENV_LOWEST ?= .venv-lowest
ARGS ?=
# Where torch comes from when it is first installed. Empty takes the default build of the package
# index, which on Linux is the CUDA build and large. For the CPU build name PyTorch's CPU index:
# `make train TORCH_INDEX_URL=<the CPU wheel index that pytorch.org names>`.
TORCH_INDEX_URL ?=

BIN := $(VENV)/bin
RUNTIME := $(VENV)/.installed
DEVELOPMENT := $(VENV)/.installed-dev
LOWEST := $(VENV_LOWEST)/.installed
INSTALL := $(BIN)/python -m pip install -c constraints.txt
INSTALL_LOWEST := $(VENV_LOWEST)/bin/python -m pip install -c constraints-lowest.txt
TORCH_INDEX = $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL))

.DEFAULT_GOAL := help
.PHONY: help train test test-lowest check docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'On first use the default torch is installed, on Linux with CUDA. For the CPU build:'
	@echo 'make train TORCH_INDEX_URL=<the CPU wheel index that pytorch.org names>'

train: $(RUNTIME) ## train a network that grows; ARGS="host=mlp seed=3" are Hydra overrides
	$(BIN)/python train.py $(ARGS)

test: $(DEVELOPMENT) ## run the tests on all cores; ARGS="-k gates" goes to pytest
	$(BIN)/pytest -n auto $(ARGS)

test-lowest: $(LOWEST) ## run all but the slow tests with the lowest supported versions
	$(VENV_LOWEST)/bin/pytest -n auto -m "not slow" $(ARGS)

check: $(DEVELOPMENT) ## lint, formatting, types, import contracts, documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pylint -j 0 --rcfile .codacy/tools-configs/pylint.rc esper_lightning callbacks train.py
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/test_documents.py

docs: $(DEVELOPMENT) ## build the documentation into site/
	$(BIN)/mkdocs build --strict

clean: ## remove caches and build results; runs and virtual environments stay
	rm -rf __pycache__ build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find callbacks conf esper_lightning tests -name __pycache__ -type d -prune -exec rm -rf {} +

# `python3 -m venv` leaves a python but no pip behind where Debian's python3-venv is missing.
%/bin/pip:
	$(PYTHON) -m venv $*

$(RUNTIME): pyproject.toml constraints.txt | $(BIN)/pip
	$(if $(TORCH_INDEX),$(INSTALL) $(TORCH_INDEX) torch)
	$(INSTALL) -e .
	@touch $@

$(DEVELOPMENT): pyproject.toml constraints.txt | $(BIN)/pip
	$(if $(TORCH_INDEX),$(INSTALL) $(TORCH_INDEX) torch)
	$(INSTALL) -e '.[dev]'
	@touch $(RUNTIME) $@

# torchvision is built for one release of torch; the tests with timm need it and run here only.
$(LOWEST): pyproject.toml constraints-lowest.txt | $(VENV_LOWEST)/bin/pip
	$(if $(TORCH_INDEX),$(INSTALL_LOWEST) $(TORCH_INDEX) torch torchvision)
	$(INSTALL_LOWEST) -e '.[dev]' timm torchvision
	@touch $@
