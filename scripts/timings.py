"""Rule `timings`: the timings of all splits and of the probe in one table."""

from typing import TYPE_CHECKING

import pyarrow as pa

from offramp.tables.files import origin_of, read, same_weights, write
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    tables = [read(path, "timings") for path in snakemake.input]
    same_weights(tables)
    origin = origin_of(tables[-1]) | {"split": "all"}
    write(snakemake.output[0], pa.concat_tables(tables), "timings", origin)
