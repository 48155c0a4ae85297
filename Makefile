# Nothing but Python 3.10 to 3.13 is needed: each target first makes the .venv it runs in, anew
# when pyproject.toml or constraints.txt has changed. PYTHON=python3.12 chooses another one.

PYTHON ?= python3
DEMO_EPOCHS ?= 9
RTDETR := .venv/bin/rtdetr
PYTEST := .venv/bin/python -m pytest
NUMERIC := tests/nn tests/loss tests/backends tests/weights/test_parity.py tests/engine/exporting \
    $(patsubst %,tests/engine/test_%.py,export predict val) \
    $(patsubst %,tests/engine/training/test_%.py,accumulate cpu_convolutions first_loss precision step)
INSTALL := .venv/bin/python -m pip install --quiet --constraint constraints.txt --editable

.PHONY: help demo test check lint slow test-isa fuzz clean

help:
	@echo "make demo    install, train on drawn shapes, validate, predict, export: about 14 minutes"
	@echo "make test    install, run the tests that take seconds, show their coverage"
	@echo "make check   formatter, linter, types and those tests: green before each commit"
	@echo "make slow    the tests that take minutes: whole trainings, exports of large networks"
	@echo "make test-isa  tests of numerics with the kernels for AVX2: what a smaller CPU sees, 3 minutes"
	@echo "make fuzz    2,000 seeded mutations of every kind of input from outside"
	@echo "make clean   remove .venv and what tools left behind; runs/ stays"

# The data set and all results stay in runs/.
demo: export RTDETR_HOME := $(CURDIR)/runs/demo-home
demo: DEMO := runs/demo/weights/best
demo: .venv/with-onnx
	$(RTDETR) train model=rtdetr-n.yaml data=shapes.yaml imgsz=192 batch=4 multi_scale=false \
	    epochs=$(DEMO_EPOCHS) val_every=$(DEMO_EPOCHS) device=cpu workers=0 name=demo exist_ok
	$(RTDETR) val model=$(DEMO).pt data=shapes.yaml split=test name=demo-val exist_ok
	$(RTDETR) predict model=$(DEMO).pt source='runs/demo-home/datasets/shapes*/images/test/*.jpg' conf=0.5 \
	    name=demo-predict exist_ok
	$(RTDETR) export model=$(DEMO).pt format=onnx
	$(RTDETR) val model=$(DEMO).onnx data=shapes.yaml split=test name=demo-onnx exist_ok
	@echo
	@echo "runs/demo            the training: curves, example batches, weights/best.pt, best.onnx"
	@echo "runs/demo-val        precision and recall on images that training never saw"
	@echo "runs/demo-predict    those images with their detections: look at a few"

test: .venv/with-dev
	$(PYTEST) -m "not slow" --cov --cov-report=term

check: lint
	$(PYTEST) -m "not slow"

lint: .venv/with-dev
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy --strict

slow: .venv/with-dev
	$(PYTEST) -m slow

# Limits the kernels of PyTorch, oneDNN (also the one in OpenVINO) and, on Intel CPUs, MKL. ONNX Runtime
# reads the CPU itself: only another CPU or qemu-user shows what it does without AVX-512.
test-isa: export ATEN_CPU_CAPABILITY := avx2
test-isa: export ONEDNN_MAX_CPU_ISA := AVX2
test-isa: export MKL_ENABLE_INSTRUCTIONS := AVX2
test-isa: .venv/with-dev
	$(PYTEST) -m "not slow" $(NUMERIC)

fuzz: .venv/with-dev
	.venv/bin/python tests/fuzz/campaign.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .coverage htmlcov build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/with-onnx: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing into .venv; PyTorch is large, this takes some minutes."
	$(INSTALL) '.[onnx]'
	@touch $@

.venv/with-dev: .venv/with-onnx
	$(INSTALL) '.[onnx,dev]'
	@touch $@
