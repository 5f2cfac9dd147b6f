"""Rule `multiply_adds`: the thresholds' benchmark -> its figure."""

from typing import TYPE_CHECKING

from offramp.figures.draw import draw
from offramp.tables.files import read
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    draw(snakemake.output.svg, read(snakemake.input[0], "benchmarks").to_pandas())
