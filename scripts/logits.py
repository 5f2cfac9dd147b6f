"""Rule `logits`: one pass over a split -> logits and timings."""

from pathlib import Path
from typing import TYPE_CHECKING

from offramp.data.datasets import DATASETS
from offramp.data.splits import open_split
from offramp.inference.backends import for_inference
from offramp.inference.forward import dump_split
from offramp.inference.machine import prepare
from offramp.networks.loading import load
from offramp.tables.files import provenance, sha256, write
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, weights = snakemake.params, snakemake.input.weights
    name = snakemake.wildcards.split
    device, machine = prepare(params)
    classes = DATASETS[params.dataset].classes
    network = for_inference(load(params.model, classes, weights, device), params.backend)
    folder = Path(snakemake.input.data[0]).parent
    split = open_split(folder, params.dataset, name, params.validation)
    origin = provenance(snakemake.config, sha256(weights), name) | machine
    logits = snakemake.output.logits
    timings = dump_split(network, split, name, classes, params.batch_size, device, logits, origin)
    write(snakemake.output.timings, timings, "timings", origin)
