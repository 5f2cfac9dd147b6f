# `make demo` and `make test`, and `make bench` to measure. README gives the plain commands behind them.
PYTHON ?= python3
# How torch and torchvision are installed; README says how to get the CPU build instead.
TORCH ?= pip install --require-hashes -r locks/torch.txt
BIN := .venv/bin

.PHONY: venv demo test bench test-gpu train-gpu

venv: .venv/complete

# The torch line comes last, so that what it shares with the main lock is already there.
.venv/complete: locks/main.txt locks/torch.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes -r locks/main.txt
	. $(BIN)/activate && $(TORCH)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

.venv/bench: .venv/complete locks/bench.txt
	$(BIN)/pip install --quiet --require-hashes --no-deps --no-build-isolation -r locks/bench.txt
	touch $@

demo: venv
	. $(BIN)/activate && snakemake --cores 4 --configfile examples/digits.yaml
	@echo "The answers are in results/digits/summary.md, the figures in results/digits/figures/."

test: .venv/bench
	$(BIN)/ruff check scripts tests
	$(BIN)/ruff format --check scripts tests
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadgroup --no-loadscope-reorder

# An hour and a half: both shipped networks, everything in turn, nothing else should run beside it.
bench: .venv/bench
	. $(BIN)/activate && snakemake --cores 4 results/benchmarks.md
	. $(BIN)/activate && snakemake --cores 4 results/cpu/benchmarks.md --configfile examples/cpu.yaml

# On a machine with a GPU, with any Python that has torch, pytest and pyarrow (PYTHON=...); no Snakemake.
# data/cifar10 is a run's, or comes packed (CONTRIBUTING.md).
data/cifar10/train_images.npy:
	PYTHONPATH=scripts $(PYTHON) -m offramp.packing unpack packed data/cifar10

test-gpu: data/cifar10/train_images.npy
	$(PYTHON) -m pytest -m gpu tests/test_gpu.py -s

train-gpu: data/cifar10/train_images.npy
	PYTHONPATH=scripts $(PYTHON) -m offramp.seeds
