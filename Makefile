# `make demo` and `make test`, `make bench` to measure, `make docs` to render README and docs. The plain
# commands behind them are in docs/getting-started.md.
PYTHON ?= python3
# Which build of torch and torchvision: auto (a CUDA build where there is a GPU, else the CPU build, a
# tenth of the size; PyTorch's own index), cpu, or locked (the ordinary index's, by hash; with CUDA).
TORCH ?= auto
LOCKED := pip install --require-hashes -r locks/torch.txt
BIN := .venv/bin

.PHONY: venv demo test test-quick test-slurm bench docs record test-gpu train-gpu

venv: .venv/complete

# The torch line comes last, so that what it shares with the main lock is already there.
.venv/complete: locks/main.txt locks/torch.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes -r locks/main.txt
	. $(BIN)/activate && if [ "$(TORCH)" = locked ]; then $(LOCKED); else \
	  uv pip install --torch-backend $(TORCH) -r locks/torch.in || { echo "PyTorch's index can't be \
	reached (see above): taking the locked build of the ordinary one instead, with CUDA." >&2; $(LOCKED); }; fi
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

.venv/bench: .venv/complete locks/bench.txt
	$(BIN)/pip install --quiet --require-hashes --no-deps --no-build-isolation -r locks/bench.txt
	touch $@

demo: venv
	. $(BIN)/activate && snakemake --cores 4 --configfile examples/shipped.yaml
	. $(BIN)/activate && snakemake --cores 4 --configfile examples/own_network.yaml
	@echo "branchynet on CIFAR-10, from its shipped logits: results/shipped/summary.html"

test: .venv/bench
	$(BIN)/ruff check scripts tests
	$(BIN)/ruff format --check scripts tests
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest -n 2 --dist loadgroup --no-loadscope-reorder

# What one runs while working: the library's own tests, without the workflow's.
test-quick: .venv/bench
	$(BIN)/ruff check scripts tests
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest -n 2 --dist loadgroup --no-loadscope-reorder --ignore tests/workflow \
	  --ignore tests/studies/test_seeds.py --ignore tests/inference/test_gpu_on_a_cpu.py

# The digits example through profiles/slurm, on a Slurm of one node that it starts and takes down; as root,
# with Debian's slurmctld, slurmd, slurm-client and munge.
test-slurm: venv
	$(BIN)/pytest -m slurm tests/workflow/test_real_slurm.py

# Both shipped networks, everything interleaved, up to more than an hour on slow cores; nothing else
# should run beside it. How well time is predicted, alone: BENCH=measured/time_model.md.
BENCH ?= benchmarks.md
bench: .venv/bench
	. $(BIN)/activate && snakemake --cores 4 results/$(BENCH)
	. $(BIN)/activate && snakemake --cores 4 results/cpu/$(BENCH) --configfile examples/cpu.yaml

# README and the pages with numbers, from docs/templates/ and docs/record/: a second, no run, no torch.
# `make record` first takes that record from complete runs in results/ and results/cpu/. Any Python with
# jinja2 and pyyaml will do.
DOCS := PYTHONPATH=scripts $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
docs:
	$(DOCS) -m offramp.documentation.pages

record:
	$(DOCS) -m offramp.documentation.record

# On a machine with a GPU, with any Python that has torch, pytest and pyarrow (PYTHON=...); no Snakemake.
# data/cifar10 is a run's, or comes packed (CONTRIBUTING.md).
data/cifar10/train_images.npy:
	PYTHONPATH=scripts $(PYTHON) -m offramp.training.packing unpack packed data/cifar10

test-gpu: data/cifar10/train_images.npy
	$(PYTHON) -m pytest -m gpu tests/inference/test_gpu.py -s

train-gpu: data/cifar10/train_images.npy
	PYTHONPATH=scripts $(PYTHON) -m offramp.studies.seeds
