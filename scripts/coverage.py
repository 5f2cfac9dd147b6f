"""Rule `coverage`: scores and candidates -> how often each promise is broken."""

from typing import TYPE_CHECKING

import numpy as np

from offramp.scoring.scores import decided_by, read_scores
from offramp.studies.coverage import Population, coverage
from offramp.tables.files import read, write
from offramp.tables.origins import derived
from offramp.thresholds.calibration import CalibrationData
from offramp.thresholds.selection import calibrated_candidates, shared_candidates
from offramp.thresholds.time_model import fit_time_model
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, paths = snakemake.params, snakemake.input
    timings = read(paths.timings, "timings")
    sweep, calibration = read(paths.sweep, "sweep"), read(paths.calibration, "calibration")
    splits = [read_scores(path) for path in (paths.val, paths.test)]
    scores = np.concatenate([split.scores for split in splits])
    correct = np.concatenate([split.correct for split in splits])
    decided = decided_by(splits[0].table)
    candidates = [*shared_candidates(sweep, decided), *calibrated_candidates(calibration, decided)]
    network = Population(
        "network",
        CalibrationData(scores, correct),
        fit_time_model(timings, params.batch_size),
        [
            (candidate.policy, candidate.origin)
            for candidate in candidates
            if candidate.origin.get("calibrated_on", "train") == "train"
        ],
    )
    tables = [timings, sweep, calibration, *(split.table for split in splits)]
    origin = derived(snakemake.config, tables, "val, test")
    write(snakemake.output[0], coverage(network, params.effort), "coverage", origin)
