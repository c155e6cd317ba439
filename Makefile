# The commands of the README. Each sets up what it needs; a second run installs nothing again.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
AXE := $(VENV)/npm/node_modules/axe-core/axe.min.js

.PHONY: setup demo up test check docs browser bench faults compose-test
.DELETE_ON_ERROR:

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch setuptools wheel
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-build-isolation --editable ".[api,worker,tracing,cli,local,dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/openai-1 openai==1.109.1 distro==1.9.0  # the second major that the tests speak
	touch $(INSTALLED)

demo: setup
	$(BIN)/finetuned demo

up: setup
	$(BIN)/finetuned up

test: check browser
	$(BIN)/pytest

# What the tests of the pages take beside Python: Chromium, and axe-core, which judges accessibility. Where neither is
# there nor can be had, those tests are skipped and say so; with CI=true they fail.
browser: $(AXE)
	@command -v chromium || command -v chromium-browser || command -v google-chrome || ! test "$$(id -u)" = 0 || ! command -v apt-get > /dev/null || \
	  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends chromium; } || echo "no Chromium could be installed"

$(AXE): $(INSTALLED)
	@! command -v npm > /dev/null || npm install --silent --no-save --ignore-scripts --no-audit --no-fund --prefix $(VENV)/npm axe-core@4.14.1 || echo "axe-core could not be fetched"

check: setup docs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site, with every reference written from the code: build/docs/site/index.html. A link that leads nowhere is an error.
docs: setup
	$(BIN)/python -m docs.generate
	cd build/docs && ../../$(BIN)/python -m zensical build --strict --config-file mkdocs.yml

bench: setup
	$(BIN)/python -m bench

faults: setup
	$(BIN)/python -m tests.faults --results bench/results/faults.jsonl
	$(BIN)/python -m tests.readme

compose-test: setup
	$(BIN)/python deploy/compose_test.py
