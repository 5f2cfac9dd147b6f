"""Rule `train`: data -> weights and training curves."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from offramp.data.datasets import dataset_of, known_of
from offramp.data.splits import open_split
from offramp.inference.machine import prepare
from offramp.networks.loading import save
from offramp.tables.files import provenance, sha256, write
from offramp.training.purpose import PURPOSE, keep_trained, purpose_now, put_back
from offramp.training.resuming import sole_trainer
from offramp.training.training import precision, train
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

config, output = snakemake.config, snakemake.output
# A training may take several runs, and its log is of all of them.
with job_log(snakemake.log[0], Path(output.weights).with_name("train.log")):
    model, data, settings = config["model"], config["dataset"], config["train"]
    # Not an output: Snakemake would delete it before a rerun, and with it what to go on from.
    # It is deleted once all is done (see Snakefile).
    resume = Path(output.weights).with_name("resume.pt")
    with sole_trainer(resume):
        if not config["retrain"] and put_back(*output, purpose_now(config)):
            print(
                f"{output.weights} was trained already; put back. To train: --config retrain=true"
            )
        else:
            device, machine = prepare(config)
            folder, known = Path(snakemake.input.data[0]).parent, known_of(data)
            splits = [
                open_split(folder, known, name, data["validation"]) for name in ("train", "val")
            ]
            # Before the training: commits made meanwhile did not train anything.
            origin = provenance(config, "", "train") | machine
            network, curves = train(model, known, *splits, settings, device, resume)
            save(
                network, output.weights, {"model": model["name"], "dataset": dataset_of(known).name}
            )
            origin["weights_sha256"] = sha256(output.weights)
            origin |= {"dtype": precision(device, settings), "recipe": json.dumps(dict(settings))}
            origin[PURPOSE] = json.dumps(purpose_now(config))
            write(output.curves, curves, "training", origin)
            keep_trained(*output)
