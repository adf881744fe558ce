# make demo: install, make demo data, train, show.   make test: every notebook and every test.   make help: the rest.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# LOCKED=1: the versions that were tested (requirements.lock); LOCKED=0: the newest that settings.ini allows; LOCKED=lowest: the lowest
LOCKED ?= 1
ifeq ($(LOCKED),0)
INSTALLED := $(VENV)/.installed-newest
PIP_INSTALL = $(BIN)/python -m pip install --quiet --upgrade --upgrade-strategy eager "setuptools<81"
else ifeq ($(LOCKED),lowest)
INSTALLED := $(VENV)/.installed-lowest
PIP_INSTALL = $(BIN)/python -m pip install --quiet --constraint $(VENV)/lowest.txt
# uv resolves: the lowest version of what settings.ini names, and for what that in turn needs the newest that goes with it
RESOLVE_LOWEST = $(BIN)/python -m pip install --quiet uv && sed -n 's/^\(onnx_\|geo_\|dev_\|\)requirements = //p' settings.ini | tr ' ' '\n' \
 | $(BIN)/uv pip compile --quiet --resolution lowest-direct --python $(BIN)/python --no-annotate --no-header - | grep -v '^setuptools==' > $(VENV)/lowest.txt
else
INSTALLED := $(VENV)/.installed
PIP_INSTALL = $(BIN)/python -m pip install --quiet --constraint requirements.lock
endif
export MPLBACKEND ?= agg
export PATH := $(abspath $(BIN)):$(PATH)
export TOKENIZERS_PARALLELISM = false
SHELL := /bin/bash
SAY_SKIPPED = if [ -s runs/.skipped ]; then echo "skipped: $$(wc -l < runs/.skipped) cells or tests that want material which is not here:"; sort runs/.skipped | uniq -c; else echo "skipped: nothing"; fi

.PHONY: help setup demo test test-browser newest lowest lock chromium lab check export bench clean
help:
	@printf '%s\n' 'make demo    install, make demo data, train SARTM on it, print scores and where everything is' \
	 'make test    run every notebook and tests/, then the numbers under other settings of the processor' 'make test-browser  run notebooks in JupyterLab, driven by a browser (installs Chromium where it may)' \
	 'make lab     JupyterLab on this folder, at nbs/index.ipynb' \
	 'make check   export, clean, lint, test; fails on any difference' 'make export  notebooks -> sam_nb/' 'make bench   timings against the released schedule of calls' \
	 'make newest  make test with the newest versions that settings.ini allows, in .venv-newest' \
	 'make lock    write requirements.lock from the versions in VENV (make lock VENV=.venv-newest)'

setup: $(INSTALLED)
$(INSTALLED): settings.ini setup.py requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; this is $$($(PYTHON) -V). Name another: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "This Python cannot make virtual environments. On Debian or Ubuntu: apt-get install -y python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(RESOLVE_LOWEST)
	$(PIP_INSTALL) "setuptools<81" wheel
	$(PIP_INSTALL) torch torchvision
	SAM2_BUILD_CUDA=0 $(PIP_INSTALL) --no-build-isolation "sam2>=1.1.0,<2"
	$(PIP_INSTALL) --no-build-isolation -e ".[dev,onnx,geo]"
	@# the full OpenCV wants libGL, which bare servers lack: the headless build is the same library without windows
	@$(BIN)/python -c 'import cv2' 2>/dev/null || { v=$$($(BIN)/python -m pip show opencv-python | sed -n 's/^Version: //p'); \
	 echo "libGL is missing: using opencv-python-headless $$v"; $(BIN)/python -m pip install --quiet --force-reinstall --no-deps "opencv-python-headless<=$$v"; $(BIN)/python -c 'import cv2'; }
	@rm -f $(VENV)/.installed*; touch $@

demo: setup
	@echo "1. demo data: 400 + 100 + 100 generated pairs of street scenes"
	@sam_nb demo-data street --size 128 --train 400 --val 100 --workers 2
	@echo "2. nbs/train_sartm.ipynb: 250 steps, then scores on the test split (about a minute on two cores)"
	@sam_nb train sartm --dataset demo --run_name demo-$$(date +%Y%m%d-%H%M%S)

test: setup
	@rm -f runs/.skipped
	@SAM_NB_SKIPPED=$(abspath runs/.skipped) python -m tests.run
	@python -m tests.matrix
	@python -m tests.skips
	@$(SAY_SKIPPED)

newest:
	@rm -f .venv-newest/.installed*
	$(MAKE) test VENV=.venv-newest LOCKED=0

lowest:
	@rm -f .venv-lowest/.installed*
	$(MAKE) test VENV=.venv-lowest LOCKED=lowest

# Plain pins, no paths and hosts. torch names its CUDA packages itself, and which there are depends on the platform
lock: $(BIN)/python
	@{ echo "# The versions that the tests passed with: constraints of make setup (LOCKED=1). Written by make lock."; \
	 $(BIN)/python -m pip list --format freeze --exclude-editable | sed 's/+.*//' | grep -vE '^(pip|triton|(nvidia|cuda)-.*)=='; } > requirements.lock.part
	@mv requirements.lock.part requirements.lock

test-browser: setup chromium
	@rm -f runs/.skipped
	SAM_NB_SKIPPED=$(abspath runs/.skipped) OMP_NUM_THREADS=1 pytest -q --durations 10 tests/browser
	@$(SAY_SKIPPED)

# Chromium as Debian has it; without root (or sudo that asks nothing) the tests are skipped, and say so
chromium:
	@for name in "$$SAM_NB_CHROMIUM" chromium chromium-browser google-chrome google-chrome-stable; do [ -n "$$name" ] && command -v "$$name" >/dev/null && exit 0; done; \
	 as=$$([ "$$(id -u)" = 0 ] || echo "sudo -n"); command -v apt-get >/dev/null && $$as true 2>/dev/null || { echo "no Chromium here, and no right to install it: apt-get install chromium"; exit 0; }; \
	 echo "installing Chromium"; { $$as apt-get update -qq && $$as env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; } || echo "Chromium could not be installed"

check: setup
	nbdev_export
	sam_nb write-parameters
	nbdev_clean
	ruff check sam_nb nbs tests benchmarks setup.py
	git diff --exit-code --stat
	$(MAKE) test

export: setup
	nbdev_export
	sam_nb write-parameters
	nbdev_clean

lab: setup
	jupyter lab --ServerApp.root_dir='$(CURDIR)' --LabApp.default_url=/lab/tree/nbs/index.ipynb

bench: setup
	python -m benchmarks.sartm

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
