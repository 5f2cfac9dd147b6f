"""Rule `benchmark_run`: a cold run of the whole workflow, by Snakemake's account of its rules."""

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from offramp.inference.machine import prepare
from offramp.studies.bench_run import cold_run
from offramp.tables.files import provenance, sha256, write
from offramp.tables.schemas import BENCHMARKS
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    weights = snakemake.input.weights
    _, machine = prepare(snakemake.params)
    data = Path(snakemake.input.data[0]).parents[1]
    rows = cold_run(snakemake.config, weights, data, snakemake.params.files)
    origin = provenance(snakemake.config, sha256(weights), "all") | machine
    write(snakemake.output[0], pa.Table.from_pylist(rows, schema=BENCHMARKS), "benchmarks", origin)
