# Every target sets up what it needs, says so, and starts at once the second time.
#
#   PYTHON  the Python that makes the virtual environment
#   VENV    the environment to use; one of your own may be named, and what it holds is kept
#   D2      where detectron2 comes from when VENV has none: any pip requirement
#   TESTS   what test-lowest and test-newest run
PYTHON ?= python3
VENV ?= .venv
D2 ?= ./third_party/detectron2
TESTS ?= tests

PY := $(VENV)/bin/python
PIP := $(PY) -m pip -qq --disable-pip-version-check
RECIPE := $(wildcard setup.py pyproject.toml third_party/detectron2/*)
PYTEST := -m pytest -n 2 -q -m "not slow and not gpu and not site"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install hooks demo bench test test-slow test-numeric test-processors test-lowest test-newest coverage faults check docs site test-site clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/; s#\$$\(VENV\)#$(VENV)#' | expand -t 24
	@echo "Variables: PYTHON=$(PYTHON) VENV=$(VENV) D2=$(D2)"

install: $(VENV)/.detrex-test  ## set up $(VENV): torch, torchvision, detectron2, detrex, pytest
	@echo "== set-up: $(VENV) is ready"

hooks: $(VENV)/.detrex-dev  ## run what `make check` runs before each commit
	@$(PY) -m pre_commit install

demo: $(VENV)/.detrex-test  ## train two small detectors and draw what they find (15 minutes)
	@echo "== demo: two acts of training on this machine; pictures go to output/demo/"
	@$(PY) -W ignore::FutureWarning demo/run.py

bench: $(VENV)/.detrex-test $(VENV)/.detrex-bench  ## measure against other libraries, and write docs/benchmarks.md (10 minutes)
	@echo "== bench: keep this machine quiet; results go to benchmarks/results/"
	@$(PY) -W ignore -m benchmarks

test: $(VENV)/.detrex-test  ## run the tests (10 minutes)
	@echo "== test: two processes; slow and gpu tests are left out"
	@OMP_NUM_THREADS=1 $(PY) $(PYTEST)

test-slow: $(VENV)/.detrex-test $(VENV)/.detrex-notebooks  ## run the tests that take minutes each, notebooks among them (an hour)
	@OMP_NUM_THREADS=1 $(PY) -m pytest -q -m "slow and not gpu" --timeout 3600

coverage: $(VENV)/.detrex-test $(VENV)/.detrex-dev  ## run the tests and list the lines that none of them runs (15 minutes)
	@OMP_NUM_THREADS=1 $(PY) $(PYTEST) --cov --cov-report=term --cov-report=html:output/coverage
	@echo "== coverage: open output/coverage/index.html"

test-numeric: $(VENV)/.detrex-test  ## run the numeric part under this shell's ATEN_CPU_CAPABILITY and the like
	@$(PY) .ci/processors.py here

test-processors: $(VENV)/.detrex-test  ## run the numeric part as each kind of processor (an hour)
	@$(PY) .ci/processors.py

test-lowest: .venv-lowest/.detrex-test-lowest  ## run the tests with the lowest versions that pyproject.toml allows
	@$(call test-versions,.venv-lowest)

test-newest: .venv-newest/.detrex-test-newest  ## run the tests with the newest versions that there are
	@$(call test-versions,.venv-newest)

define test-versions
echo "== test: $(TESTS), with:" && $(1)/bin/python -m pip list --format=freeze | tr '\n' ' ' && echo && \
OMP_NUM_THREADS=1 $(1)/bin/python $(PYTEST) $(TESTS)
endef

faults: $(VENV)/.detrex-test  ## try what can go wrong, and write docs/faults.md (20 minutes)
	@echo "== faults: hostile files, broken input, kills; the status is 1 where one ends badly"
	@$(PY) -W ignore -m tests.faults --page

check: $(VENV)/.detrex-test $(VENV)/.detrex-dev  ## lint, format and types
	@echo "== check: ruff, mypy"
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

docs: $(VENV)/.detrex-test $(VENV)/.detrex-docs  ## build docs/_build/html; a warning is an error
	@echo "== docs: sphinx"
	@$(PY) -W ignore::FutureWarning -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "== docs: open docs/_build/html/index.html"

site: test-site  ## build these pages and test them; docs/_build/html can then be served by anything
	@echo "== site: docs/_build/html is a folder to copy where you like; every link in it is relative"

test-site: docs $(VENV)/.detrex-site  ## test the built pages, those with scripts in a Chromium where there is one
	@$(PY) -m pytest -q -rs -m site tests/site

clean:  ## remove what was built and the demo's output; $(VENV) and your runs stay
	rm -rf build dist output/demo docs/_build *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -not -path './.venv-*' -prune -exec rm -rf {} +

# One stamp for each extra of pyproject.toml that is installed; a changed recipe installs again.
$(VENV)/.detrex-%: $(RECIPE) | $(PY)
	@echo "== set-up: detrex[$*] into $(VENV); where torch is missing this takes minutes and 6 GB"
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip >/dev/null
	@$(PIP) install --editable ".[$*]"
	@if $(PY) -c 'import importlib.util as u, sys; sys.exit(u.find_spec("detectron2") is None)'; then \
		echo "== set-up: detectron2 is there and stays as it is"; \
	else \
		echo "== set-up: detectron2 from $(D2)"; \
		$(PIP) install --no-build-isolation "$(D2)"; \
	fi
	@touch $@

# The floors are those of the oldest Python for which all of them have wheels.
.venv-lowest/.detrex-test-lowest: $(RECIPE)
	@$(PYTHON) -c 'import sys; sys.version_info[:2] == (3, 11) or sys.exit("the lowest versions are those for Python 3.11: make test-lowest PYTHON=python3.11")'
	@$(call fresh-venv,.venv-lowest,lowest-direct)
	@touch $@

.venv-newest/.detrex-test-newest: $(RECIPE)
	@$(call fresh-venv,.venv-newest,highest)
	@touch $@

define fresh-venv
echo "== set-up: $(1), versions: $(2); this takes minutes and 6 GB" && \
$(PYTHON) -m venv --clear $(1) && \
$(1)/bin/python -m pip -qq --disable-pip-version-check install uv && \
$(1)/bin/uv pip install -q --python $(1)/bin/python --resolution $(2) --editable ".[test]" && \
$(1)/bin/python -m pip -qq --disable-pip-version-check install --no-build-isolation "$(D2)"
endef

$(PY):
	@echo "== set-up: virtual environment $(VENV)"
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 10) or sys.exit(f"detrex needs Python 3.10 or later, this is {v.major}.{v.minor}: make PYTHON=python3.12")'
	@$(PYTHON) -m venv "$(VENV)"
