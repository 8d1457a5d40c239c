# Every target does all it needs on a fresh machine; no other command has to be run first.
.PHONY: quickstart test test-full check fix docs mutation setup sandbox
BIN := .venv/bin
RUN ?= runs/quickstart-$(shell date +%Y%m%d-%H%M%S)

quickstart: setup  ## train a small model from scratch to verified accuracy, in minutes, on a CPU
	$(BIN)/reasoner train quickstart output=$(RUN)
	@echo "to continue:  source .venv/bin/activate && reasoner report $(RUN)"

test: check sandbox  ## all that CI runs: format, lint, types, unit tests, integration tests
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "integration and not slow"
	@echo "all passed; to use it:  source .venv/bin/activate"

test-full: check sandbox  ## everything, including slow tests: kills, soaks, learning
	$(BIN)/python -m pytest -q -m "integration or slow"

check: setup  ## format, lint, types, unit tests
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .
	$(BIN)/pyright
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

fix: setup  ## format, and apply automatic fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup  ## the documentation site in site/, every link checked; `make docs SERVE=1` shows it while you write
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs $(if $(SERVE),serve,build)

mutation: setup  ## mutation score of the numerics, or of MODULES="path ..."; lists what no unit test finds
	@$(BIN)/python -m pip install --quiet cosmic-ray==8.7.0
	$(BIN)/python benchmarks/mutation.py $(MODULES)

setup:
	@tools/setup.sh

sandbox: setup
	@if [ -x tools/start-docker.sh ]; then tools/start-docker.sh; fi
