"""Rule `probe`: the seconds of every part over batch sizes."""

from pathlib import Path
from typing import TYPE_CHECKING

from offramp.data.datasets import DATASETS
from offramp.data.splits import open_split
from offramp.inference.backends import for_inference
from offramp.inference.machine import prepare
from offramp.inference.probe import probe
from offramp.networks.loading import load
from offramp.scoring.criteria import CRITERIA, FEATURES
from offramp.scoring.policy import shared_cutoff
from offramp.tables.files import provenance, sha256, write
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, weights = snakemake.params, snakemake.input.weights
    device, machine = prepare(params)
    classes = DATASETS[params.dataset].classes
    network = for_inference(load(params.model, classes, weights, device), params.backend)
    folder = Path(snakemake.input.data[0]).parent
    split = open_split(folder, params.dataset, "train", params.validation)
    side = len(network.heads) - 1
    # What is divided by and weighed takes no part in how long that takes.
    temperatures = (1.0,) * side if params.temperatures else None
    known = ((0.0,) * (FEATURES + classes),) * side if CRITERIA[params.criterion].fitted else None
    policy = shared_cutoff(0.0, side, params.criterion, temperatures, known)
    timings = probe(network, policy, split, params.batch_size, device)
    origin = provenance(snakemake.config, sha256(weights), "probe") | machine
    write(snakemake.output[0], timings, "timings", origin)
