"""Rule `download`: sources, or the user's own files -> arrays."""

from pathlib import Path
from typing import TYPE_CHECKING

from offramp.data.datasets import OWN
from offramp.data.download import get_dataset
from offramp.data.taking import take_own
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    data, known = snakemake.config["dataset"], snakemake.params.dataset
    folder = Path(snakemake.output[0]).parent
    if data["name"] in OWN:
        take_own(data, known, folder)
    else:
        # The sources are read here and are no parameter: another address gives the same data.
        get_dataset(data["name"], data["sources"], folder)
