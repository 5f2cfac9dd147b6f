"""Rule `benchmarks_page`: the benchmarks for a reader."""

from pathlib import Path
from typing import TYPE_CHECKING

from offramp.bench_page import page
from offramp.figures import draw
from offramp.job import job_log
from offramp.tables import origin_of, read

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    table = read(snakemake.input[0], "benchmarks")
    draw(snakemake.output.svg, table.to_pandas())
    Path(snakemake.output.page).write_text(page(table.to_pandas(), origin_of(table)))
