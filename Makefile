# `make` alone lists the targets. Needs python3 >= 3.11 and make, nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
TEST_PROCESSES ?= 2

# The tests start hundreds of Python processes. Without cached bytecode, each of them would compile every module.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help env demo dev test services check lint types contract format bench bench-record bench-storages loadtest stress docs sql install-sql build requirements clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(STAMP) ## create the virtual environment

$(STAMP): pyproject.toml requirements-dev.txt
	@command -v $(PYTHON) >/dev/null || \
	  { echo "pgjobq needs Python 3.11 or later; $(PYTHON) was not found. Try: make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "pgjobq needs Python 3.11 or later; $(PYTHON) is older. Try: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV) ..."
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@# pip says little for a minute, so count what it collects.
	@{ $(BIN)/python -m pip install --progress-bar=off --disable-pip-version-check --no-warn-script-location -r requirements-dev.txt ; \
	    echo "status $$?"; } | awk -v all=$$(grep -c == requirements-dev.txt) ' \
	  /^(Collecting|Requirement already)/ { if (++n % 10 == 0) { print "  " n " of about " all " packages"; fflush() } } \
	  /^Installing collected/ { print "  all are there; installing them"; fflush() } \
	  /^status / { exit $$2 }'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: $(STAMP) ## run the demo on an embedded PostgreSQL
	@$(BIN)/pgjobq demo

dev: $(STAMP) ## run a PostgreSQL server for development until Ctrl-C
	@$(BIN)/pgjobq dev

services: $(STAMP) ## install the other databases that the tests use
	@PYTHONPATH=tests $(BIN)/python -m services

test: $(STAMP) ## run the tests, on the installed databases; TESTS=tests/worker
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadscope $(TESTS)

check: lint types contract test ## run lint, types, contract and test

lint: $(STAMP) ## run ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP) ## run mypy --strict
	@$(BIN)/mypy

contract: $(STAMP) ## check which module imports which
	@$(BIN)/lint-imports

format: $(STAMP) ## format the code
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

bench: $(STAMP) ## measure each figure and its raw floor; BENCH=--full, BENCH=--list
	@$(BIN)/python loadtests/bench $(BENCH)

bench-record: $(STAMP) ## run the full bench, and write its figures and charts into the docs
	@$(BIN)/python loadtests/bench --full --out loadtests/results/record.json
	@$(BIN)/python loadtests/bench/figures.py loadtests/results/record.json

bench-storages: $(STAMP) ## compare all storages whose servers are installed
	@$(BIN)/python loadtests/bench/storages.py

SECONDS ?= 60
loadtest: $(STAMP) ## run a load test by locust: make loadtest SECONDS=60 OPTIONS="--help"
	@$(BIN)/python loadtests/locust/loadtest.py --seconds $(SECONDS) $(OPTIONS)

stress: $(STAMP) ## run random transactions and kill workers, without the fallback poll: make stress SECONDS=300
	@$(BIN)/python loadtests/stress/doorbell.py --seconds $(SECONDS)

docs: $(STAMP) ## build the documentation into site/
	@$(BIN)/zensical build --strict --clean

sql: $(STAMP) ## write the installation as one SQL file for psql
	@mkdir -p dist && $(BIN)/pgjobq migrate --print > dist/pgjobq.sql && echo dist/pgjobq.sql

install-sql: $(STAMP) ## update sql/install.sql, which lists the SQL files
	@$(BIN)/python -m pgjobq.postgres.script

build: $(STAMP) sql ## build the wheel and the source archive in dist/
	@$(BIN)/python -m build --quiet

requirements: ## update the pinned development environment (needs uv)
	@uv pip compile --quiet --universal --all-extras --no-header --no-annotate --no-emit-index-url \
	  --python-version 3.11 pyproject.toml -o requirements-dev.txt

clean: ## remove all built and installed files
	@rm -rf $(VENV) .services dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
