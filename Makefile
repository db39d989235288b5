# make demo    train, evaluate and report on built-in images
# make test    the test suite
# make check   lint, types and the layers contract
# Needs Python 3.11 or newer and make; everything else goes into .venv. PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check clean

demo: .venv/core.stamp
	$(BIN)/compressl demo

test: .venv/dev.stamp
	$(BIN)/pytest -n auto

check: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv runs/demo

.venv/core.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "compressl needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

.venv/dev.stamp: .venv/core.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@
