"""Rule `scores`: logits -> entropy and correctness."""

from typing import TYPE_CHECKING

from offramp.job import job_log
from offramp.scores import scores_table
from offramp.tables import origin_of, read_logits, write

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    sample_id, label, logits, table = read_logits(snakemake.input[0])
    scores = scores_table(sample_id, label, logits)
    write(snakemake.output[0], scores, "scores", origin_of(table))
