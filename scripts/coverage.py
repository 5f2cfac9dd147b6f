"""Rule `coverage`: scores and candidates -> how often each promise is broken."""

from typing import TYPE_CHECKING

import numpy as np

from offramp.calibration import CalibrationData
from offramp.coverage import Population, coverage
from offramp.job import job_log
from offramp.selection import calibrated_candidates, shared_candidates
from offramp.tables import decided_by, provenance, read, read_scores, same_weights, write
from offramp.timemodel import fit_time_model

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, paths = snakemake.params, snakemake.input
    timings = read(paths.timings, "timings")
    sweep, calibration = read(paths.sweep, "sweep"), read(paths.calibration, "calibration")
    found = [read_scores(path) for path in (paths.val, paths.test)]
    scores, correct = (np.concatenate([part[i] for part in found]) for i in (0, 1))
    decided = decided_by(found[0][-1])
    known = [*shared_candidates(sweep, *decided), *calibrated_candidates(calibration, *decided)]
    network = Population(
        "network",
        CalibrationData(scores, correct),
        fit_time_model(timings),
        params.batch_size,
        [(c.policy, c.origin) for c in known if c.origin.get("calibrated_on", "train") == "train"],
    )
    tables = [timings, sweep, calibration, *(table for *_, table in found)]
    origin = provenance(snakemake.config, same_weights(tables), "val, test")
    write(snakemake.output[0], coverage(network, params.effort), "coverage", origin)
