# Shared by all the rules. The checked config, paths, and what makes a job run again.
import os
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from snakemake.utils import available_cpu_count

RULES = Path(str(workflow.current_basedir))
SCRIPTS = RULES.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))
# The jobs too import the library that lies here, even where another is installed; and they draw
# into files, whatever a notebook that started them draws on.
FOUND = dict.fromkeys([str(SCRIPTS), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, FOUND)), MPLBACKEND="agg")

import offramp
from offramp import OfframpError
from offramp.common.files import check_room, check_wanted
from offramp.networks.own.factory import factory_of, file_of, is_own
from offramp.workflow.code import code_digest, factories_of, model_of
from offramp.workflow.config import check_config, refuse
from offramp.workflow.faults import training_faults
from offramp.workflow.own import splits_of
from offramp.data.datasets import SPLITS, dataset_of, inputs_file, known_of, pool_files
from offramp.training.purpose import keep_once, mismatches_of, purpose_now
from offramp.tables.files import sha256

# Beside the scripts, except where the pipeline was installed without a clone.
LIBRARY = Path(offramp.__file__).parent
# What Snakemake makes of a path: where this is a module with a prefix, it comes before all but
# absolute ones.
prefixed = workflow.modifier.path_modifier.replace_prefix

try:
    check_room(".")
    check_config(
        config,
        schema=yaml.safe_load((RULES / "config.schema.yaml").read_text()),
        defaults=yaml.safe_load((RULES.parent / "config.yaml").read_text()),
        given=workflow.config_settings.config,
        prefixed=prefixed,
        # Those of the command line, which count more, last.
        files=sorted(workflow.configfiles, key=workflow.overwrite_configfiles.__contains__),
    )
except OfframpError as error:
    raise WorkflowError(str(error)) from None

RESULTS = config["results"]
# Where results lie, for what this file itself looks at.
FOLDER = Path(prefixed(f"{RESULTS}/training.parquet")).parent
# Own logits, or another run's, take the place of a network; else None.
OWN = config.get("logits")
# Where logits and timings lie, and of which splits.
TABLES_OF = OWN if isinstance(OWN, str) else RESULTS
HERE = splits_of(OWN)
# The results folders to put side by side.
COMPARED = config.get("compare") or []
# What the rules know of the dataset, a text (see datasets.py); its files, and which of them holds
# the validation samples. Own logits have none.
DATASET = known_of(config["dataset"])
DATA, DATA_OF_VAL = [], []
if OWN is None:
    PLACE = f"data/{dataset_of(DATASET).name}"
    DATA = [f"{PLACE}/{file}" for file in pool_files(DATASET)]
    DATA_OF_VAL = f"{PLACE}/{inputs_file(DATASET, 'val')}"
# What a network is built from: its name or factory, the factory's options and the digest of its code.
MODEL = model_of(config["model"]) if OWN is None else None
TRAINED = OWN is None and config["model"]["weights"] == "train"
# A factory that loads its own weights has no file of them.
UNTOLD = config["model"]["weights"] == "none"
WEIGHTS = f"{RESULTS}/model/weights.safetensors" if TRAINED else config["model"]["weights"]
for factory in factories_of(MODEL) if MODEL and workflow.is_main_process else []:
    print(
        f"Runs the code of your network: {file_of(factory_of(factory))} ({factory})",
        file=sys.stderr,
    )

# A finished training, and why it is not the one that the config asks for.
CURVES = FOLDER / "training.parquet"
TRAINED_ALREADY = CURVES.exists() and (FOLDER / "model/weights.safetensors").exists()
TRAINED_ALREADY = TRAINED_ALREADY and OWN is None
OTHERWISE = mismatches_of(CURVES, config) if TRAINED_ALREADY else []
if TRAINED_ALREADY and not OTHERWISE and os.access(FOLDER, os.W_OK):
    keep_once(FOLDER / "model/weights.safetensors", CURVES)

# A job that takes timings takes the whole budget, every other job one unit, so that nothing runs
# beside a timing. On one machine the budget is its CPUs: more jobs at once only slow each other.
# On a cluster, where --jobs sets nodes, it is more than those. setdefault keeps this whatever
# profile or --resources a user gives.
BUDGET = available_cpu_count() if workflow.nodes is None else 1000
workflow.global_resources.setdefault("budget", BUDGET)

# On a cluster a job that takes timings has its node to itself as well. Here and not in a profile, where
# anybody's own resources for one rule would replace it without a word. And what computes on a GPU
# asks for one.
EXCLUSIVE = {} if workflow.nodes is None else {"slurm_extra": "--exclusive"}
GPU = {"gpu": 1, "gpu_manufacturer": "nvidia"} if config["device"] == "cuda" else {}

# What most jobs ask for: an analysis, beside others, and a job that takes timings.
LIGHT = {"budget": 1, "mem_mb": 2000, "runtime": 10}
TIMED = {"budget": BUDGET, "mem_mb": 4000, "runtime": 60} | EXCLUSIVE | GPU


wildcard_constraints:
    split="|".join(SPLITS),


def the_dataset(wildcards):
    """What a script knows of the dataset. From a function, since it may hold braces, which Snakemake
    takes for wildcards in a text."""
    return DATASET


def place_for_data(wildcards):
    """No input, but a look whether the data can be put where they belong, once they have to be."""
    try:
        check_wanted(map(prefixed, DATA))
    except OfframpError as error:
        raise WorkflowError(str(error)) from None
    return []


def weights_input(wildcards):
    """The weights file; one of the user's own counts by its content (see `model_params`), not its
    date. None where a factory loads its own."""
    if UNTOLD:
        return []
    return WEIGHTS if TRAINED else ancient(WEIGHTS)


def refuse_another_training():
    """What another training made is not deleted unless the user says so: Snakemake deletes before a
    script could ask, hence here, before any job."""
    if OTHERWISE and not config["retrain"]:
        raise WorkflowError(
            "\n".join(
                [
                    f"{FOLDER}/model/weights.safetensors would be deleted and trained anew:",
                    *(f"  {line}" for line in OTHERWISE),
                    "To keep them, undo this, give this config another `results` folder, or name "
                    "the file in model.weights. To train anew: --config retrain=true",
                ]
            )
        )


def training_data(wildcards):
    """The training's data, whose date is nothing to a training."""
    try:
        # Where nothing is to be trained, the recipe may be another network's.
        refuse(list(training_faults(config)))
    except OfframpError as error:
        raise WorkflowError(str(error)) from None
    refuse_another_training()
    return ancient(DATA)


if TRAINED:
    refuse_another_training()


# The name by which those who build the project ship a network.
SHIPPED = "own" if is_own(config["model"]["name"]) else config["model"]["name"]


def of_the_project(wildcards):
    """The weights of a network of the project: none of one's own is shipped, or held against others
    by name."""
    if is_own(config["model"]["name"]):
        raise WorkflowError(
            f"model.name: {config['model']['name']} is a network of your own; this is done with "
            "networks of the project only"
        )
    return weights_input(wildcards)


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
        "dataset": the_dataset,
        "validation": config["dataset"]["validation"],
        "model": MODEL,
        "weights": "trained here" if TRAINED else UNTOLD or sha256(WEIGHTS),
        "backend": config["backend"],
        "device": config["device"],
        "threads": config["threads"],
    }


def code(script):
    """The digest of a script and of all that it imports; installed, code changes with the version
    alone."""
    if LIBRARY.parent != SCRIPTS:
        return offramp.__version__
    return code_digest(SCRIPTS / f"{script}.py")
