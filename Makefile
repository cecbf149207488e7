# kvmbox: everything a contributor or CI needs. `make help` lists the targets.
#
# The virtual environment is set up on first use and again when its inputs change, so that
# `make run` and `make test` work on a fresh machine with python3, make and a C compiler.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.kvmbox-installed
# Where PYTHONDONTWRITEBYTECODE is set, each start would compile the package anew: 40 ms. A source that is newer than
# its bytecode is merely compiled in memory, so what is run without make is slower, never wrong. The bundle: 10 ms.
BYTECODE := $(VENV)/.kvmbox-bytecode
# The compiled hot path; without it, or with KVMBOX_PURE=1, kvmbox is slower, and does the same.
COMPILED := $(VENV)/.kvmbox-compiled
LAUNCHER := $(wildcard launcher/*.c launcher/*.h launcher/*-python) launcher/Makefile
# pytest keeps the tests with their assertions rewritten, even where no other bytecode is written: 12 s a run.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest
# .ci/run sets PYTEST_ARGS=--require-kvm where /dev/kvm exists.
PYTEST_ARGS ?=
# Tests at a time: most of them wait for processes. `auto` is three for each CPU; 0 runs all in one process.
JOBS     ?= auto
PARALLEL := -n $(JOBS) --dist worksteal -q

.DEFAULT_GOAL := help
# What a target needs that runs kvmbox.
READY := $(BYTECODE) $(COMPILED) guests

.PHONY: help man run quick test test-all explore test-devmode test-svm check budgets docs-figures generated docs chaos fuzz fuzz-sanitized planted reach lint format types guests clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

$(STAMP): pyproject.toml hatch_build.py tools/make-venv.sh $(LAUNCHER)
	PYTHON="$(PYTHON)" tools/make-venv.sh "$(VENV)"
	@touch $@

$(BYTECODE): $(STAMP) tools/bundle_bytecode.py $(shell find kvmbox -name '*.py')
	@$(BIN)/python -m compileall -q kvmbox
	@$(BIN)/python tools/bundle_bytecode.py
	@touch $@

$(COMPILED): $(STAMP) tools/build_accelerator.py $(wildcard kvmbox/*/*.pyx kvmbox/*/*.pxi kvmbox/*/*.h)
	@$(BIN)/python tools/build_accelerator.py || true
	@touch $@

guests: ## build the bundled guests into kvmbox/guest_images
	@$(MAKE) --no-print-directory -C guests

run: $(READY) ## set up everything, then boot the clock guest on /dev/kvm
	$(BIN)/kvmbox run clock

# What one runs while writing: tests/support/quick.py selects. They wait for nothing: one at a time for each CPU.
quick: $(READY) ## run the tests that start nothing, and those of changed files
	$(PYTEST) $(PARALLEL) -n $(or $(filter-out auto,$(JOBS)),logical) $(PYTEST_ARGS) --quick

test: $(READY) ## set up everything, then run the tests that each commit passes
	$(PYTEST) $(PARALLEL) $(PYTEST_ARGS) -m "not thorough"

test-all: $(READY) ## run all tests
	$(PYTEST) $(PARALLEL) $(PYTEST_ARGS)

# Each property anew, with examples that nobody has seen. What fails says its seed: SEED=… runs that one again.
SEEDS ?= 1
SEED  ?=
explore: $(READY) ## run the tests that use hypothesis with SEEDS (1) random seeds, or with SEED
	@failed=; for seed in $(or $(SEED),$$(shuf -i 0-4294967295 -n $(SEEDS))); do echo "seed $$seed"; \
		$(PYTEST) $(PARALLEL) $(PYTEST_ARGS) -m hypothesis --hypothesis-profile explore --hypothesis-seed $$seed || \
		failed="$$failed $$seed"; done; test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

# Which tests (pytest's arguments; a selection of ten minutes where none are given), and options of the machine.
TESTS ?=
LAB   ?=
test-svm: $(READY) ## run tests (TESTS=…) in an emulated machine with AMD-V (LAB='--vary user', LAB=--help)
	@$(BIN)/python -m tests.foreign.fetch
	$(BIN)/python -m tests.lab $(LAB) -- $(TESTS)

# CI images set it: it installs handlers from C, checks allocations, and tells of what is left open.
test-devmode: $(READY) ## run the tests of runs once more, under PYTHONDEVMODE=1
	PYTHONDEVMODE=1 $(PYTEST) $(PARALLEL) -m "not thorough" $(PYTEST_ARGS) $(wildcard tests/integration/test_run_*.py)

FAULTS ?= 1000
chaos: $(READY) ## hit device processes FAULTS times (1000) while guests run
	KVMBOX_CHAOS_FAULTS=$(FAULTS) $(PYTEST) $(PYTEST_ARGS) tests/chaos

SECONDS_EACH ?= 60
fuzz: $(BYTECODE) $(COMPILED) ## fuzz each target for SECONDS_EACH (60) of CPU time, led by the branches it takes
	$(BIN)/python -m tests.fuzz.run --seconds $(SECONDS_EACH) $(SEED:%=--seed %)
	$(BIN)/python -m tests.fuzz.taken_over --frames $$(( $(SECONDS_EACH) * 1000 )) $(SEED:%=--seed %)

fuzz-sanitized: $(COMPILED) ## the same of the compiled halves, built with ASan and UBSan in build/sanitized
	tools/fuzz_sanitized.sh $(BIN) $(SECONDS_EACH) $(SEED:%=--seed %)

planted: $(READY) ## plant bugs of other device models one by one; who is hurt, who finds them: docs/reach.md
	$(BIN)/python -m tools.planted --page

reach: $(READY) ## measure what a taken-over device reaches here and in QEMU: docs/reach.md
	$(BIN)/python -m tools.reach --page

lint: $(STAMP) ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## mypy --strict
	$(BIN)/mypy

check: lint types test-all test-devmode ## all that CI runs

budgets: $(STAMP) ## print what is more complex than CONTRIBUTING.md allows, the code lines of each folder, and the sums
	$(BIN)/python -m tools.budgets

# It measures nothing: FILE=… is another file that `kvmbox bench --json` wrote.
FILE ?=
docs-figures: $(STAMP) ## write the tables of pages from docs/performance.json (or FILE) and other data
	$(BIN)/python -m tools.generate_figures $(FILE)

generated: $(STAMP) ## write what follows from the table of options and from folders
	$(BIN)/python tools/generate_options.py
	$(BIN)/python tools/generate_folders.py

docs: $(STAMP) ## write the documentation site to build/site
	$(BIN)/sphinx-build -q -W --keep-going -c docs -b html . build/site
	@echo "build/site/index.html"

man: $(STAMP) ## write the manual pages to build/man
	$(BIN)/python tools/man_pages.py build/man

clean: ## remove what the build made
	rm -rf $(VENV) kvmbox/*/*.so kvmbox/bytecode.*.bin kvmbox/guest_images guests/build launcher/build build .mypy_cache .ruff_cache .pytest_cache .hypothesis .lab dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
