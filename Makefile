# Every target works in a clean clone: the environment is made on first use.
# `make VENV=/elsewhere test` uses another one.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed-from-constraints
EXTRAS := dev,prepare,scoring,ray,s3,report,onnx,tensorboard

# One thread for torch and Arrow keeps tests repeatable and lets them share a small machine.
TEST_ENVIRONMENT := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1

# Two processes: the tests are one-threaded, and two cores are what everybody has.
PARALLEL := -n 2 --dist worksteal

.PHONY: setup demo test test-slow test-long test-browser test-all docs reference check format lint types clean

setup: $(STAMP)

# torch comes first and pinned, from whatever index pip is given: asked for as a dependency it may bring CUDA along.
$(STAMP): constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo "error: symbert needs Python 3.11 or 3.12; set PYTHON=python3.12, say" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install --quiet torch -c constraints.txt
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]' -c constraints.txt
	touch $@

demo: $(STAMP)
	$(BIN)/symbert demo --out demo

test: $(STAMP)
	$(TEST_ENVIRONMENT) $(BIN)/python -m pytest $(PARALLEL) -m 'not slow and not long and not gpu and not browser' $(PYTEST_ARGUMENTS)

test-slow: $(STAMP)
	$(TEST_ENVIRONMENT) $(BIN)/python -m pytest $(PARALLEL) -m 'slow and not long and not gpu and not browser' $(PYTEST_ARGUMENTS)

# Before a release, and after a change to what they hold.
test-long: $(STAMP)
	$(TEST_ENVIRONMENT) $(BIN)/python -m pytest $(PARALLEL) -m 'long and not gpu and not browser' $(PYTEST_ARGUMENTS)

# Debian: apt-get install chromium chromium-driver. Where they are absent the tests are skipped.
test-browser: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[browser]' -c constraints.txt
	$(TEST_ENVIRONMENT) $(BIN)/python -m pytest -m browser $(PYTEST_ARGUMENTS)

test-all: test test-slow test-long

# A warning fails the build.
docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[docs]' -c constraints.txt
	$(BIN)/sphinx-build -W --keep-going --quiet -b html docs build/docs

reference: $(STAMP)
	$(BIN)/python docs/generate_reference.py

check: lint types test

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
