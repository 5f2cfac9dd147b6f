"""Rule `baseline`: the cascade at its best policy against a plain network as fast as it."""

from typing import TYPE_CHECKING

from offramp.data.datasets import dataset_of
from offramp.inference.baseline import compare
from offramp.inference.opening import open_run, ready_network
from offramp.scoring.policy import load_policy_for
from offramp.tables.files import provenance, sha256, write
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, paths = snakemake.params, snakemake.input
    network, split, device, machine = open_run(paths, params, "test")
    baseline = ready_network(params.baseline["name"], paths.baseline, params, split, device)
    classes = dataset_of(params.dataset).classes
    policy = load_policy_for(paths.policy, len(network.heads), classes, network.identity)
    rows = compare(network, policy, baseline, split, params.batch_size, device)
    origin = provenance(snakemake.config, network.identity.weights_sha256, "test") | machine
    origin |= {
        "baseline": params.baseline["name"],
        "baseline_weights_sha256": sha256(paths.baseline),
    }
    write(snakemake.output[0], rows, "baseline", origin)
