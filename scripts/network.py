"""Rule `network`: weights -> shapes, parameters, multiply-adds."""

from typing import TYPE_CHECKING

import torch

from offramp.data.datasets import dataset_of
from offramp.data.splits import blank
from offramp.networks.loading import describe, load
from offramp.tables.files import provenance, write
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, weights = snakemake.params, snakemake.input.weights
    dataset = dataset_of(params.dataset)
    network = load(
        params.model, dataset.classes, weights or None, torch.device("cpu"), blank(dataset, 3)
    )
    origin = provenance(snakemake.config, network.identity.weights_sha256)
    write(snakemake.output[0], describe(network, blank(dataset, 1)), "network", origin)
