# `make repro` runs the whole pipeline, `make test` lints and tests; both make .venv first.
PYTHON ?= python3.11
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help repro test lint clean

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(BIN)/.ready: requirements.txt requirements-dev.txt requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; set PYTHON=<a Python 3.11>"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c requirements.lock
	@touch $@

repro: $(BIN)/.ready  ## run the pipeline on the profile in params.yaml
	dvc repro

test: lint  ## lint, then all tests
	pytest

lint: $(BIN)/.ready
	ruff check .
	ruff format --check .

clean:  ## remove the environment and unfinished work (never data, models or DVC's cache)
	rm -rf .venv .checkpoints
