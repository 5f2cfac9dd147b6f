"""Rule `network`: weights -> shapes, parameters, multiply-adds."""

from typing import TYPE_CHECKING

import torch

from offramp.data.datasets import dataset_of
from offramp.networks.loading import describe, load
from offramp.tables.files import provenance, sha256, write
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, weights = snakemake.params, snakemake.input.weights
    classes = dataset_of(params.dataset).classes
    network = load(params.model, classes, weights, torch.device("cpu"))
    origin = provenance(snakemake.config, sha256(weights))
    write(snakemake.output[0], describe(network), "network", origin)
