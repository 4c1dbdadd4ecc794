# Needs make and python3 >= 3.11 with venv; everything else is installed into $(VENV).
#   make serve   install what is needed and serve with the development configuration
#   make test    the whole test suite
#   make soak    long crashes, power cuts and overload of real servers, then the simulation under seeds that nobody has seen,
#                until stopped or until one breaks a promise
#   make check   style, format, types, import direction
#   make fuzz    every fuzzing target for FUZZ_SECONDS (600), from its corpus; what breaks a promise is left in artifacts/
#   make bench   segmentd beside its peers, one table, dated files in bench/results (ARGS="--quick" for a short look)
#   make clean   remove everything that was made here, except data/

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
REQUIREMENTS := pyproject.toml constraints.txt

FUZZ_SECONDS ?= 600

.PHONY: serve test soak check fuzz bench constraints vendored clean tools
.DEFAULT_GOAL := help

.PHONY: help
help:
	@sed -n 's/^#   //p' Makefile

serve: $(VENV)/.installed
	@exec $(BIN)/segmentd serve --config config/development.toml

# -rs: every skipped test says why. A file's tests stay in one process, because they share servers.
test: $(VENV)/.installed-all tools
	$(BIN)/pytest -rs --numprocesses auto --maxprocesses 4 --dist loadfile

# One seed again: $(BIN)/python -m tests.simulation --seed N
soak: $(VENV)/.installed-all
	$(BIN)/pytest -rs -m soak
	$(BIN)/python -m tests.simulation $(ARGS)

check: $(VENV)/.installed-all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_imports.py tests/test_style.py
	@.ci/audit $(BIN)/python

fuzz: $(VENV)/.installed-all
	@mkdir -p artifacts
	@for target in $$(ls tests/hostile/fuzz/corpus); do \
		echo "fuzzing $$target for $(FUZZ_SECONDS) seconds"; found=$$(mktemp -d); \
		$(BIN)/python -m tests.hostile.fuzz $$target $$found tests/hostile/fuzz/corpus/$$target \
			-max_total_time=$(FUZZ_SECONDS) -artifact_prefix=artifacts/$$target- -verbosity=0 || exit 1; \
		rm -rf $$found; \
	done

# wrk and Redis come from Debian's packages; the bench installs them where this user may, and says what is missing elsewhere.
bench: $(VENV)/.installed-all
	$(BIN)/python -m bench --write $(ARGS)

# The tests drive real clients that are no Python packages; where they cannot be installed, those tests are skipped.
tools: $(VENV)/.made
	@.ci/tools $(VENV)

$(VENV)/.made:
	@.ci/venv $(PYTHON) $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.made $(REQUIREMENTS)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-all: $(VENV)/.made $(REQUIREMENTS)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,bench,zstd]'
	@touch $@ $(VENV)/.installed

# Fetches the scripts of GraphiQL anew and compares them with their hashes (ARGS=--accept: takes them as they are).
vendored:
	@.ci/vendored $(ARGS)

# Moves every pinned version to the newest that pyproject.toml allows.
constraints:
	@.ci/constraints $(PYTHON)

clean:
	rm -rf $(VENV) build dist segmentd.egg-info artifacts .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf tests/conformance/js/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
