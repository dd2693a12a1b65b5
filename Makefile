# `make demo` runs the main job from nothing, `make test` every test. Both need Python 3.11+ and make.
PYTHON ?= python3
PRESET ?= laptop
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: install demo test lint check bench nightly clean

install: $(STAMP)

# torch first, by its exact pin: resolved together with the rest, a CUDA build may be chosen
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,parquet,peers]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/dodona run --preset $(PRESET) --strict

# a file stays with one worker, because its tests share fixtures; in the order of the folders, so that
# the long files do not come last
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(STAMP)
	$(PYTEST)

check: $(STAMP)
	$(BIN)/dodona check

bench: $(STAMP)
	$(BIN)/dodona bench

# hours, not minutes: 10 000 examples per property, the checks with their long budgets
nightly: $(STAMP)
	DODONA_HYPOTHESIS=nightly $(PYTEST)
	$(BIN)/dodona check --full

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python .ci/surface.py

clean:
	rm -rf .venv runs .pytest_cache .ruff_cache .hypothesis
