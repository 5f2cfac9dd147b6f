"""Rule `coverage_page`: stated and measured rates for a reader."""

from datetime import date
from typing import TYPE_CHECKING

from offramp.common.files import write_text
from offramp.report.coverage_page import page
from offramp.tables.files import origin_of, read
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    table = read(snakemake.input.table, "coverage")
    day = date.today().isoformat()
    write_text(snakemake.output[0], page(table, origin_of(table), day))
