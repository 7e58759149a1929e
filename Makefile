# make demo   train and score a small model on made-up streets; needs Python 3.10 or newer, nothing else
# make test   the tests; make test-core: those of the losses and scores alone
# make lint   style, types, and the written description of the options
# make docs   the site, into build/site; a broken link or reference ends it
# make test-floor   the core's tests with the oldest torch it allows; make test-floor-train: training and scoring with
#                   the oldest versions of everything
# make test-mmseg   the loss in mmsegmentation, and the protocol of its metric
# make test-camvid test-browser   those with the real data, and those of the pages in Chromium
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo
INSTALLED := .venv/.installed
FLOOR := .venv-floor
FLOOR_TRAIN := .venv-floor-train
MMSEG := .venv-mmseg
# The environment of everything serves the core's tests too; without one, torch and the test tools are enough.
CORE := $(if $(wildcard $(INSTALLED)),.venv,.venv-core)
# Without those of the GPU kernels, which run in Triton's interpreter and want the Triton of today.
CORE_TESTS := tests/core tests/peers tests/integrations/test_adapters.py --ignore tests/core/test_outlying_triton.py
# A way through all that training needs: a run from files to pictures and page, bands, transforms.
TRAIN_TESTS := tests/training/test_start_and_end.py tests/training/test_band_runs.py tests/datasets/test_transforms.py \
	tests/report

.PHONY: demo docs test test-core test-camvid test-browser test-floor test-floor-train test-mmseg lint clean

demo: $(INSTALLED)
	rm -rf $(DEMO)
	$(BIN)/python train_seg.py --config docs/demo.yaml --output-dir $(DEMO)
	$(BIN)/python eval_seg.py --checkpoint $(DEMO) --split test
	@echo "pictures and tables: $(DEMO)"

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

test-core: $(CORE)/.installed
	OMP_NUM_THREADS=1 $(CORE)/bin/pytest -n auto --dist worksteal $(CORE_TESTS)

test-camvid: $(INSTALLED)
	$(BIN)/pytest -m camvid

test-browser: $(INSTALLED)
	$(BIN)/pytest -m browser

test-floor: $(FLOOR)/.installed
	OMP_NUM_THREADS=1 $(FLOOR)/bin/pytest -n 2 --dist loadfile $(CORE_TESTS)

test-floor-train: $(FLOOR_TRAIN)/.installed
	OMP_NUM_THREADS=1 $(FLOOR_TRAIN)/bin/pytest -n 2 --dist loadfile -m "not browser" $(TRAIN_TESTS)

test-mmseg: $(MMSEG)/.installed
	OMP_NUM_THREADS=1 $(MMSEG)/bin/pytest tests/integrations/mmseg_outlying.py tests/integrations/mmseg_iou_metric.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m segloss.described --check
	$(BIN)/mypy

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf .venv .venv-core $(FLOOR) $(FLOOR_TRAIN) $(MMSEG) build dist *.egg-info

# Installed anew when the list of packages changes; the mark is made last, so that a broken installation is mended.
$(INSTALLED): setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

.venv-core/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv-core
	.venv-core/bin/python -m pip install --quiet --editable ".[test]"
	touch $@

# The oldest versions are those of setup.cfg; the oldest torch has wheels for Python 3.8 to 3.12.
$(FLOOR)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(FLOOR)
	$(PYTHON) tests/support/floors.py > $(FLOOR)/floors.txt
	$(FLOOR)/bin/python -m pip install --quiet --editable ".[test]" --constraint $(FLOOR)/floors.txt
	touch $@

# Made anew, as pip would leave what it holds already; torch's wheel comes out of pip's cache. torchvision, which smp
# brings, is the one of that torch: pip would find it by trying all that came after.
$(FLOOR_TRAIN)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv --clear $(FLOOR_TRAIN)
	$(PYTHON) tests/support/floors.py > $(FLOOR_TRAIN)/floors.txt
	$(FLOOR_TRAIN)/bin/python -m pip install --quiet --editable ".[train,test]" "torchvision==0.19.1" \
		--constraint $(FLOOR_TRAIN)/floors.txt
	touch $@

# An environment of its own: mmsegmentation wants opencv-python, which overwrites the headless wheel of the extra train.
$(MMSEG)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(MMSEG)
	$(MMSEG)/bin/python -m pip install --quiet --editable . "onedl-mmsegmentation[mminstall]>=1.4.2" pytest
	touch $@
