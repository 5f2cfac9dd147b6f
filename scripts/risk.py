"""Rule `risk`: validation logits -> the weights of the criterion `risk`."""

from typing import TYPE_CHECKING

from offramp.scoring.risk import risk_table
from offramp.tables.files import origin_of, read_logits, write
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    _, label, logits, table = read_logits(snakemake.input[0])
    write(snakemake.output[0], risk_table(logits, label), "risk", origin_of(table))
