"""Rule `own_costs`: what the user says a sample costs at each block and head -> timings."""

from typing import TYPE_CHECKING

from offramp.tables.files import origin_of, provenance, read_logits, write
from offramp.tables.own import own_costs, read_costs
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params = snakemake.params
    dumped = read_logits(snakemake.input.logits)
    exits, about = dumped.logits.shape[1], origin_of(dumped.table)
    if isinstance(params.costs, str):
        timings = read_costs(params.costs, exits)
        clock = origin_of(timings)
    else:
        timings = own_costs(params.costs, exits, params.batch_size)
        clock = {"unit": params.costs["unit"]}
    of_logits = {key: about[key] for key in ("dataset", "model", "weights_sha256", "logits")}
    origin = provenance(snakemake.config, about["weights_sha256"]) | clock | of_logits
    write(snakemake.output[0], timings, "timings", origin)
