# Every target works from a clean clone: the first one that needs it creates .venv and installs the project.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := core cli client crawl sandbox discovery registry adapters api migrations data
export LORADAR_HOME ?= $(CURDIR)/.cache/home
export HF_HUB_OFFLINE := 1

.DEFAULT_GOAL := menu
.PHONY: menu site chromium screenshots demo data-package docs test lint types unit serve catalog names audit matrix bench fuzz soak release-check example placement clean

## Use
# PASSIVE: beside other programs, threads of torch that spin while they wait take five times the processor time.
demo: $(VENV)/.installed  ## scan an unregistered architecture, serve it, look it up, train an adapter on it
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python docs/scripts/demo.py

serve: $(VENV)/.installed  ## serve the registry over REST on port 8000
	$(BIN)/loradar serve

# As in CI, a warning is an error: a broken link, a page without a place in the menu, a docstring that does not parse.
docs: $(VENV)/.installed  ## build the documentation site in .cache/docs and serve it on port 8001
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -q -c docs/site -d .cache/docs/doctrees docs .cache/docs/html
	$(BIN)/python -m http.server 8001 --bind 127.0.0.1 --directory .cache/docs/html

# For a CDN, or to open from the folder: .cache/site/index.html
site: $(VENV)/.installed  ## write the pages of all architectures as files into .cache/site
	$(BIN)/loradar export site .cache/site $(if $(SERVICE),--service $(SERVICE))

## Check
test: lint types unit  ## run everything that CI runs

lint: $(VENV)/.installed  ## style (ruff), complexity (complexipy) and import directions (import-linter)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/complexipy --quiet
	@rm -rf .cache/imports && mkdir -p .cache/imports && cp -r core .cache/imports/loradar
	@cp -r $(filter-out core,$(PACKAGES)) .cache/imports/loradar/
	PYTHONPATH=.cache/imports $(BIN)/lint-imports --no-cache

# mypy and import-linter cannot follow an editable install, so both read a copy of the folders laid out as installed.
types: $(VENV)/.installed  ## run mypy in strict mode
	@rm -rf .cache/types && mkdir -p .cache/types/loradar
	@for entry in core/*; do ln -s $(CURDIR)/$$entry .cache/types/loradar/; done
	@for folder in $(filter-out core,$(PACKAGES)); do ln -s $(CURDIR)/$$folder .cache/types/loradar/$$folder; done
	MYPYPATH=.cache/types $(BIN)/mypy --cache-dir .cache/mypy -p loradar

# The tests in tests/browser need Chromium; without it they are skipped, and with CI=true they fail.
chromium:
	@command -v chromium >/dev/null || test -n "$$LORADAR_CHROMIUM" \
	|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -qq --yes chromium; } >/dev/null 2>&1 \
	|| echo "Chromium is not installed, and cannot be by this user: the tests in a browser cannot run."

# Three workers keep two cores busy while tests wait for servers and workers of their own.
# --no-loadscope-reorder: sorted by number of tests, the files with one long test would all run last, in one worker.
unit: $(VENV)/.installed chromium  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder $(if $(CI),--randomly-seed=2026)

## Build
# Of the catalog alone: the developer's own registry may have more.
CATALOG_DATE ?= $(shell git log -1 --format=%cd --date=format:%Y.%-m.%-d -- data/catalog data/make_ups data/versions data/constants)
data-package: $(VENV)/.installed  ## build the wheel loradar-data: the answers as JSON, for tools that want no service
	@rm -rf .cache/data-package .cache/data-home && mkdir -p .cache && cp -r data-package .cache/data-package
	LORADAR_HOME=$(CURDIR)/.cache/data-home $(BIN)/python -P -m loradar.registry.answers.data_writing .cache/data-package $(CATALOG_DATE)
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .cache/data-package

## Measure
# FORCE=1 scans everything again, as after a change of the scanner.
catalog: $(VENV)/.installed  ## scan and prove what is new in the installed libraries into data/catalog; resume if interrupted
	$(BIN)/loradar catalog update $(if $(FORCE),--force)
	$(BIN)/python -P -m loradar.registry.packing data/registry.sqlite3

names: $(VENV)/.installed  ## write data/names: the classes, checkpoints and tags that the installed libraries name
	$(BIN)/python docs/scripts/known_names.py

# A new registry: the developer's own may hold mappings that are not in the catalog.
audit: $(VENV)/.installed  ## write docs/evidence/peft-audit.md from the catalog: the defects of PEFT's tables
	@rm -rf .cache/audit
	LORADAR_HOME=.cache/audit $(BIN)/loradar audit --source peft --markdown docs/evidence/peft-audit.md

matrix: $(VENV)/.installed  ## write docs/evidence/support-matrix.md and its picture from data/catalog
	$(BIN)/python docs/scripts/support_matrix.py

# accelerator.py needs a GPU and is run by hand, placement.py an hour, crawl_cluster.py and crawl_kills.py minutes. arms.py and crawl_hub.py are code that benches share.
bench: $(VENV)/.installed  ## measure ratios to the alternatives, each within one run
	for script in $(filter-out bench/accelerator.py bench/arms.py bench/crawl_cluster.py bench/crawl_hub.py bench/crawl_kills.py $(wildcard bench/placement*.py),$(wildcard bench/*.py)); do $(BIN)/python $$script || exit 1; done

# Goes on where it was interrupted; delete bench/results/placement.jsonl to start again.
placement: $(VENV)/.installed  ## train adapters at every placement, about an hour on one core, and write its page and data/placement.json
	OMP_NUM_THREADS=1 $(BIN)/python bench/placement.py
	$(BIN)/python bench/placement_page.py

# EXAMPLES is the number per operation and phase; 12 are over 3,000 requests and take two minutes on idle cores.
# One worker: hypothesis parses sources in threads, which Python 3.11 ends with "AST constructor recursion depth mismatch".
EXAMPLES ?= 40
fuzz: $(VENV)/.installed  ## send thousands of requests generated from /openapi.json, and check every response against it
	$(BIN)/python tests/fuzz_api.py --max-examples $(EXAMPLES) --workers 1

screenshots: $(VENV)/.installed chromium  ## write a picture of every page, light, dark and on a phone, to .cache/screenshots
	OMP_NUM_THREADS=1 $(BIN)/python tests/browser/screenshots.py .cache/screenshots

example: $(VENV)/.installed  ## repeat the training of docs/evidence/worked-example.md, about six minutes on one core
	OMP_NUM_THREADS=1 $(BIN)/python docs/scripts/worked_example.py

## Clean up
soak: $(VENV)/.installed  ## let writers write to a service that is killed 20 times, on a full disk, and so on; look for lost writes
	$(BIN)/python tests/soak.py
	$(BIN)/python tests/soak_faults.py

# A network is needed: the build installs setuptools into an environment of its own.
release-check: $(VENV)/.installed  ## build what is published into dist/, check it, and write its digests
	$(BIN)/python docs/scripts/release_check.py

clean:  ## remove all files created by make
	rm -rf $(VENV) .cache build dist *.egg-info

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all,dev]'
	touch $@

menu:
	@awk '/^## /{printf "\n%s\n", substr($$0, 4)} /^[a-z-]+:.*  ## /{split($$0, p, ":.*  ## "); printf "  make %-12s %s\n", p[1], p[2]}' Makefile
