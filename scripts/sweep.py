"""Rule `sweep`: scores and timings -> every cutoff on every split."""

from typing import TYPE_CHECKING

import pyarrow as pa

from offramp.datasets import DATASETS, SPLITS
from offramp.job import job_log
from offramp.sweep import cutoff_grid, sweep_rows, sweep_split
from offramp.tables import SWEEP, provenance, read, read_scores, same_weights, write
from offramp.timemodel import fit_time_model

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params = snakemake.params
    timings = read(snakemake.input.timings, "timings")
    model = fit_time_model(timings)
    classes = DATASETS[params.dataset].classes
    cutoffs = cutoff_grid(params.sweep["cutoffs"], params.sweep["report_cutoff"], classes)
    pieces, tables = [], [timings]
    for split, path in zip(SPLITS, snakemake.input.scores, strict=True):
        entropy, correct, table = read_scores(path)
        result = sweep_split(entropy, correct, cutoffs, model, params.batch_size)
        pieces.append(pa.table(sweep_rows(split, cutoffs, result), schema=SWEEP))
        tables.append(table)
    origin = provenance(snakemake.config, same_weights(tables))
    write(snakemake.output[0], pa.concat_tables(pieces), "sweep", origin)
