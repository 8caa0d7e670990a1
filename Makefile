# Everything runs in a virtual environment of its own, .venv; nothing is installed elsewhere
# but by `make system-deps` (root on Debian).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Most tests wait more than they compute.
JOBS ?= 4

.PHONY: demo test test-slurm-all test-slurm-faults lint cluster clean install system-deps system-deps-24

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("saia needs Python 3.11 or newer; try: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing saia and its dependencies into $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: install
	@$(BIN)/saia-tui --demo

# The same with a night's trouble in it, to practise on: docs/tui.md says what to find.
.PHONY: drill
drill: install
	@$(BIN)/saia-tui --drill

# The screens in docs/tui.md, drawn by the program from a demo that is left to itself for a while.
.PHONY: pictures
pictures: install
	@$(BIN)/python -m saia_tui.picture --demo --watch 75 --columns 120 --lines 34 --all docs/images/tui

system-deps:
	@tests/system_deps

# A second Slurm, 24.11, for the tests of its dialect; nothing of it is installed.
system-deps-24: system-deps
	@tests/system_deps_24

test: install system-deps system-deps-24
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

# The proxy by the clients of LangChain and LlamaIndex, in an environment of their own: they bring much along.
CLIENTS := .venv-clients
.PHONY: test-clients
test-clients:
	@test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	@$(CLIENTS)/bin/python -m pip install --quiet -e '.[dev]' langchain-openai llama-index-llms-openai-like
	@$(CLIENTS)/bin/python -m pytest tests/unit/test_openai_client.py -rs $(PYTEST_ARGS)

# Everything that meets a real Slurm, on each version.
test-slurm-all: install system-deps system-deps-24
	@for version in native 24.11; do \
		echo "real Slurm: $$version"; \
		SAIA_SLURM=$$version $(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m real_slurm $(PYTEST_ARGS) \
			|| exit; \
	done

# Faults on real Slurm, N of each, on clusters side by side: doubled jobs and lost requests, counted.
N ?= 20
test-slurm-faults: install system-deps system-deps-24
	@$(BIN)/python -m tests.scenarios.faults --count $(N)

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports

# Our path beside others to the same service: direct, nginx and ssh -L, LiteLLM, one ssh exec a request.
.PHONY: bench
bench: install
	@tests/system_deps bench
	@$(BIN)/python -m bench.run --chart docs/images/bench.svg $(BENCH_ARGS)

# Harmed bytes for all that reads bytes from another host; prints the command that repeats a failure.
.PHONY: fuzz
FUZZ_SEED ?= 1
FUZZ_SECONDS ?= 60
fuzz: install
	@$(BIN)/python -m tests.fuzz.wire --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)

# Strings that a stranger may choose, on all that shows them; prints the seed and number of a failure, and stops after
# HOSTILE_SECONDS.
.PHONY: test-hostile
HOSTILE_EXAMPLES ?= 1000000
HOSTILE_SECONDS ?= 7200
HOSTILE_SEED ?= 1
test-hostile: install
	@$(BIN)/python -m tests.tui.hostile --examples $(HOSTILE_EXAMPLES) --seconds $(HOSTILE_SECONDS) --seed $(HOSTILE_SEED)

# Gate, sshd connection, engine, instance and proxy worker killed under load, KILLS of each; exits with 1 where a
# promise is broken.
.PHONY: bench-kills
KILLS ?= 20
bench-kills: install
	@$(BIN)/python -m bench.kills --count $(KILLS) $(BENCH_ARGS)

# How long after its client a request goes on at the service.
.PHONY: bench-cancel
bench-cancel: install
	@tests/system_deps bench
	@$(BIN)/python -m bench.cancel $(BENCH_ARGS)

# What the record of the state costs the engine, and a seek in it the screen.
.PHONY: bench-record
bench-record: install
	@$(BIN)/python -m bench.record

.PHONY: bench-tick
bench-tick: install
	@$(BIN)/python -m bench.tick

# Long lists on the operator's screen, from squeue's rows to a terminal; exits with 1 where a target is missed.
.PHONY: bench-screen
bench-screen: install
	@$(BIN)/python -m bench.screen.run $(BENCH_ARGS)

# The engine in virtual time against a cluster that fails at random; exits with 1 where a promise is broken.
.PHONY: sim sim-long sim-crashes sim-planted
SIM_SEED ?= 1
sim: install
	@$(BIN)/saia-engine simulate --hours 500 --seeds 20 --seed $(SIM_SEED) --json

# A night's run. It keeps what is finished in SIM_FILE: called again, it goes on from there.
SIM_FILE ?= sim-long.jsonl
SIM_LONG_SEED ?= 1000
sim-long: install
	@$(BIN)/saia-engine simulate --hours 100000 --seeds 2000 --seed $(SIM_LONG_SEED) --json --resume $(SIM_FILE)

# kill -9 at each boundary of an effect in a whole hand-over, singly and in pairs.
sim-crashes: install
	@$(BIN)/python -m tests.simulation.crashes --pairs

# Bugs planted on purpose, and how long random faults take to show each. It goes on from PLANTED_FILE.
PLANTED_FILE ?= sim-planted.jsonl
sim-planted: install
	@$(BIN)/python -m tests.simulation.planted.hunt --resume $(PLANTED_FILE)

cluster: install system-deps
	@$(BIN)/python -m tests.slurm.cluster

clean:
	rm -rf $(VENV) build dist *.egg-info
