# Everything a developer runs. Needs make and Python 3.10 or later; the rest goes into .venv.

PYTHON ?= $(firstword $(foreach v,3.13 3.12 3.11 3.10,$(shell python$(v) -V >/dev/null 2>&1 && echo python$(v))) python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
JOBS ?= auto
INSTALLED := $(VENV)/installed
SOURCES := pyproject.toml LICENSE $(wildcard README.md) $(shell find onnxopt rules -name '*.py' -o -name '*.json')
CODE := onnxopt rules tests benchmarks models

.PHONY: help demo demo-split interop wire switching split-link split-seed test lint format rules coverage blocks splits corpus fuzz peers transposes noise latency adapting wheel clean

help:
	@echo "make demo    optimize and prune a small trained model: tables, verdict and reports"
	@echo "make demo-split  split that model, serve one half, run the other, and see it adapt"
	@echo "make test    build the wheel, install it and test it"
	@echo "make lint    check format, lint and types"
	@echo "make format  put the code into its format"
	@echo "make corpus  optimize and check every model in ONNXOPT_CORPUS (default ../shared/models)"
	@echo "make coverage  prove random cuts of every model, and say what cannot be pruned and why"
	@echo "make splits  cut every model in two wherever that is possible, and judge the halves"
	@echo "make blocks  list the residual blocks of every model, and why other sums end none"
	@echo "make fuzz    optimize and check random models"
	@echo "make rules   renew rules/README.md and test the rules"
	@echo "make peers   compare with onnxslim, onnxsim and onnxscript on the corpus"
	@echo "make transposes, make noise, make latency, make adapting    other slow measurements, see benchmarks/"
	@echo "make interop  talk to Triton's client, KServe and MLServer, in a venv of their own"
	@echo "make wire, make switching, make split-link, make split-seed   what serving costs and survives; predictions"
	@echo "make wheel   build dist/*.whl"
	@echo "make clean   remove everything that make made"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or later is needed, this is %d.%d; set PYTHON=" % sys.version_info[:2] if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)

# The wheel is what gets tested: nothing here runs from the checkout.
$(INSTALLED): $(SOURCES) | $(BIN)/python
	rm -rf dist
	$(PIP) wheel --no-deps --wheel-dir dist .
	$(PIP) install "$$(ls dist/*.whl)[dev]"
	$(PIP) install --no-deps --force-reinstall dist/*.whl
	@touch $@

wheel: $(INSTALLED)
	@ls dist/*.whl

test: $(INSTALLED)
	ONNXOPT_INSTALLED=1 $(BIN)/pytest -n $(JOBS) tests

lint: $(INSTALLED)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy onnxopt rules tests

format: $(INSTALLED)
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

demo: $(INSTALLED)
	@mkdir -p out
	$(BIN)/onnxopt optimize models/digits_resnet.onnx out/digits_resnet.onnx \
	    --verify-data models/digits_resnet_calibration.npz \
	    --report out/digits_resnet.md --report out/digits_resnet.json
	@echo
	@echo "the report, out/digits_resnet.md, begins:"
	@head -n 24 out/digits_resnet.md
	@echo
	$(BIN)/onnxopt prune models/digits_resnet.onnx out/digits_resnet_half.onnx --flops 0.5 \
	    --calibration models/digits_resnet_calibration.npz --eval models/digits_resnet_test.npz \
	    --save-plan out/digits_resnet_half.json --report out/digits_resnet_half.md

# A device ten times as slow as this machine, so that there is something to gain from splitting.
SPLIT := models/digits_resnet.onnx
demo-split: $(INSTALLED)
	@rm -rf out/split && mkdir -p out/split
	$(BIN)/onnxopt split profile $(SPLIT) --set-shape image=64,1,8,8 --seconds 3 \
	    -o out/split/profile.json
	$(BIN)/onnxopt split plan $(SPLIT) --device out/split/profile.json --device-slowdown 10 \
	    --bandwidth 100Mbit --rtt 5ms --adaptive 3 --bandwidths 0.1Mbit..1Gbit \
	    --calibration models/digits_resnet_calibration.npz -o out/split/plan.json
	$(BIN)/onnxopt split export $(SPLIT) --plan out/split/plan.json --set-shape image=64,1,8,8 \
	    --calibration models/digits_resnet_calibration.npz -o out/split/parts
	$(BIN)/onnxopt split verify out/split/parts --verify-data models/digits_resnet_calibration.npz
	$(BIN)/python benchmarks/split_demo.py out/split/parts models/digits_resnet_test.npz

corpus: $(INSTALLED)
	$(BIN)/python benchmarks/corpus.py $(or $(ONNXOPT_CORPUS),../shared/models)

fuzz: $(INSTALLED)
	$(BIN)/python benchmarks/fuzz.py

# ARCHITECTURES is a folder of models that benchmarks/architectures exports.
coverage: $(INSTALLED)
	$(BIN)/python benchmarks/pruning_coverage.py $(or $(ONNXOPT_CORPUS),../shared/models)/real $(ARCHITECTURES) \
	    --output benchmarks/results/pruning_coverage.md

splits: $(INSTALLED)
	$(BIN)/python benchmarks/splits.py models/tiny $(or $(ONNXOPT_CORPUS),../shared/models)/real \
	    --output benchmarks/results/splits.md

blocks: $(INSTALLED)
	$(BIN)/python benchmarks/blocks.py $(or $(ONNXOPT_CORPUS),../shared/models)/real \
	    $(or $(ONNXOPT_CORPUS),../shared/models)/cifar10 models --output benchmarks/results/blocks.md

rules: $(INSTALLED)
	PYTHONPATH=. $(BIN)/python -m onnxopt.rewriting.pages
	$(BIN)/onnxopt rules check rules

peers: $(INSTALLED)
	$(PIP) install onnxslim onnxsim onnxscript
	$(BIN)/python benchmarks/peers.py $(or $(ONNXOPT_CORPUS),../shared/models)/real --time

transposes: $(INSTALLED)
	$(BIN)/python benchmarks/transposes.py

noise: $(INSTALLED)
	$(BIN)/python benchmarks/noise.py $(or $(ONNXOPT_CORPUS),../shared/models)/real/*.onnx

CORPUS := $(or $(ONNXOPT_CORPUS),../shared/models)
latency: $(INSTALLED)
	$(BIN)/python benchmarks/latency.py --output benchmarks/results/latency.md $(CORPUS)/cifar10/resnet56.onnx \
	    $(patsubst %,$(CORPUS)/real/%.onnx,resnet20_bn_op9 fastestdet_352 openseeface_lm_model0 yolox_nano) \
	    $(CORPUS)/real/ppocr_v3_det.onnx@x=1,3,160,160

wire: $(INSTALLED)
	$(BIN)/python benchmarks/wire.py --output benchmarks/results/wire.md

switching: $(INSTALLED)
	$(BIN)/python benchmarks/switching.py --output benchmarks/results/switching.md $(SPLIT) \
	    $(CORPUS)/cifar10/resnet56.onnx \
	    $(patsubst %,$(CORPUS)/real/%.onnx,mobilenetv2_qat_identity yolox_nano)

split-link: $(INSTALLED)
	$(BIN)/python benchmarks/split_link.py --output benchmarks/results/split_link.md \
	    $(CORPUS)/cifar10/resnet56.onnx \
	    $(patsubst %,$(CORPUS)/real/%.onnx,mobilenetv2_qat_identity yolox_nano)

split-seed: $(INSTALLED)
	$(BIN)/python benchmarks/split_seed.py --output benchmarks/results/split_seed.md

# Their packages do not go together with ours in one environment for sure, so they get their own.
INTEROP := .venv-interop
interop: $(INSTALLED)
	test -x $(INTEROP)/bin/python || $(BIN)/python -m venv $(INTEROP)
	$(INTEROP)/bin/python -m pip install --quiet --disable-pip-version-check "$$(ls dist/*.whl)[interop,dev]"
	$(INTEROP)/bin/python -m pip install --quiet --no-deps --force-reinstall dist/*.whl
	$(INTEROP)/bin/pytest -p no:cacheprovider tests/interop

adapting: $(INSTALLED)
	$(BIN)/python benchmarks/adapting.py --output benchmarks/results/adapting.md $(CORPUS)/cifar10/resnet56.onnx \
	    $(patsubst %,$(CORPUS)/real/%.onnx,light_inception_v2 light_resnet50 mobilenetv2_int8_qdq_op18 fastestdet_352 yolox_nano)

clean:
	rm -rf $(VENV) $(INTEROP) build dist out .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
