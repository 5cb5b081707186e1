# The one door: people, hooks and CI all come through here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
RECIPE ?= demo

.PHONY: setup demo lint test test-slow check bench
.DEFAULT_GOAL := check

setup: $(READY)

# torch comes first, alone: the largest download, and the one that fits itself to the machine.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("medmind needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev,llamacpp]'
	touch $@

demo: $(READY)
	$(BIN)/medmind run $(RECIPE)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# One thread a worker: the workers are as many as the cores.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest

test-slow: $(READY)
	$(BIN)/pytest -m slow -n 0

check: lint test

bench: $(READY)
	@test -f 'bench/$(BENCH).py' || { echo "make bench BENCH=NAME, one of: $(basename $(notdir $(wildcard bench/*.py)))" >&2; exit 2; }
	$(BIN)/python bench/$(BENCH).py
