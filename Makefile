# `make help` lists the targets. Each makes the environment that it needs, once: the stamps under
# .venv stand for what is installed there, so a second run goes straight to work, without network.

# The Python that .venv is made with; empty: the first from 3.11 on that .ci/find-python finds.
PYTHON ?=
PYTEST_FLAGS ?= -n auto

VERSIONS := 3.11 3.12 3.13
BIN := .venv/bin
SETUP := setup.cfg pyproject.toml
PIP := -m pip --disable-pip-version-check install --quiet
EXAMPLES := $(if $(wildcard examples/*.py),examples)

# A package path from outside would shadow what is installed in the environments.
unexport PYTHONPATH PYTHONHOME

.NOTPARALLEL:
.DELETE_ON_ERROR:
.SECONDARY:
.DEFAULT_GOAL := help

.PHONY: help demo test check check-rest format format-check lint types doctest diagrams drift \
	conformance crash linear cluster simulate soak fuzz bench bench-core bench-postgres \
	bench-scale bench-supervised profile test-all test-lowest wheel clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) \
	| while IFS='|' read -r name text; do printf '  %-14s %s\n' "$$name" "$$text"; done

# --- environments -----------------------------------------------------------------------------

.venv/made:
	@python="$(PYTHON)"; [ -n "$$python" ] || python=$$(.ci/find-python) || { \
		echo "make: no Python from 3.11 on with venv found; set PYTHON=/path/to/python" >&2; exit 1; }; \
	echo "making .venv with $$python"; \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: $$python is older than 3.11" >&2; exit 1; }; \
	"$$python" -m venv --clear .venv
	@touch $@

.venv/for-demo: .venv/made $(SETUP)
	@echo "installing session_fsm[cli,diagrams] into .venv"
	@$(BIN)/python $(PIP) --editable '.[cli,diagrams]'
	@touch $@

# Each wider set of packages has all of the narrower ones.
.venv/for-tests: .venv/made $(SETUP)
	@echo "installing session_fsm[suite] into .venv"
	@$(BIN)/python $(PIP) --editable '.[suite]'
	@touch .venv/for-demo $@

.venv/for-check: .venv/made $(SETUP)
	@echo "installing session_fsm[dev] into .venv"
	@$(BIN)/python $(PIP) --editable '.[dev]'
	@touch .venv/for-demo .venv/for-tests $@

.venv-3.%/for-tests: $(SETUP)
	@echo "installing session_fsm[suite] into $(@D)"
	@"$$(.ci/find-python 3.$*)" -m venv --clear $(@D)
	@$(@D)/bin/python $(PIP) --editable '.[suite]'
	@touch $@

.venv-bench/for-bench: .venv/made $(SETUP)
	@echo "installing session_fsm[bench] into .venv-bench"
	@$(BIN)/python -m venv --clear .venv-bench
	@.venv-bench/bin/python $(PIP) --editable '.[bench]'
	@touch $@

.venv-lowest/for-tests: .venv/made $(SETUP) .ci/lowest.py
	@echo "installing session_fsm[suite] at its lower bounds into $(@D)"
	@$(BIN)/python -m venv --clear $(@D)
	@$(BIN)/python .ci/lowest.py > $(@D)/constraints.txt
	@$(@D)/bin/python $(PIP) --constraint $(@D)/constraints.txt --editable '.[suite]'
	@touch $@

# --- the two commands to begin with -----------------------------------------------------------

demo: .venv/for-demo  ## replay the sample trace into a new SQLite file, draw the lifecycle with its counts
	@rm -rf build/demo && mkdir -p build/demo
	$(BIN)/session-fsm replay examples/sample_trace.jsonl.gz \
		--store sqlite:///build/demo/sessions.db --diagram build/demo/lifecycle.svg
	@test -s build/demo/lifecycle.svg
	@echo
	@echo "The sessions are in build/demo/sessions.db, the diagram with the counts is build/demo/lifecycle.svg"

# A row of a lifecycle that no test fires is red in build/rows/, and fails the run.
ROWS := -p session_fsm.testing.plugin --rows-strict --rows-skip-fired \
	--rows=session_fsm:SESSION_LIFECYCLE --rows=examples.agent:AGENT --rows=examples.order:ORDER \
	--rows-diagram='build/rows/{name}.svg'

test: .venv/for-tests  ## run the tests; warnings are errors; build/rows/ shows the rows they fired
	$(BIN)/python -m pytest $(PYTEST_FLAGS) $(ROWS)

# --- the checks -------------------------------------------------------------------------------

check: test check-rest  ## everything: tests, doctests, format, lint, types, drift of generated files

check-rest: format-check lint types doctest drift conformance  ## all of `make check` but the tests

format: .venv/for-check  ## rewrite the sources in the one format
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

format-check: .venv/for-check  ## fail where the format differs
	$(BIN)/ruff format --check .

lint: .venv/for-check  ## ruff
	$(BIN)/ruff check .

types: .venv/for-check  ## mypy strict, and pyright's rules
	$(BIN)/mypy session_fsm tests .ci $(EXAMPLES)
	$(BIN)/basedpyright --pythonpath $(BIN)/python

doctest: .venv/for-tests  ## run the examples in the docstrings
	$(BIN)/python -m pytest --doctest-modules session_fsm

diagrams: .venv/for-tests  ## make diagrams/ from the table, the certificate among them
	$(BIN)/python -m session_fsm.diagrams
	$(BIN)/python -m session_fsm.certify

drift: .venv/for-tests  ## fail when a file in diagrams/ is stale
	$(BIN)/python -m session_fsm.diagrams --check
	$(BIN)/python -m session_fsm.certify --check

conformance: .venv/for-tests  ## run the tests of transitions itself on our machine
	$(BIN)/python tests/conformance.py build/conformance

# --- what the tests do for a moment, done for minutes -----------------------------------------

crash: .venv/for-tests  ## kill whatever writes, at every step; CRASH='--rounds 20' for less
	$(BIN)/python -W error tests/crash.py $(CRASH)

linear: .venv/for-tests  ## eight processes, one file, one minute; LINEAR='--seconds 9' for less
	$(BIN)/python -W error tests/linear.py $(LINEAR)

cluster: .venv/for-tests  ## four processes on one PostgreSQL, killed, paused, cut off; CLUSTER='--seconds 9' for less
	$(BIN)/python -W error tests/cluster.py $(CLUSTER)

# SEED replays one of them, and tells its story: `make simulate SEED=7`.
SEEDS ?= 100000
simulate: .venv/for-tests  ## nodes, clocks, network and crashes under 100,000 seeds; SEED=7 replays one
	$(BIN)/python -W error tests/simulation.py \
		$(if $(filter command line environment,$(origin SEED)),--seed $(SEED),--seeds $(SEEDS))

soak: .venv/for-tests  ## two minutes of sessions that go wrong in every way; SOAK='--seconds 600' for more
	$(BIN)/python -W error tests/soak.py $(SOAK)

# INPUTS and SEED choose others: `make fuzz INPUTS=20000 SEED=2`.
INPUTS ?= 1000000
SEED ?= 1
fuzz: .venv/for-tests  ## give a million spoilt inputs to the readers; findings go to build/fuzz/
	$(BIN)/python -W error tests/fuzz.py --inputs $(INPUTS) --seed $(SEED)

# --- figures ----------------------------------------------------------------------------------

# Such as --quick, or --directory on the disk that is to be measured.
BENCH_FLAGS ?=

bench: .venv-bench/for-bench  ## measure durable moves and JSON beside peers; writes benchmarks/RESULTS.md
	.venv-bench/bin/python -m benchmarks.bench --output benchmarks/RESULTS.md $(BENCH_FLAGS)

bench-scale: .venv-bench/for-bench  ## measure 1,000 to 1,000,000 sessions; writes benchmarks/SCALE.md
	.venv-bench/bin/python -m benchmarks.scale --output benchmarks/SCALE.md \
		--plot benchmarks/scale.svg $(BENCH_FLAGS)

bench-postgres: .venv-bench/for-bench  ## measure moves on PostgreSQL beside peers; writes benchmarks/POSTGRES.md
	.venv-bench/bin/python -m benchmarks.postgres --output benchmarks/POSTGRES.md $(BENCH_FLAGS)

bench-supervised: .venv-bench/for-bench  ## measure 10,000 live supervised sessions; writes benchmarks/SUPERVISED.md
	.venv-bench/bin/python -m benchmarks.supervised --output benchmarks/SUPERVISED.md $(BENCH_FLAGS)

profile: .venv-bench/for-bench  ## measure what each part of a move costs; writes benchmarks/PROFILE.md
	.venv-bench/bin/python -m benchmarks.move_costs --output benchmarks/PROFILE.md $(BENCH_FLAGS)

bench-core: .venv-bench/for-bench  ## measure one step beside peers; writes benchmarks/CORE.md
	.venv-bench/bin/python benchmarks/core.py --output benchmarks/CORE.md

# --- other Pythons, other versions ------------------------------------------------------------

test-all:  ## run the tests on each of Python 3.11, 3.12 and 3.13 that is installed
	@ran=; missing=; failed=; \
	for version in $(VERSIONS); do \
		.ci/find-python $$version >/dev/null || { missing="$$missing $$version"; continue; }; \
		ran="$$ran $$version"; \
		echo "--- Python $$version"; \
		$(MAKE) --no-print-directory test-on-$$version || failed="$$failed $$version"; \
	done; \
	echo "test-all: ran on:$${ran:- none}; not installed:$${missing:- none}; failed:$${failed:- none}"; \
	[ -n "$$ran" ] && [ -z "$$failed" ]

test-on-3.%: .venv-3.%/for-tests
	.venv-3.$*/bin/python -m pytest $(PYTEST_FLAGS)

test-lowest: .venv-lowest/for-tests  ## run the tests on the lower bounds of setup.cfg
	.venv-lowest/bin/python -m pytest $(PYTEST_FLAGS)

# --- packing ----------------------------------------------------------------------------------

# The wheel is made from the source archive, so nothing left in build/ can get into it.
wheel: .venv/for-tests  ## build the source archive and the wheel into dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .

clean:  ## remove all that make and the tools made
	rm -rf .venv .venv-3.* .venv-lowest .venv-bench build dist session_fsm.egg-info \
		.hypothesis .mypy_cache .pytest_cache .ruff_cache
	find session_fsm tests examples .ci -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
