"""Rule `scores`: logits -> the criterion's scores, and correctness."""

from typing import TYPE_CHECKING

from offramp.job import job_log
from offramp.scores import how_decided, scores_table
from offramp.tables import origin_of, read, read_logits, same_weights, write
from offramp.thresholds import fitting_part

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, paths = snakemake.params, snakemake.input
    sample_id, label, logits, table = read_logits(paths.logits)
    rows, temperatures = slice(None), None
    if params.temperatures:
        found = read(paths.temperatures, "temperatures")
        same_weights([table, found])
        temperatures = found["temperature"].to_pylist()
        # Thresholds may not see what fitted the temperatures.
        if snakemake.wildcards.split == "val":
            rows = slice(fitting_part(len(label)), None)
    columns = sample_id[rows], label[rows], logits[rows]
    scores = scores_table(*columns, params.criterion, temperatures)
    origin = origin_of(table) | how_decided(params.criterion, temperatures)
    write(snakemake.output[0], scores, "scores", origin)
