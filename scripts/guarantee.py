"""Rule `guarantee`: scores and timings -> how often each method keeps its word, and its cost."""

from typing import TYPE_CHECKING

from offramp.guarantee_benchmark import benchmark, pooled, synthetic
from offramp.job import job_log
from offramp.tables import decided_by, provenance, read, read_scores, same_weights, write
from offramp.timemodel import fit_time_model

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, paths = snakemake.params, snakemake.input
    timings = read(paths.timings, "timings")
    found = [read_scores(path) for path in (paths.val, paths.test)]
    splits = [(scores, correct) for scores, correct, _ in found]
    criterion, *_ = decided_by(found[0][-1])
    network = pooled(splits, criterion, fit_time_model(timings), params.batch_size)
    rows = benchmark({"network": network, "synthetic": synthetic()}, params.confidence)
    origin = provenance(snakemake.config, same_weights([timings, *(table for *_, table in found)]))
    write(snakemake.output[0], rows, "guarantee", origin | {"split": "val, test"})
