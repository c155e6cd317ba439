# The commands of the README. Each sets up what it needs; a second run installs nothing again.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: setup demo up test check bench faults compose-test
.DELETE_ON_ERROR:

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch setuptools wheel
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-build-isolation --editable ".[api,worker,cli,local,dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/openai-1 openai==1.109.1 distro==1.9.0  # the second major that the tests speak
	touch $(INSTALLED)

demo: setup
	$(BIN)/finetuned demo

up: setup
	$(BIN)/finetuned up

test: check
	$(BIN)/pytest

check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m bench

faults: setup
	$(BIN)/python -m tests.faults --results bench/results/faults.jsonl
	$(BIN)/python -m tests.readme

compose-test: setup
	$(BIN)/python deploy/compose_test.py
