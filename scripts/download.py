"""Rule `download`: sources -> arrays."""

from pathlib import Path
from typing import TYPE_CHECKING

from offramp.data.download import get_dataset
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    # The sources are read here and are no parameter: another address gives the same data.
    sources = snakemake.config["dataset"]["sources"]
    get_dataset(snakemake.params.dataset, sources, Path(snakemake.output[0]).parent)
