"""Rule `sweep`: scores and timings -> every cutoff on every split."""

from typing import TYPE_CHECKING

import pyarrow as pa

from offramp.data.datasets import DATASETS, SPLITS
from offramp.scoring.criteria import score_range
from offramp.scoring.scores import decided_by, read_scores
from offramp.tables.files import provenance, read, same_weights, write
from offramp.tables.schemas import SWEEP
from offramp.thresholds.sweep import cutoff_grid, sweep_rows, sweep_split
from offramp.thresholds.time_model import fit_time_model
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params = snakemake.params
    timings = read(snakemake.input.timings, "timings")
    model = fit_time_model(timings)
    found = dict(zip(SPLITS, map(read_scores, snakemake.input.scores), strict=True))
    criterion = decided_by(found["val"].table).criterion
    # Not val's: what tests the cutoffs has no say in them.
    ends = score_range(criterion, DATASETS[params.dataset].classes, found["train"].scores[:, :-1])
    cutoffs = cutoff_grid(params.sweep["cutoffs"], params.sweep["report_cutoff"], ends, criterion)
    pieces = []
    for split, known in found.items():
        result = sweep_split(known.scores, known.correct, cutoffs, model, params.batch_size)
        pieces.append(pa.table(sweep_rows(split, criterion, cutoffs, result), schema=SWEEP))
    origin = provenance(
        snakemake.config, same_weights([timings, *(s.table for s in found.values())])
    )
    write(snakemake.output[0], pa.concat_tables(pieces), "sweep", origin)
