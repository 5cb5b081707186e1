# The one door: people, hooks and CI all come through here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
RECIPE ?= demo

.PHONY: setup demo native lint test test-slow clients check bench fixtures
.DEFAULT_GOAL := check

setup: $(READY)

# torch comes first, alone: the largest download, and the one that fits itself to the machine.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("medmind needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev,llamacpp,cpu]'
	touch $@

demo: $(READY)
	$(BIN)/medmind run $(RECIPE)

# llama.cpp compiled for this machine's processor, mended for batches: minutes, a C++ compiler and patch are needed.
NATIVE := $(VENV)/llama-cpp-python
native: $(READY)
	rm -rf $(NATIVE) && mkdir -p $(NATIVE)
	$(BIN)/python -m pip download --no-binary llama-cpp-python --no-deps -c constraints.txt -d $(NATIVE) llama-cpp-python
	tar xzf $(NATIVE)/*.tar.gz -C $(NATIVE) --strip-components=1
	patch -d $(NATIVE) -p1 < scripts/llama-cpp-python.patch
	$(BIN)/python -m pip install --force-reinstall --no-deps $(NATIVE)
	$(BIN)/python -m pip install -c constraints.txt 'llama-cpp-python'
	rm -r $(NATIVE)

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

# Serving before the clients of others, and under load; strace and MEDMIND_DATA add to it where they are.
clients: $(READY)
	$(BIN)/python -m pip install -c constraints.txt -e '.[clients]'
	$(BIN)/pytest -m 'slow or not slow' -n 0 -s -rs $(wildcard tests/test_serve_*.py) tests/test_endpoint.py

check: lint test

# True vocabularies for tests of the formats (14 MB out of a source archive of 77 MB); without them those are skipped.
VOCABULARIES ?= $(or $(MEDMIND_VOCAB),$(HOME)/.cache/medmind-tests)
fixtures: $(READY)
	mkdir -p $(VOCABULARIES)
	$(BIN)/python -m pip download --no-binary llama-cpp-python --no-deps -d $(VOCABULARIES) llama-cpp-python==0.3.36
	tar xzf $(VOCABULARIES)/llama_cpp_python-0.3.36.tar.gz -C $(VOCABULARIES) --strip-components=4 --wildcards \
		'*/models/ggml-vocab-llama-bpe.gguf' '*/models/ggml-vocab-qwen2.gguf'
	rm $(VOCABULARIES)/llama_cpp_python-0.3.36.tar.gz

bench: $(READY)
	@test -f 'bench/$(BENCH).py' || { echo "make bench BENCH=NAME, one of: $(basename $(notdir $(wildcard bench/*.py)))" >&2; exit 2; }
	$(BIN)/python bench/$(BENCH).py
