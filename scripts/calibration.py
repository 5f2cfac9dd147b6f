"""Rule `calibration`: scores, logits and timings -> thresholds per target, and what they do."""

from typing import TYPE_CHECKING

import pyarrow as pa

from offramp.scoring.scores import decided_by, read_logits_of, read_splits
from offramp.tables.files import read, write
from offramp.tables.origins import derived
from offramp.tables.schemas import CALIBRATION
from offramp.thresholds.calibration import CalibrationData, calibrate_all
from offramp.thresholds.time_model import fit_time_model
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params = snakemake.params
    timings = read(snakemake.input.timings, "timings")
    scored = read_splits(snakemake.input.scores)
    tables = {split: s.table for split, s in scored.items()}
    splits = {split: CalibrationData(s.scores, s.correct) for split, s in scored.items()}
    logits, label = read_logits_of(tables["val"], snakemake.input.logits)
    splits["val"] = splits["val"]._replace(logits=logits, label=label)
    criterion = decided_by(tables["val"]).criterion
    model = fit_time_model(timings, params.batch_size)
    rows = calibrate_all(splits, criterion, params.calibration, model)
    origin = derived(snakemake.config, [timings, *tables.values()])
    write(snakemake.output[0], pa.table(rows, schema=CALIBRATION), "calibration", origin)
