# make demo   train and score a small model on made-up streets; needs Python 3.10 or newer, nothing else
# make test   the tests
# make lint   style and types
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo
INSTALLED := .venv/.installed

.PHONY: demo test test-slow lint clean

demo: $(INSTALLED)
	rm -rf $(DEMO)
	$(BIN)/python train_seg.py --config docs/demo.yaml --output-dir $(DEMO)
	$(BIN)/python eval_seg.py --checkpoint $(DEMO) --split test
	@echo "pictures and tables: $(DEMO)"

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build dist *.egg-info

# Installed anew when the list of packages changes; the mark is made last, so that a broken installation is mended.
$(INSTALLED): setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@
