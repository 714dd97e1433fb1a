# Two commands: `make demo` draws the paper's heat map on real data, `make test` runs the suite.

PYTHON ?= python3
VENV := .venv
EXTRAS ?= test
BIN := $(VENV)/bin
WORKERS := -n 2 --dist worksteal
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test test-slow test-tpu-wheel docs clean

demo: $(VENV)/installed
	$(BIN)/tf-decoupled sweep --preset quick --optimizer sgd --out demo

test: $(VENV)/installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest $(WORKERS) -m "not slow"

# What takes minutes: processes that are killed, notebooks, five processes, TPU compilers.
test-slow: $(VENV)/installed-for-tests
	$(BIN)/python -m pytest $(WORKERS) -m slow

# The site, in the folder site/.
docs: $(VENV)/installed-for-tests
	$(BIN)/python -c 'import mkdocs' || $(PIP) --editable '.[docs]'
	DISABLE_MKDOCS_2_WARNING=true NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# The emulated TPU tests of the engine under the newest TensorFlow that TPUs have; `make test-slow`
# runs them for each rule, and compares all operations with the kernels of that TensorFlow.
test-tpu-wheel: export TPU_SKIP_MDS_QUERY = 1
test-tpu-wheel: export TPU_ROWS ?= engine
test-tpu-wheel: .venv-tpu/installed
	.venv-tpu/bin/python -m pytest $(WORKERS) tests/tpu

.venv-tpu/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv-tpu
	.venv-tpu/bin/python -m pip install --quiet 'tensorflow-tpu==2.20.0' 'libtpu<=0.0.24' 'keras>=3.10' \
		pytest pytest-xdist matplotlib tqdm absl-py
	.venv-tpu/bin/python -m pip install --quiet --no-deps --editable .  # it asks for `tensorflow`
	touch $@

$(BIN)/python:
	$(PYTHON) -c 'import sys; assert (3, 10) <= sys.version_info < (3, 14), f"Python 3.10 to 3.13 is needed; set PYTHON=. Received: {sys.version}"'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(BIN)/python setup.cfg pyproject.toml
	$(PIP) --editable .
	touch $@

$(VENV)/installed-for-tests: $(BIN)/python setup.cfg pyproject.toml
	$(PIP) --editable '.[$(EXTRAS)]'
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) .venv-tpu demo build site *.egg-info
