"""Rule `calibration`: scores and timings -> thresholds per target, and what they do."""

from typing import TYPE_CHECKING

import pyarrow as pa

from offramp.calibration import calibrate_all
from offramp.datasets import SPLITS
from offramp.job import job_log
from offramp.tables import (
    CALIBRATION,
    decided_by,
    provenance,
    read,
    read_scores,
    same_weights,
    write,
)
from offramp.timemodel import fit_time_model

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params = snakemake.params
    timings = read(snakemake.input.timings, "timings")
    found = [read_scores(path) for path in snakemake.input.scores]
    scores = {split: data for split, (*data, _) in zip(SPLITS, found, strict=True)}
    criterion, _ = decided_by(found[0][-1])
    model = fit_time_model(timings)
    rows = calibrate_all(scores, criterion, params.calibration, model, params.batch_size)
    origin = provenance(snakemake.config, same_weights([timings, *(table for *_, table in found)]))
    write(snakemake.output[0], pa.table(rows, schema=CALIBRATION), "calibration", origin)
