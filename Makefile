# Each of these sets up everything that it needs first; a second call starts at once.
#
#   make lab     open the workbook in JupyterLab (JUPYTER="--no-browser --port 9000" passes options on)
#   make test    run every check: lint, types, import directions, tests, every notebook, the browser

SHELL := /bin/sh
BIN := .venv/bin
JUPYTER ?=
PYTEST ?=

.DEFAULT_GOAL := help
.PHONY: help setup lab calculator test lint types imports pytest notebooks doctor pins clean

help: ## This list
	@echo "make lab     open the workbook in JupyterLab, on chapter 00"
	@echo "make test    run every check: lint, types, import directions, tests, every notebook, the browser"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / && $$1 != "lab" && $$1 != "test" {printf "make %-10s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "Settings: PYTHON=/path/to/python3.12  LABKIT_ENGINE=cpu|gpu|none  JUPYTER=\"...\"  PYTEST=\"...\""

setup: ## Make or renew .venv only
	@python=$$(sh setup/python.sh) && "$$python" setup/install.py

lab: setup
	@$(BIN)/labkit open $(JUPYTER)

calculator: setup ## Open the cost calculator as an app, for this machine only
	@$(BIN)/labkit calculator $(JUPYTER)

test: setup
	@sh setup/chromium.sh
	@$(MAKE) --no-print-directory lint types imports pytest

lint: setup ## Style of code and notebook sources (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## Types (mypy)
	$(BIN)/mypy labkit

imports: setup ## Which room may import which (import-linter)
	$(BIN)/lint-imports --no-logo

pytest: setup ## Tests, notebooks and browser only (PYTEST="tests/cost -x" for a part)
	$(BIN)/python tests/both.py $(PYTEST)

notebooks: setup ## Build the notebooks from their sources
	$(BIN)/labkit notebooks build

doctor: setup ## Check this machine, line by line
	@$(BIN)/labkit doctor

pins: setup ## Resolve requirements/*.in again (UPGRADE=--upgrade for newer versions)
	PATH="$$PWD/$(BIN):$$PATH" $(BIN)/python requirements/resolve.py $(UPGRADE)

clean: ## Remove .venv and everything built
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
