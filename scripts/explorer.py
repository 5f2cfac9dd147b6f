"""Rule `explorer`: the run's tables, policies and validation images -> the interactive page."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from offramp.data.datasets import dataset_of
from offramp.report.explorer import Run, write_explorer
from offramp.scoring.policy import load_policy
from offramp.scoring.scores import read_logits_of, read_scores
from offramp.tables.files import origin_of, read, same_weights
from offramp.thresholds.time_model import fit_time_model
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, paths = snakemake.params, snakemake.input
    val, test = read_scores(paths.val), read_scores(paths.test)
    timings, sweep = read(paths.timings, "timings"), read(paths.sweep, "sweep")
    live = read(paths.verification, "verification") if paths.get("verification") else None
    same_weights([val.table, test.table, timings, sweep, *([live] if live else [])])
    policies = {
        Path(path).stem: (load_policy(path), json.loads(Path(path).read_text()))
        for path in paths.policies
    }
    images = (
        np.load(paths.images, mmap_mode="r", allow_pickle=False) if paths.get("images") else None
    )
    dataset = dataset_of(params.dataset) if paths.get("images") else None
    run = Run(
        val,
        test,
        *read_logits_of(val.table, paths.logits),
        model=fit_time_model(timings, params.batch_size),
        cutoffs=sorted(set(sweep["cutoff"].to_pylist())),
        policies=policies,
        live=live,
        names=dataset.names if dataset else None,
        images=images,
        costs_in=origin_of(timings).get("unit", "s"),
    )
    write_explorer(snakemake.output[0], run)
