"""Rule `summary`: tables -> the answers, as Markdown and JSON."""

from typing import TYPE_CHECKING

from offramp.report.results import read_results
from offramp.report.summary import write_summary
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    results = read_results(snakemake.input)
    write_summary(
        results, snakemake.params.config, snakemake.output.markdown, snakemake.output.json
    )
