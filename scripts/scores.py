"""Rule `scores`: logits -> the criterion's scores, and correctness."""

from typing import TYPE_CHECKING

from offramp.scoring.criteria import CRITERIA, scores_of
from offramp.scoring.scores import (
    fitting_part,
    how_decided,
    of_samples,
    scores_left_out,
    scores_table,
    weights_of,
)
from offramp.tables.files import origin_of, read, read_logits, same_weights, write
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, paths = snakemake.params, snakemake.input
    on_val = snakemake.wildcards.split == "val"
    sample_id, label, logits, table = read_logits(paths.logits)
    rows, temperatures, weights = slice(None), None, None
    if params.temperatures:
        fitted = read(paths.temperatures, "temperatures")
        same_weights([table, fitted])
        temperatures = tuple(fitted["temperature"].to_pylist())
        # Thresholds may not see what fitted the temperatures.
        if on_val:
            rows = slice(fitting_part(len(label)), None)
    if CRITERIA[params.criterion].fitted:
        deferral = read(paths.deferral, "deferral")
        same_weights([table, deferral])
        weights = weights_of(deferral)
    if weights and on_val:
        values = scores_left_out(deferral, logits)
    else:
        values = scores_of(params.criterion, logits[rows], temperatures, weights)
    scores = scores_table(sample_id[rows], label[rows], logits[rows], values, params.criterion)
    origin = origin_of(table) | how_decided(params.criterion, temperatures, weights)
    origin |= of_samples(sample_id, label, logits.shape[2])
    write(snakemake.output[0], scores, "scores", origin)
