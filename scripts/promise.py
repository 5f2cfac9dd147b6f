"""Rule `promise`: scores, logits and candidates -> how often a chosen policy keeps its promise."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from offramp.calibration import CalibrationData
from offramp.job import job_log
from offramp.promise_benchmark import Setting, page, promise
from offramp.selection import calibrated_candidates, shared_candidates
from offramp.tables import (
    decided_by,
    provenance,
    read,
    read_logits_of,
    read_scores,
    same_weights,
    write,
)
from offramp.timemodel import fit_time_model

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, paths = snakemake.params, snakemake.input
    timings = read(paths.timings, "timings")
    sweep, calibration = read(paths.sweep, "sweep"), read(paths.calibration, "calibration")
    parts, tables = [], [timings, sweep, calibration]
    for path, logits in zip(paths.scores, paths.logits, strict=True):
        scores, correct, table = read_scores(path)
        parts.append((scores, correct, *read_logits_of(table, logits)))
        tables.append(table)
    pool = CalibrationData(*map(np.concatenate, zip(*parts, strict=True)))
    decided = decided_by(tables[-1])
    calibrated = calibrated_candidates(calibration, *decided)
    fixed = shared_candidates(sweep, *decided)
    fixed += [c for c in calibrated if c.origin["calibrated_on"] == "train"]
    model = fit_time_model(timings)
    config = params.calibration, params.selection
    samples = len(parts[0][0])  # those of val, from which a run chooses
    table = promise(Setting(pool, samples, fixed, *config, model, params.batch_size))
    origin = provenance(snakemake.config, same_weights(tables), "val, test")
    write(snakemake.output.table, table, "promise", origin)
    Path(snakemake.output.page).write_text(page(table, origin))
