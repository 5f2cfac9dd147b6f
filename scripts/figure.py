"""Rule `figure`: tables -> a figure."""

from typing import TYPE_CHECKING

from offramp.figures.draw import draw
from offramp.report.results import read_results
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    draw(snakemake.output.svg, read_results(snakemake.input))
