"""Rule `frontiers_page`: criteria and methods for a reader."""

from pathlib import Path
from typing import TYPE_CHECKING

from offramp.figures.draw import draw
from offramp.report.frontiers_page import page
from offramp.tables.files import origin_of, read
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    names = ("frontiers", "equal_accuracy")
    tables = {name: read(getattr(snakemake.input, name), name) for name in names}
    for path in snakemake.output.svg:
        draw(path, {name: table.to_pandas() for name, table in tables.items()})
    equal = tables["equal_accuracy"]
    Path(snakemake.output.page).write_text(page(equal, origin_of(equal)))
