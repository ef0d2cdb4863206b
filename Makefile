# Every target that needs Python makes .venv first; an existing .venv is reused.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow check docs bench-setup bench lock clean

BIN := .venv/bin
EXTRAS := battery,dev,docs
# The first Python of at least 3.11; `make PYTHON=/path/to/python ...` chooses another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
# Two test processes of one thread each: more threads than cores only wait for one another.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
say = @printf '\033[1m== %s\033[0m\n'

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.installed ## simulate a battery 200 times, fit a surrogate, report, predict a held-out run
	$(say) 'Running the demo (about three minutes; the simulations are kept for the next time)'
	$(BIN)/understudy demo

test: .venv/.installed ## run the tests (under five minutes)
	$(say) 'Running the tests in two processes'
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2

test-slow: .venv/.installed ## run the slow tests as well
	$(say) 'Running all tests, slow ones included, in two processes'
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 -m 'slow or not slow'

check: .venv/.installed ## lint, format, types, and the floors of the architecture
	$(say) 'Linting (ruff check)'
	$(BIN)/ruff check
	$(say) 'Checking the format (ruff format --check)'
	$(BIN)/ruff format --check
	$(say) 'Checking types (mypy)'
	$(BIN)/mypy
	$(say) 'Checking that imports only go down (import-linter)'
	$(BIN)/lint-imports

docs: .venv/.installed ## build the documentation into site/
	$(say) 'Building the documentation into site/ (mkdocs --strict)'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench-setup: .venv/.installed ## give each peer of the benchmarks its own environment
	$(say) 'Making one environment per peer in .bench/ (several minutes)'
	bash benchmarks/setup.sh

bench: .venv/.installed ## measure `understudy fit` against its peers
	$(say) 'Measuring against the peers (hours; `make bench-setup` comes first)'
	$(BIN)/python benchmarks/fit.py

.venv/.installed: pyproject.toml constraints.txt
	@if [ ! -x $(BIN)/python ]; then \
		if [ -z "$(PYTHON)" ]; then \
			echo 'Understudy needs Python 3.11 or newer, and none was found as python3, python3.13, python3.12 or python3.11: install one, or name it with make PYTHON=/path/to/python.' >&2; exit 2; \
		fi; \
		printf '\033[1m== %s\033[0m\n' "Creating .venv with $$($(PYTHON) --version)"; \
		$(PYTHON) -m venv .venv || { echo 'The virtual environment could not be made: on Debian and Ubuntu, install the package python3-venv.' >&2; exit 2; }; \
	fi
	$(say) 'Installing Understudy and its pinned dependencies into .venv (minutes the first time; PyTorch is the large one)'
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

lock: ## write constraints.txt anew from a fresh environment
	$(say) 'Resolving the newest versions in a fresh environment (minutes)'
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --disable-pip-version-check '.[$(EXTRAS)]'
	{ sed '/^[^#]/,$$d' constraints.txt; \
	  build/lock/bin/python -m pip freeze --exclude understudy | sed -E 's/^(torch==[0-9.]+)\+.*/\1/'; } > build/lock/constraints.txt
	mv build/lock/constraints.txt constraints.txt
	rm -rf build/lock

clean: ## remove the environment, caches and everything built
	$(say) 'Removing .venv, .bench, caches and build output'
	rm -rf .venv .bench site dist build demo-output .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
