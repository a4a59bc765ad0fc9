# The project's commands. Each first installs what it needs into .venv.
#
#   make demo      the main job: redshifts of real galaxies over four emulated Lambdas
#   make test      all tests
#   make lint      formatting, style, types, and the import contracts
#   make bench     the figures of the README's table, collectives compared with gloo and OpenMPI, a thousand ranks
#   make coverage  all tests again, with the branches that they cover, in subprocesses too
#   make mutants   small mistakes made in the pure modules, and how many of them the tests notice
#   make campaign  500 random programs on real ranks, most of them under a fault, and 500 worlds under the faults of
#                  docs/testing.md, with the seeds printed
#   make clean     remove everything that the other targets created
#
# WORKERS is the number of processes that run tests.
# BASE_IMAGE names the image with python3 that `make bench` builds containers on (default AWS's, which is pulled).
# PYTHON chooses the interpreter of a new .venv: make test PYTHON=python3.13

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# setuptools warns of every editable installation that it is one.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PACKAGES := rendezvous fmi_shim inference emulator
PARTITIONS := build/partitions
RESULTS := results
# One process more than the machine has processors: many tests wait.
WORKERS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))

.PHONY: demo test lint bench coverage mutants campaign clean

demo: $(VENV)/demo.stamp
	$(BIN)/python -m inference.partition --out $(PARTITIONS) --partitions 8
	$(BIN)/fmirun -n 4 --preload torch --data $(PARTITIONS) --results $(RESULTS) examples/cosmic_ai.py

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(addprefix --package ,$(PACKAGES))
	$(BIN)/lint-imports --config setup.cfg

bench: $(VENV)/dev.stamp
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.inference_speed --short
	$(BIN)/python -m benchmarks.rendezvous_load --scale 0.1
	$(BIN)/python -m benchmarks.object_store --short
	$(BIN)/python -m benchmarks.comparison --short
	$(BIN)/python -m benchmarks.thousand_ranks
	$(BIN)/python -m benchmarks.lambda_service --short
	$(BIN)/python -m benchmarks.step_functions --short
	$(BIN)/python -m benchmarks.worlds_of_tests --short
	$(BIN)/python -m benchmarks.containers --short $(if $(BASE_IMAGE),--base-image $(BASE_IMAGE))

coverage: $(VENV)/dev.stamp
	rm -f .coverage .coverage.*
	$(BIN)/python -m coverage run -m pytest --numprocesses $(WORKERS) --dist loadfile
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

campaign: $(VENV)/dev.stamp
	$(BIN)/python -m tests.campaign --worlds 500
	CHAOS_WORLDS=500 $(BIN)/python -m pytest -v tests/emulator/testing/test_chaos.py

mutants: $(VENV)/dev.stamp
	$(BIN)/python -m tests.mutants

clean:
	rm -rf $(VENV) .coverage .coverage.* build dist $(RESULTS) *.egg-info .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

$(VENV)/demo.stamp: $(VENV)/bin/python setup.cfg pyproject.toml constraints.txt
	@echo "installing into $(VENV); torch is large, this takes a minute or more"
	$(PIP) --editable '.[inference]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/bin/python setup.cfg pyproject.toml constraints.txt
	@echo "installing into $(VENV); torch is large, this takes a minute or more"
	$(PIP) --editable '.[inference,test,dev]'
	$(PIP) --no-deps timm
	@touch $@
