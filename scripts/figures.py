"""Rule `figures`: tables -> every figure."""

from typing import TYPE_CHECKING

from offramp.figures import draw
from offramp.job import job_log
from offramp.results import read_results

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    results = read_results(snakemake.input)
    for path in snakemake.output.svg:
        draw(path, results)
