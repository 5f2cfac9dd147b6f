"""Rule `probe`: the seconds of every part over batch sizes."""

from pathlib import Path
from typing import TYPE_CHECKING

from offramp.backends import for_inference
from offramp.criteria import CRITERIA, SIGNS
from offramp.datasets import DATASETS, open_split
from offramp.job import job_log
from offramp.machine import prepare
from offramp.networks import load
from offramp.policy import shared_cutoff
from offramp.probe import probe
from offramp.tables import provenance, sha256, write

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
    known = ((0.0,) * (SIGNS + classes),) * side if CRITERIA[params.criterion].fitted else None
    policy = shared_cutoff(0.0, side, params.criterion, temperatures, known)
    timings = probe(network, policy, split, params.batch_size, device)
    origin = provenance(snakemake.config, sha256(weights), "probe") | machine
    write(snakemake.output[0], timings, "timings", origin)
