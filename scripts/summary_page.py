"""Rule `summary_page`: the summary and its figures -> one page."""

from pathlib import Path
from typing import TYPE_CHECKING

from offramp.common.files import write_text
from offramp.report.page import as_page
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    markdown = Path(snakemake.input.markdown)
    page = as_page(markdown.read_text(), markdown.parent, snakemake.params.links)
    write_text(snakemake.output[0], page)
