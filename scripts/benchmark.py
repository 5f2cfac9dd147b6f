"""Rule `benchmark`: one part of the benchmarks, what it compares measured in turn in one run."""

from typing import TYPE_CHECKING

import pyarrow as pa

from offramp.inference.machine import prepare
from offramp.studies.benchmarks import PARTS, subject_of
from offramp.tables.files import provenance, sha256, write
from offramp.tables.schemas import BENCHMARKS
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, paths = snakemake.params, snakemake.input
    device, machine = prepare(params)
    rows = PARTS[snakemake.wildcards.part](subject_of(paths, params, device))
    origin = provenance(snakemake.config, sha256(paths.weights), "test") | machine
    write(snakemake.output[0], pa.Table.from_pylist(rows, schema=BENCHMARKS), "benchmarks", origin)
