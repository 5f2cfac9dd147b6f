"""Rule `compare`: finished runs -> a page that puts them side by side."""

from pathlib import Path
from typing import TYPE_CHECKING

from offramp.report.compare_page import compare_page, read_run
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    runs = {folder: read_run(folder) for folder in snakemake.params.runs}
    Path(snakemake.output[0]).write_text(compare_page(runs))
