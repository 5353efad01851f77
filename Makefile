# The commands of the workbench.  `make charts` is the first to try; it sets everything up by itself.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: app blog browser charts test torture lab lint format screenshots site clean help

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[lab,test,site,units,xisf,zarr,dev]'
	@echo "compiling the loops for this machine (a minute or two)"
	$(BIN)/workbench compile
	@touch $@

charts: $(READY)  ## measure the sample frames' sensor and draw the blog's charts into charts/
	$(BIN)/workbench charts --out charts

blog: $(READY)  ## the blog's chapters with their charts, into charts/blog/; FRAMES=FOLDER for your own frames
	$(BIN)/workbench charts --out charts $(if $(FRAMES),--frames $(FRAMES))
	$(BIN)/python docs/blog.py charts

test: $(READY)  ## run every test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist worksteal

torture: $(READY)  ## the tests of bad folders and faults, with many more of them
	WORKBENCH_TORTURE=400 $(BIN)/python -m pytest -n 2 tests/pipelines/test_faults.py tests/pipelines/test_kills.py

lab: $(READY)  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --notebook-dir=notebooks

app: $(READY)  ## open the app in a browser
	$(BIN)/workbench app

browser: $(READY)  ## every control of every notebook in a real browser: narrow, dark, with a busy kernel, no network (chromium)
	WORKBENCH_EVERY_CONTROL=1 $(BIN)/python -m pytest tests/browser

screenshots: $(READY)  ## pictures of every notebook, the app and the charts' index, into screenshots/ (needs chromium)
	$(BIN)/python -m tests.browser.screenshots screenshots

site: $(READY)  ## build the site from the samples, without a network: site/index.html
	$(BIN)/python docs/build_site.py site

lint: $(READY)  ## check the style and the types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(READY)  ## put the style right
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean:  ## remove what the other commands made
	rm -rf build charts screenshots site notebooks/measured data-samples/generated* data-samples/.generated* .pytest_cache .ruff_cache
