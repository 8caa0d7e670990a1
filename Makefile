# Everything runs in a virtual environment of its own, .venv; nothing is installed elsewhere
# but by `make system-deps` (root on Debian).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Most tests wait more than they compute.
JOBS ?= 4

.PHONY: demo test lint bench-tick cluster clean install system-deps

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("saia needs Python 3.11 or newer; try: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing saia and its dependencies into $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: install
	@$(BIN)/saia-tui --demo

system-deps:
	@tests/system_deps

test: install system-deps
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports

bench-tick: install
	@$(BIN)/python -m bench.tick

cluster: install system-deps
	@$(BIN)/python -m tests.slurm.cluster

clean:
	rm -rf $(VENV) build dist *.egg-info
