"""Rule `probe`: the seconds of every part over batch sizes."""

from typing import TYPE_CHECKING

from offramp.data.datasets import dataset_of
from offramp.inference.opening import open_run
from offramp.inference.probe import probe
from offramp.scoring.criteria import CRITERIA, FEATURES
from offramp.scoring.policy import shared_cutoff
from offramp.tables.files import provenance, write
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, paths = snakemake.params, snakemake.input
    network, split, device, machine = open_run(paths, params, "train")
    classes = dataset_of(params.dataset).classes
    side = len(network.heads) - 1
    # What is divided by and weighed takes no part in how long that takes.
    temperatures = (1.0,) * side if params.temperatures else None
    weights = ((0.0,) * (FEATURES + classes),) * side if CRITERIA[params.criterion].fitted else None
    policy = shared_cutoff(0.0, side, params.criterion, temperatures, weights)
    timings = probe(network, policy, split, params.batch_size, device)
    origin = provenance(snakemake.config, network.identity.weights_sha256, "probe") | machine
    write(snakemake.output[0], timings, "timings", origin)
