"""Rule `measured_page`: one part of the benchmarks -> a page."""

from pathlib import Path
from typing import TYPE_CHECKING

from offramp.report.bench_page import page
from offramp.tables.files import origin_of, read
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    rows = read(snakemake.input[0], "benchmarks")
    Path(snakemake.output[0]).write_text(page(rows.to_pandas(), origin_of(rows)))
