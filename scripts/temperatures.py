"""Rule `temperatures`: validation logits -> a temperature per exit."""

from typing import TYPE_CHECKING

from offramp.scoring.temperatures import temperatures_table
from offramp.tables.files import origin_of, read_logits, write
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    val = read_logits(snakemake.input[0])
    rows = temperatures_table(val.logits, val.label)
    write(snakemake.output[0], rows, "temperatures", origin_of(val.table))
