"""Rule `ship`: trained weights -> what the project ships of them."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from offramp.data.datasets import dataset_of
from offramp.data.splits import open_split
from offramp.inference.machine import prepare
from offramp.networks.loading import load
from offramp.tables.files import origin_of, read
from offramp.training.shipping import ship
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, output = snakemake.params, snakemake.output
    device, _ = prepare(params)
    folder = Path(snakemake.input.data[0]).parent
    splits = {
        name: open_split(folder, params.dataset, name, params.validation)
        for name in ("val", "test")
    }
    curves = read(snakemake.input.curves, "training")
    classes = dataset_of(params.dataset).classes
    network = load(params.model, classes, snakemake.input.weights, device)
    card = ship(network, splits, curves, origin_of(curves), device, Path(output.card).parent)
    Path(output.card).write_text(card)
    shutil.copyfile(
        snakemake.input.figure, Path(output.card).with_name(f"{params.model}_training.png")
    )
