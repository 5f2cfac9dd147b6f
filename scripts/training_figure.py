"""Rule `training_figure`: training curves -> figure."""

from typing import TYPE_CHECKING

from offramp.figures import draw
from offramp.job import job_log
from offramp.tables import read

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    draw(snakemake.output.svg, read(snakemake.input[0], "training").to_pandas())
