# Set up, run, test. TORCH_INDEX names another index for torch, e.g. PyTorch's own CPU or CUDA index.
PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
TORCH_ARGS = $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX),)
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help run test check bench bench-serve bench-engine bench-many models clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing torch (a CPU build where the index has one)"
	$(PIP) $(TORCH_ARGS) torch
	@touch $@

$(VENV)/.serve: $(VENV)/.torch pyproject.toml
	@echo "installing collegium[serve]"
	$(PIP) --editable '.[serve]'
	@touch $@

$(VENV)/.dev: $(VENV)/.serve
	@echo "installing the development tools"
	$(PIP) --editable '.[dev]'
	@touch $@

models: $(VENV)/.serve  ## Fetch the two embedded models
	$(BIN)/collegium models pull

run: models  ## Set everything up and serve on http://127.0.0.1:8000 (ARGS="--port 9000")
	$(BIN)/collegium serve $(ARGS)

test: $(VENV)/.dev models check  ## Set everything up and run all checks and tests
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev  ## Formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: bench-serve bench-engine  ## Measure the serving path and the expert engine

bench-serve: $(VENV)/.dev models  ## Measure the serving path, Serve's switches off and on
	$(BIN)/python benchmarks/serve_switches.py $(ARGS)

bench-engine: $(VENV)/.dev models  ## Measure the engine against its peers (ARGS="--only stream")
	$(BIN)/python -m benchmarks.engine $(ARGS)

bench-many: $(VENV)/.dev models  ## Whether the router finds the right one of 30 adapters (ARGS="--data DIR --out DIR")
	$(BIN)/python -m benchmarks.many_experts $(ARGS)

clean:  ## Remove the virtual environment
	rm -rf $(VENV)
