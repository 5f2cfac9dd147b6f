"""Rule `rival_figure`: the rival beside the cascade, in one figure."""

from typing import TYPE_CHECKING

from offramp.figures import draw
from offramp.job import job_log
from offramp.tables import read

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    draw(
        snakemake.output.svg,
        (
            read(snakemake.input.rival, "rival").to_pandas(),
            read(snakemake.input.sweep, "sweep").to_pandas(),
        ),
    )
