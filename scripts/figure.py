"""Rule `figure_...`: tables -> a figure."""

from typing import TYPE_CHECKING

from offramp.figures import draw
from offramp.job import job_log
from offramp.results import read_results

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    draw(snakemake.output.svg, read_results(snakemake.input))
