# Every target works from a clean clone: the first one that needs it makes .venv and installs the project.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := core cli client sandbox discovery registry adapters api migrations data
export LORADAR_HOME ?= $(CURDIR)/.cache/home
export HF_HUB_OFFLINE := 1

.DEFAULT_GOAL := menu
.PHONY: menu demo test lint types unit serve catalog audit matrix bench fuzz example clean

## Use
demo: $(VENV)/.installed  ## scan an unregistered architecture, serve it, look it up, train an adapter on it
	$(BIN)/python docs/demo.py

serve: $(VENV)/.installed  ## serve the registry over REST on port 8000
	$(BIN)/loradar serve

## Prove
test: lint types unit  ## everything CI runs

lint: $(VENV)/.installed  ## ruff, complexipy and import-linter: style, complexity, which way imports point
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/complexipy --quiet
	@rm -rf .cache/imports && mkdir -p .cache/imports && cp -r core .cache/imports/loradar
	@cp -r $(filter-out core,$(PACKAGES)) .cache/imports/loradar/
	PYTHONPATH=.cache/imports $(BIN)/lint-imports --no-cache

# An editable install hides its modules from mypy and import-linter: they read a tree laid out as it is installed.
types: $(VENV)/.installed  ## mypy, strict
	@rm -rf .cache/types && mkdir -p .cache/types/loradar
	@for entry in core/*; do ln -s $(CURDIR)/$$entry .cache/types/loradar/; done
	@for folder in $(filter-out core,$(PACKAGES)); do ln -s $(CURDIR)/$$folder .cache/types/loradar/$$folder; done
	MYPYPATH=.cache/types $(BIN)/mypy --cache-dir .cache/mypy -p loradar

# In the order in which they come: by their number, files of one long test would all come last, to one worker.
unit: $(VENV)/.installed  ## the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(if $(CI),--randomly-seed=2026)

## Measure
catalog: $(VENV)/.installed  ## scan and prove every architecture of every library into data/catalog; go on if interrupted
	mkdir -p data/catalog
	for library in transformers timm diffusers; do \
		$(BIN)/loradar scan --all $$library --prove --compact --memory 3 --out data/catalog/$$library.jsonl || exit 1; done

# A registry of its own: what somebody stored in theirs is not in the catalog.
audit: $(VENV)/.installed  ## write docs/peft-audit.md from the catalog: what is wrong with PEFT's tables
	@rm -rf .cache/audit
	LORADAR_HOME=.cache/audit $(BIN)/loradar audit --source peft --markdown docs/peft-audit.md

matrix: $(VENV)/.installed  ## write docs/support-matrix.md and its picture from data/catalog
	$(BIN)/python docs/support_matrix.py

# accelerator.py wants a GPU: it is run by hand. arms.py is what the others share.
bench: $(VENV)/.installed  ## ratios against the alternatives, in one run each
	for script in $(filter-out bench/accelerator.py bench/arms.py,$(wildcard bench/*.py)); do $(BIN)/python $$script || exit 1; done

# EXAMPLES of each operation and phase: 80 make more than 5,000 requests in about ten minutes.
EXAMPLES ?= 130
fuzz: $(VENV)/.installed  ## thousands of requests from the service's own description, each answer held to it
	$(BIN)/python tests/fuzz_api.py --max-examples $(EXAMPLES) --workers 2

example: $(VENV)/.installed  ## train docs/worked-example.md again, about six minutes of one core
	OMP_NUM_THREADS=1 $(BIN)/python docs/worked_example.py

## Keep house
clean:  ## remove everything make made
	rm -rf $(VENV) .cache build dist *.egg-info

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all,dev]'
	touch $@

menu:
	@awk '/^## /{printf "\n%s\n", substr($$0, 4)} /^[a-z]+:.*  ## /{split($$0, p, ":.*  ## "); printf "  make %-9s %s\n", p[1], p[2]}' Makefile
