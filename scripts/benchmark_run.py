"""Rule `benchmark_run`: a cold run of the whole workflow, by Snakemake's account of its rules."""

from typing import TYPE_CHECKING

import pyarrow as pa

from offramp.bench_run import cold_run
from offramp.job import job_log
from offramp.machine import prepare
from offramp.tables import BENCHMARKS, provenance, sha256, write

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    weights = snakemake.input.weights
    _, machine = prepare(snakemake.params)
    rows = cold_run(snakemake.config, weights, snakemake.params.files)
    origin = provenance(snakemake.config, sha256(weights), "all") | machine
    write(snakemake.output[0], pa.Table.from_pylist(rows, schema=BENCHMARKS), "benchmarks", origin)
