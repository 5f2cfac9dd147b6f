"""Rule `frontiers_page`: criteria and methods for a reader."""

from typing import TYPE_CHECKING

from offramp.common.files import write_text
from offramp.figures.draw import draw
from offramp.report.frontiers_page import page
from offramp.tables.files import origin_of, read
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    names = ("frontiers", "equal_accuracy")
    tables = {name: read(getattr(snakemake.input, name), name) for name in names}
    equal = tables["equal_accuracy"]
    unit = origin_of(equal).get("unit", "s")
    for path in snakemake.output.svg:
        draw(path, {name: table.to_pandas() for name, table in tables.items()} | {"unit": unit})
    write_text(snakemake.output.page, page(equal, origin_of(equal)))
