# One word each. `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin

help:  ## list what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

train: .venv/.installed  ## train on the digits that come with the package; ARGS="--help" shows the options
	$(BIN)/hwnn-train $(ARGS)

test: .venv/.installed-dev  ## run every test: each cell of the notebooks, and tests/
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

bench: .venv/.installed-dev  ## measure against PyTorch, which has to be installed, and write benchmarks/results.json; ARGS="--quick --only conv"
	$(BIN)/python benchmarks/run.py $(ARGS)

export: .venv/.installed-dev  ## write hwnn/ and README.md from the notebooks
	$(BIN)/nbdev-export
	$(BIN)/python tools/readme.py

notebooks: .venv/.installed-dev  ## export, execute and clean the notebooks; ARGS="nbs/layers/activations.ipynb" takes one
	$(BIN)/python tools/notebooks.py $(ARGS)

site: .venv/.installed-dev  ## build the website into _docs/; STUDENT=1 leaves out solutions
	$(BIN)/python tools/build_site.py

preview: .venv/.installed-dev  ## serve the website, build it again when a notebook changes, and reload the page
	$(BIN)/python tools/build_site.py --preview

lab: .venv/.installed-dev  ## open the notebooks in JupyterLab
	$(BIN)/pip install -q -e '.[lab]'
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) nbs   # a container's only user is root

shake: .venv/.installed-dev  ## run pages and tests under other seeds, processors and thread counts; ARGS="--quick"
	$(BIN)/python tools/shake.py $(ARGS)

versions: .venv/.installed-dev  ## run the tests with the oldest and the newest versions that settings.ini allows, on each Python there is
	$(BIN)/pip install -q uv
	$(BIN)/python tools/versions.py $(ARGS)

clean:  ## remove the environment and everything that is built
	rm -rf .venv _docs _proc _site_src build dist *.egg-info

# A stamp is newer than the files it depends on once what they ask for is installed, so a second call is quick.
$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/.installed: settings.ini setup.py pyproject.toml | $(BIN)/python
	$(BIN)/pip install -q -e .
	touch $@

.venv/.installed-dev: settings.ini setup.py pyproject.toml | $(BIN)/python
	$(BIN)/pip install -q -e '.[dev]'
	touch $@ .venv/.installed

.PHONY: help train test bench export notebooks site preview lab shake versions clean
