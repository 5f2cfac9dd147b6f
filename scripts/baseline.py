"""Rule `baseline`: the cascade at its best policy against a plain network as fast as it."""

from pathlib import Path
from typing import TYPE_CHECKING

from offramp.data.datasets import DATASETS
from offramp.data.splits import open_split
from offramp.inference.backends import for_inference
from offramp.inference.baseline import compare
from offramp.inference.machine import prepare
from offramp.networks.loading import load
from offramp.scoring.policy import load_policy_for
from offramp.tables.files import provenance, sha256, write
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, paths = snakemake.params, snakemake.input
    device, machine = prepare(params)
    classes = DATASETS[params.dataset].classes
    network = for_inference(load(params.model, classes, paths.weights, device), params.backend)
    baseline = for_inference(
        load(params.baseline["name"], classes, paths.baseline, device), params.backend
    )
    split = open_split(Path(paths.data[0]).parent, params.dataset, "test", params.validation)
    policy = load_policy_for(paths.policy, len(network.heads), classes, network.identity)
    rows = compare(network, policy, baseline, split, params.batch_size, device)
    origin = provenance(snakemake.config, sha256(paths.weights), "test") | machine
    origin |= {
        "baseline": params.baseline["name"],
        "baseline_weights_sha256": sha256(paths.baseline),
    }
    write(snakemake.output[0], rows, "baseline", origin)
