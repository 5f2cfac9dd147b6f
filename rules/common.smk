# Shared by all the rules. The checked config, paths, and what makes a job run again.
import ast
import hashlib
import os
import sys
from functools import cache
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from snakemake.utils import available_cpu_count

RULES = Path(str(workflow.current_basedir))
SCRIPTS = RULES.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))
# The jobs too import the library that lies here, even where another is installed.
os.environ.update(PYTHONPATH=str(SCRIPTS))

from offramp import OfframpError
from offramp.workflow.config import check_config
from offramp.workflow.own import splits_of, without_slash
from offramp.data.datasets import SPLITS, pool_files
from offramp.training.recipe import keep_once, mismatches_of, purpose_now
from offramp.tables.files import sha256

try:
    check_config(config, yaml.safe_load((RULES / "config.schema.yaml").read_text()))
except OfframpError as error:
    raise WorkflowError(str(error)) from None

RESULTS = config["results"].rstrip("/")
# Own logits, or another run's, take the place of a network; else None.
OWN = config.get("logits")
# Where logits and timings lie, and of which splits.
TABLES_OF = OWN.rstrip("/") if isinstance(OWN, str) else RESULTS
HERE = splits_of(OWN)
# The results folders to put side by side.
COMPARED = [without_slash(folder) for folder in config.get("compare") or ()]
DATA = [
    f"data/{config['dataset']['name']}/{file}" for file in pool_files(config["dataset"]["name"])
]
TRAINED = config["model"]["weights"] == "train"
WEIGHTS = f"{RESULTS}/model/weights.safetensors" if TRAINED else config["model"]["weights"]

# A finished training, and why it is not the one that the config asks for.
CURVES = Path(RESULTS, "training.parquet")
TRAINED_ALREADY = CURVES.exists() and Path(RESULTS, "model/weights.safetensors").exists()
OTHERWISE = mismatches_of(CURVES, config) if TRAINED_ALREADY else []
if TRAINED_ALREADY and not OTHERWISE and os.access(RESULTS, os.W_OK):
    keep_once(Path(RESULTS, "model/weights.safetensors"), CURVES)

# A job that takes timings takes the whole budget, every other job one unit, so that nothing runs
# beside a timing. On one machine the budget is its CPUs: more jobs at once only slow each other.
# On a cluster, where --jobs sets nodes, it is more than those. setdefault keeps this whatever
# profile or --resources a user gives.
BUDGET = available_cpu_count() if workflow.nodes is None else 1000
workflow.global_resources.setdefault("budget", BUDGET)


wildcard_constraints:
    split="|".join(SPLITS),


def weights_input(wildcards):
    """The weights file; one of the user's own counts by its content (see `model_params`), not its
    date."""
    return WEIGHTS if TRAINED else ancient(WEIGHTS)


def refuse_another_training():
    """What another training made is not deleted unless the user says so: Snakemake deletes before a
    script could ask, hence here, before any job."""
    if OTHERWISE and not config["retrain"]:
        raise WorkflowError(
            "\n".join(
                [
                    f"{RESULTS}/model/weights.safetensors would be deleted and trained anew:",
                    *(f"  {line}" for line in OTHERWISE),
                    "To keep them, undo this, give this config another `results` folder, or name "
                    "the file in model.weights. To train anew: --config retrain=true",
                ]
            )
        )


def training_data(wildcards):
    """The training's data, whose date is nothing to a training."""
    refuse_another_training()
    return ancient(DATA)


if TRAINED:
    refuse_another_training()


def compared_runs(wildcards):
    """What is read of the results folders to compare."""
    if not COMPARED:
        raise WorkflowError(
            "compare: name the results folders to put side by side, the first as what the others "
            "are held against: compare: [results, results/cpu]"
        )
    return expand("{run}/{file}", run=COMPARED, file=["summary.json", "scores/test.parquet"])


def baseline_weights(wildcards):
    """The plain network's weights file, which counts by its content, not its date."""
    if config["baseline"] is None:
        raise WorkflowError(
            "baseline is null in the config: name a plain network and its weights there, as "
            "examples/cpu.yaml does"
        )
    return ancient(config["baseline"]["weights"])


def model_params():
    """What loading the network depends on besides the inputs."""
    return {
        "dataset": config["dataset"]["name"],
        "validation": config["dataset"]["validation"],
        "model": config["model"]["name"],
        "weights": "trained here" if TRAINED else sha256(WEIGHTS),
        "backend": config["backend"],
        "device": config["device"],
        "threads": config["threads"],
    }


@cache
def code(script):
    """sha256 over a script and its library modules, found by following its imports. Snakemake itself
    does not notice that a module which a script imports has changed."""
    digests, waiting = {}, {SCRIPTS / f"{script}.py"}
    while waiting:
        file = waiting.pop()
        if file not in digests:
            digests[file] = hashlib.sha256(file.read_bytes()).hexdigest()
            waiting |= imported(file)
    listed = sorted(f"{file.relative_to(SCRIPTS)} {digest}" for file, digest in digests.items())
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()


@cache
def imported(file):
    """The library modules that a Python file imports, and the packages they lie in, a frozenset."""
    here = file.relative_to(SCRIPTS).parts
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = here[: -node.level] if node.level else ()
            base = ".".join([*package, *filter(None, [node.module])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    found = set()
    for parts in (name.split(".") for name in names if name.split(".")[0] == "offramp"):
        found.add(SCRIPTS / f"{'/'.join(parts)}.py")
        found |= {SCRIPTS.joinpath(*parts[:i], "__init__.py") for i in range(1, len(parts) + 1)}
    return frozenset(path for path in found if path.exists())
