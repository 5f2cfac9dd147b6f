"""Rule `deferral`: validation logits -> the weights of the criterion `deferral`."""

from typing import TYPE_CHECKING

from offramp.scoring.deferral import deferral_table
from offramp.tables.files import origin_of, read_logits, write
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    val = read_logits(snakemake.input[0])
    write(
        snakemake.output[0], deferral_table(val.logits, val.label), "deferral", origin_of(val.table)
    )
