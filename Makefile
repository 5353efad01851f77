# The commands of the workbench.  `make charts` is the first to try; it sets everything up by itself.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: charts test lab lint format accuracy screenshots clean help

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[lab,test,xisf,dev]'
	@touch $@

charts: $(READY)  ## measure the sample frames' sensor and draw the blog's charts into charts/
	$(BIN)/workbench charts --out charts

test: $(READY)  ## run every test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2

lab: $(READY)  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --notebook-dir=notebooks

lint: $(READY)  ## check the style
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(READY)  ## put the style right
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean:  ## remove what the other commands made
	rm -rf charts data-samples/generated data-samples/.generated* .pytest_cache .ruff_cache
