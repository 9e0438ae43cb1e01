# make demo    train on the embedded text, export, simulate in Lava, report parity
# make test    the whole test suite
# Both set up .venv themselves, with the versions of .ci/constraints.txt.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN ?= runs/demo

.PHONY: help setup demo test test-docs test-slow lint format bench docs fuzz soak test-second audit clean

help:
	@echo "make demo       train on the embedded text, export, simulate in Lava, report parity (about 5 minutes)"
	@echo "make test       run the test suite"
	@echo "make test-slow  run the tests that take minutes"
	@echo "make test-docs  run the tutorial, the how-to pages and the notebook, build the site; a corpus by a Ray cluster"
	@echo "make lint       ruff and mypy"
	@echo "make format     let ruff format and fix what it can"
	@echo "make bench      benchmarks, each behind its parity check"
	@echo "make fuzz       damage each kind of file: flipped bits, mutated bytes; COUNT inputs each (1000), EACH seconds at most"
	@echo "make soak       an hour of training and ten million calls, in flat memory; PIECE minutes of them, then given again"
	@echo "make test-second  the core suite on a second Python with numpy 2, where there is one"
	@echo "make audit      ask a database of known faults about the packages; needs network and pip-audit"
	@echo "make docs       the documentation as a site in build/site, without a warning"
	@echo "make setup      only create .venv"
	@echo "make clean      remove .venv and build output; runs/ stays"

setup: $(STAMP)

$(STAMP): pyproject.toml .ci/constraints.txt .ci/readers.txt
	@python=$$(.ci/find-python) && echo "setting up $(VENV) with $$python" && \
	    { [ -x $(BIN)/python ] && $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' || "$$python" -m venv --clear $(VENV); }
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --editable '.[lava,hf,stats,viz,scale,dev,docs]'
	$(BIN)/python -m pip install --quiet --no-deps --requirement .ci/readers.txt
	@touch $@

# The chain stops at the first command that fails, and its exit code is make's.
demo: $(STAMP)
	$(BIN)/python experiments/gtok.py --preset smoke --out $(RUN) --overwrite
	$(BIN)/speak-export --to nir --run $(RUN)
	$(BIN)/speak-sim parity --graph $(RUN)/boundary.nir --trace $(RUN)/trace.npz
	@echo "tokens of a line of your own:  echo 'a line of text' | $(BIN)/speak-tokenize --run $(RUN)"

# Compiled tests are kept from one run to the next, whatever the environment says: they load in two thirds of the time.
test: $(STAMP)
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-docs: $(STAMP)
	OMP_NUM_THREADS=1 NO_MKDOCS_2_WARNING=true $(BIN)/python -m pytest --timeout 3600 -m slow tests/test_docs_commands.py tests/experiments/test_tokenize_corpus.py

test-slow: $(STAMP)
	$(BIN)/python -m pytest --timeout 7200 -m slow

# mypy needs the folders export/ and sim/ at the place where they are imported from.
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/typecheck && mkdir -p build/typecheck
	cp -r speak_neuro build/typecheck/ && cp -r export sim build/typecheck/speak_neuro/
	cd build/typecheck && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p speak_neuro

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Each stops with exit code 1 before it times anything when results differ.
bench: $(STAMP)
	@for name in scan step tokenizer sim; do \
	    script=experiments/bench/$$name.py; [ -e $$script ] || continue; echo "== $$script"; \
	    $(BIN)/python $$script --json experiments/results/bench/bench_$$name.json || exit; \
	done
	$(BIN)/python experiments/bench/profile_step.py --json experiments/results/bench/profile_step.json
	$(BIN)/python experiments/bench/plot.py

# The reference is read from the sources at the names that they are imported by.
docs: $(STAMP)
	rm -rf build/typecheck && mkdir -p build/typecheck
	cp -r speak_neuro build/typecheck/ && cp -r export sim build/typecheck/speak_neuro/
	NO_MKDOCS_2_WARNING=true $(BIN)/python -m mkdocs build --strict
	@echo "open build/site/index.html"

COUNT ?= 1000
EACH ?= 100000

fuzz: $(STAMP)
	$(BIN)/python experiments/reliability/damage.py flips --count $(COUNT) --seconds $(EACH)
	$(BIN)/python experiments/reliability/damage.py fuzz --count $(COUNT) --seconds $(EACH)

# An hour of training and ten million calls; PIECE minutes of them, and the next piece when it is given once more.
PIECE ?= 100000

soak: $(STAMP)
	$(BIN)/python experiments/reliability/soak.py --work runs/soak --json runs/soak.json --piece $(PIECE)

test-second: $(STAMP)
	.ci/second-python

audit: $(STAMP)
	@$(BIN)/python -m pip_audit --version > /dev/null 2>&1 || { echo "make audit needs pip-audit: $(BIN)/python -m pip install pip-audit"; exit 3; }
	$(BIN)/python -m pip_audit --strict --requirement .ci/constraints.txt --no-deps --disable-pip

clean:
	rm -rf $(VENV) .venv-second build dist *.egg-info
