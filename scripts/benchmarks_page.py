"""Rule `benchmarks_page`: all parts as one table, and for a reader."""

from typing import TYPE_CHECKING

import pyarrow as pa

from offramp.common.files import write_text
from offramp.figures.draw import draw
from offramp.report.bench_page import page
from offramp.tables.files import origin_of, read, same_weights, write
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    parts = [read(path, "benchmarks") for path in snakemake.input]
    same_weights(parts)
    origin, rows = origin_of(parts[0]), pa.concat_tables(parts)
    write(snakemake.output.table, rows, "benchmarks", origin)
    draw(snakemake.output.svg, rows.to_pandas())
    write_text(snakemake.output.page, page(rows.to_pandas(), origin))
