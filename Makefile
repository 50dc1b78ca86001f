PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PICTURES := examples/pictures

.PHONY: demo test fuzz lint bench docs wheel clean

# Sees faces in the example pictures, with nothing but Python at hand.
demo: $(VENV)/.runtime
	$(BIN)/facelm align $(PICTURES) --output out --draw

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist loadfile

# Goes on where the last run ended; MINUTES=60 for a longer one.
MINUTES ?= 10
fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python -m pytest benchmarks/ --benchmark-only

# The site of docs/, in build/site; a broken link or a name that is not there is an error.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

wheel: $(VENV)/.dev
	$(BIN)/python -m build --wheel --no-isolation
	$(BIN)/python -m build --wheel --no-isolation --outdir dist models/weights

$(BIN)/python:
	$(PYTHON) -c "import sys; sys.exit('facelm-sdk needs Python 3.10 or newer; set PYTHON=...' if sys.version_info < (3, 10) else 0)"
	$(PYTHON) -m venv $(VENV)

# opencv-python needs a desktop's libGL; where that is missing the headless build takes its place.
define needs_cv2
	$(BIN)/python -c "import cv2" 2>/dev/null || \
		($(BIN)/python -m pip uninstall --quiet --yes opencv-python && $(BIN)/python -m pip install --quiet opencv-python-headless)
endef

$(VENV)/.runtime: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[cpu]"
	$(needs_cv2)
	touch $@

# An own torch is kept; else the CPU build that this project is tested with.
$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable ".[cpu,dev]"
	$(needs_cv2)
	touch $@ $(VENV)/.runtime

clean:
	rm -rf $(VENV) out build dist .pytest_cache .mypy_cache .ruff_cache
