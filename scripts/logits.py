"""Rule `logits`: one pass over a split -> logits and timings."""

from typing import TYPE_CHECKING

from offramp.data.datasets import dataset_of
from offramp.inference.forward import dump_split
from offramp.inference.opening import open_run
from offramp.tables.files import provenance, write
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, paths, name = snakemake.params, snakemake.input, snakemake.wildcards.split
    network, split, device, machine = open_run(paths, params, name)
    classes = dataset_of(params.dataset).classes
    origin = provenance(snakemake.config, network.identity.weights_sha256, name) | machine
    logits = snakemake.output.logits
    timings = dump_split(network, split, name, classes, params.batch_size, device, logits, origin)
    write(snakemake.output.timings, timings, "timings", origin)
