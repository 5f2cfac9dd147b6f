"""Rule `export`: policy, weights and logits -> a folder that runs elsewhere, proved and timed."""

from pathlib import Path
from typing import TYPE_CHECKING

from offramp.data.datasets import dataset_of
from offramp.data.splits import blank, open_split
from offramp.inference.deployed import Cascade
from offramp.inference.export import export
from offramp.inference.exported import note_measured, prove, time_export
from offramp.inference.machine import prepare
from offramp.networks.loading import build
from offramp.networks.own.factory import is_own
from offramp.tables.files import provenance, read_logits, same_weights, write
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, paths = snakemake.params, snakemake.input
    folder, table = snakemake.output.folder, snakemake.output.table
    # onnxruntime runs it on the CPU, so torch does too.
    _, machine = prepare({"device": "cpu", "backend": "eager", "threads": params.threads})
    dataset, network = dataset_of(params.dataset), None
    if is_own(params.model["name"]):
        network = build(params.model, dataset.classes, blank(dataset, 3))
    export(paths.policy, paths.weights, folder, network)
    deployed = Cascade.load(paths.policy, paths.weights, network=network)
    test = read_logits(paths.logits)
    data = Path(snakemake.input.data[0]).parent
    split = open_split(data, params.dataset, "test", params.validation)
    proof = prove(folder, deployed, split, test.logits)
    seconds = time_export(folder, deployed, split, int(machine["threads"]))
    note_measured(folder, proof, seconds, machine)
    origin = provenance(snakemake.config, same_weights([test.table]), "test") | machine
    write(table, seconds, "export", origin)
