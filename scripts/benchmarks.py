"""Rule `benchmarks`: everything that is measured against something else, in one run."""

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from offramp.backends import BACKENDS, for_inference
from offramp.benchmarks import run_all
from offramp.datasets import DATASETS, open_split
from offramp.job import job_log
from offramp.machine import prepare
from offramp.networks import load
from offramp.policy import load_policy
from offramp.tables import BENCHMARKS, provenance, sha256, write

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, paths = snakemake.params, snakemake.input
    device, machine = prepare(params)
    classes, folder = DATASETS[params.dataset].classes, Path(paths.data[0]).parent
    splits = {
        name: open_split(folder, params.dataset, name, params.validation)
        for name in ("train", "test")
    }
    plain = load(params.model, classes, paths.weights, device)
    networks = {
        backend: for_inference(load(params.model, classes, paths.weights, device), backend)
        for backend in BACKENDS
    }
    policy = load_policy(paths.policy)
    rows = run_all(plain, networks, policy, splits, paths, params, device)
    origin = provenance(snakemake.config, sha256(paths.weights), "test") | machine
    write(snakemake.output[0], pa.Table.from_pylist(rows, schema=BENCHMARKS), "benchmarks", origin)
