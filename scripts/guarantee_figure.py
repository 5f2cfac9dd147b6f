"""Rule `guarantee_figure`: how often thresholds keep their word, and what that costs, drawn."""

from typing import TYPE_CHECKING

from offramp.figures import draw
from offramp.job import job_log
from offramp.tables import read

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    draw(snakemake.output.svg, read(snakemake.input[0], "guarantee").to_pandas())
