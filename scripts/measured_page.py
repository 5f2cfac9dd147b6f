"""Rule `measured_page`: one part of the benchmarks -> a page."""

from typing import TYPE_CHECKING

from offramp.common.files import write_text
from offramp.report.bench_page import page
from offramp.tables.files import origin_of, read
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    rows = read(snakemake.input[0], "benchmarks")
    write_text(snakemake.output[0], page(rows.to_pandas(), origin_of(rows)))
