# Needs only Python 3.10 to 3.13: each target first makes its .venv, again when pyproject.toml or
# constraints.txt has changed. PYTHON=python3.12 selects another interpreter.

PYTHON ?= python3
DEMO_EPOCHS ?= 9
RTDETR := .venv/bin/rtdetr
PYTEST := .venv/bin/python -m pytest
NUMERIC := tests/nn tests/loss tests/backends tests/weights/test_parity.py tests/engine/exporting \
    $(patsubst %,tests/engine/test_%.py,export predict val) \
    $(patsubst %,tests/engine/training/test_%.py,accumulate cpu_convolutions first_loss precision step)
INSTALL := .venv/bin/python -m pip install --quiet --constraint constraints.txt --editable

.PHONY: help demo test check lint slow test-isa fuzz docs clean

help:
	@echo "make demo      install, train on drawn shapes, validate, predict, export: about 14 minutes"
	@echo "make test      install, run the fast tests, show their coverage"
	@echo "make check     formatter, linter, types and the fast tests: run before each commit"
	@echo "make slow      the slow tests: whole trainings, exports of large networks"
	@echo "make test-isa  the numeric tests with AVX2 kernels, as on a smaller CPU: 3 minutes"
	@echo "make fuzz      2,000 seeded mutations of every kind of external input"
	@echo "make docs      the documentation as a site, in site/; a broken link is an error"
	@echo "make clean     remove .venv and caches of tools; runs/ stays"

# The data set and all results are in runs/.
demo: export RTDETR_HOME := $(CURDIR)/runs/demo-home
demo: DEMO := runs/demo/weights/best
demo: .venv/with-onnx
	$(RTDETR) train model=rtdetr-n.yaml data=shapes.yaml imgsz=192 batch=4 multi_scale=false \
	    epochs=$(DEMO_EPOCHS) device=cpu workers=0 name=demo exist_ok
	$(RTDETR) val model=$(DEMO).pt data=shapes.yaml split=test name=demo-val exist_ok
	$(RTDETR) predict model=$(DEMO).pt source='runs/demo-home/datasets/shapes*/images/test/*.jpg' conf=0.5 \
	    name=demo-predict exist_ok
	$(RTDETR) export model=$(DEMO).pt format=onnx
	$(RTDETR) val model=$(DEMO).onnx data=shapes.yaml split=test name=demo-onnx exist_ok
	@echo
	@echo "runs/demo            the training: curves, example batches, weights/best.pt, best.onnx"
	@echo "runs/demo-val        precision and recall on images not used in training"
	@echo "runs/demo-predict    those images with their detections"

test: .venv/with-dev
	$(PYTEST) -m "not slow" --cov --cov-report=term

check: lint
	$(PYTEST) -m "not slow"

lint: .venv/with-dev
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy --strict
	.venv/bin/hadolint docker/Dockerfile.*

slow: .venv/with-dev
	$(PYTEST) -m slow

# Limits the kernels of PyTorch, oneDNN (also OpenVINO's) and, on Intel CPUs, MKL. ONNX Runtime detects
# the CPU itself: its behaviour without AVX-512 needs another CPU or qemu-user.
test-isa: export ATEN_CPU_CAPABILITY := avx2
test-isa: export ONEDNN_MAX_CPU_ISA := AVX2
test-isa: export MKL_ENABLE_INSTRUCTIONS := AVX2
test-isa: .venv/with-dev
	$(PYTEST) -m "not slow" $(NUMERIC)

fuzz: .venv/with-dev
	.venv/bin/python tests/fuzz/campaign.py

docs: .venv/with-docs
	.venv/bin/zensical build --strict --clean
	@echo "To read it with its search: $(PYTHON) -m http.server --directory site"

clean:
	rm -rf site .cache .venv .mypy_cache .ruff_cache .pytest_cache .coverage htmlcov build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/with-onnx: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing into .venv; PyTorch is large, this takes a few minutes."
	$(INSTALL) '.[onnx]'
	@touch $@

.venv/with-dev: .venv/with-onnx
	$(INSTALL) '.[onnx,dev]'
	@touch $@

.venv/with-docs: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) '.[docs]'
	@touch $@
