# Everything below needs only python3.11, make and git; the rest is installed into .venv.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt
# A part of the time tests wait: for a cluster, a peer, a disk. Two processors have three at hand.
SPREAD := -n $(shell expr $$(getconf _NPROCESSORS_ONLN) \* 3 / 2) --maxprocesses 4 --dist loadfile --no-loadscope-reorder
STAMP = $(shell cat pyproject.toml constraints.txt Makefile | cksum | tr ' ' -)

.PHONY: demo test setup check bench test-peers clean

## demo: the whole workflow on the built-in pool, in demo/
demo: $(VENV)/demo-$(STAMP)
	$(BIN)/datacomp demo demo

# Children find compiled what others have compiled, whatever the environment says.
test: export PYTHONDONTWRITEBYTECODE :=
# Tests share the processors: a thread of torch or faiss that waits leaves its own to others.
test: export OMP_WAIT_POLICY := passive

## test: the whole test suite, three files at a time on two processors (at most four)
test: $(VENV)/setup-$(STAMP)
	$(BIN)/python -m pytest $(SPREAD)

## setup: the development environment with every extra but energy
setup: $(VENV)/setup-$(STAMP)

## check: lint, format and types
check: $(VENV)/setup-$(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

## bench: the paired benchmarks
bench: $(VENV)/setup-$(STAMP)
	$(BIN)/python -m pytest tests/bench -o addopts="--import-mode=importlib -q" -W ignore

## test-peers: the tests against other implementations; installs those first (with apt-get if root)
test-peers: $(VENV)/setup-$(STAMP)
	tests/peers/install.sh $(VENV)
	$(BIN)/python -m pytest tests/peers -o addopts="--import-mode=importlib -q -rs" $(SPREAD)

clean:
	rm -rf $(VENV) build demo *.egg-info

$(BIN)/uv: constraints.txt
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	touch $@

$(VENV)/demo-$(STAMP): $(BIN)/uv
	$(UV) --editable '.[train,synth,clusters]'
	touch $@

$(VENV)/setup-$(STAMP): $(BIN)/uv
	$(UV) --editable '.[all]' --group dev
	$(UV) --no-deps rapidocr-onnxruntime  # for its network; its dependencies bring a second OpenCV
	touch $@ $(VENV)/demo-$(STAMP)
