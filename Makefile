# make demo | demo-real | test | check | docs | bench | clean. Needs make and Python 3.11 or 3.12, nothing else.
PYTHON ?= $(shell for python in python3.11 python3.12 python3 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
SOURCES := bundle custom_transforms docs scripts tests

.PHONY: demo demo-real test check docs format bench clean
.DELETE_ON_ERROR:

demo: .venv/.runtime  ## find the particles of a simulated tomogram with the shipped weights
	$(BIN)/python -m scripts demo

demo-real: .venv/.runtime  ## train on simulated particles, detect those of a real tomogram
	$(BIN)/python -m scripts demo_real

test: .venv/.development  ## all tests, doctests and the slow ones included, in two processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile

check: .venv/.development  ## format, lint, types, and the site with its links
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(MAKE) --no-print-directory docs

docs: .venv/.development  ## the site, into .cache/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file docs/mkdocs.yml
	@echo .cache/site/index.html

format: .venv/.development
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

bench: .venv/.development  ## speed and memory, as a table of ratios
	$(BIN)/python -m tests.benchmarks

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.runtime: requirements.txt
	@test -n "$(PYTHON)" || { echo "error: expected Python 3.11 or 3.12 on the PATH, found neither. Install one, or: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	touch $@

.venv/.development: .venv/.runtime tests/requirements.txt docs/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt -r docs/requirements.txt
	touch $@
