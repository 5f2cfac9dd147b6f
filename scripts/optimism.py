"""Rule `optimism`: validation scores and logits -> what fitted thresholds lose more on new data."""

from typing import TYPE_CHECKING

import pyarrow as pa

from offramp.scoring.scores import decided_by, read_logits_of, read_scores
from offramp.tables.files import read, write
from offramp.tables.origins import derived
from offramp.tables.schemas import OPTIMISM
from offramp.thresholds.calibration import CalibrationData, targets_of
from offramp.thresholds.joint import costs_of
from offramp.thresholds.optimism import optimism
from offramp.thresholds.time_model import fit_time_model
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, paths = snakemake.params, snakemake.input
    timings = read(paths.timings, "timings")
    scores, correct, table = read_scores(paths.scores)
    data = CalibrationData(scores, correct, *read_logits_of(table, paths.logits))
    targets = targets_of(params.calibration)
    costs = costs_of(fit_time_model(timings, params.batch_size), decided_by(table).criterion)
    more = optimism(params.calibration, data, targets, costs)
    origin = derived(snakemake.config, [timings, table], "val")
    rows = pa.table({"target": targets, "optimism": more}, schema=OPTIMISM)
    write(snakemake.output[0], rows, "optimism", origin)
