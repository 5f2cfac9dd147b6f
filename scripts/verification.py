"""Rule `verification`: the live cascade on test data against the tables."""

from typing import TYPE_CHECKING

from offramp.inference.opening import open_run
from offramp.inference.verification import cases_of, check_logits, verify
from offramp.tables.files import provenance, read, read_logits, same_weights, write
from offramp.thresholds.time_model import fit_time_model
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, paths = snakemake.params, snakemake.input
    network, split, device, machine = open_run(paths, params, "test")
    test = read_logits(paths.logits)
    timings = read(paths.timings, "timings")
    check_logits(paths.logits, test, split, network)
    weights = same_weights([test.table, timings])
    cases = cases_of(paths.policies, test.logits, network.identity)
    model = fit_time_model(timings, params.batch_size)
    rows = verify(network, cases, split, test.logits, model, device)
    origin = provenance(snakemake.config, weights, "test") | machine
    write(snakemake.output[0], rows, "verification", origin)
