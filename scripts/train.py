"""Rule `train`: data -> weights and training curves."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from offramp.datasets import open_split
from offramp.job import job_log
from offramp.machine import prepare
from offramp.networks import save
from offramp.recipe import PURPOSE, purpose
from offramp.tables import provenance, sha256, write
from offramp.training import precision, train

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, output = snakemake.params, snakemake.output
    device, machine = prepare(params)
    folder = Path(snakemake.input.data[0]).parent
    splits = [
        open_split(folder, params.dataset, split, params.validation) for split in ("train", "val")
    ]
    # Before the training: commits made meanwhile did not train anything.
    origin = provenance(snakemake.config, "", "train") | machine
    network, curves = train(
        params.model, params.dataset, *splits, params.train, device, params.resume
    )
    save(network, output.weights, {"model": params.model, "dataset": params.dataset})
    origin["weights_sha256"] = sha256(output.weights)
    origin |= {"dtype": precision(device, params.train), "recipe": json.dumps(dict(params.train))}
    about = purpose(params.model, params.dataset, params.validation, params.train)
    origin[PURPOSE] = json.dumps(about)
    write(output.curves, curves, "training", origin)
