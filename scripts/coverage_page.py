"""Rule `coverage_page`: stated and measured rates for a reader."""

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from offramp.report.coverage_page import page
from offramp.tables.files import origin_of, read
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    table = read(snakemake.input.table, "coverage")
    day = date.today().isoformat()
    Path(snakemake.output[0]).write_text(page(table, origin_of(table), day))
