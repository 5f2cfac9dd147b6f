"""Rule `sweep`: scores and timings -> every cutoff on every split."""

from typing import TYPE_CHECKING

import pyarrow as pa

from offramp.scoring.scores import classes_of, decided_by, read_splits
from offramp.tables.files import read, write
from offramp.tables.origins import derived
from offramp.tables.schemas import SWEEP
from offramp.thresholds.sweep import cutoff_ends, cutoff_grid, sweep_rows, sweep_split
from offramp.thresholds.time_model import fit_time_model
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params = snakemake.params
    timings = read(snakemake.input.timings, "timings")
    model = fit_time_model(timings, params.batch_size)
    splits = read_splits(snakemake.input.scores)
    criterion = decided_by(splits["val"].table).criterion
    asked, report = params.sweep["cutoffs"], params.sweep["report_cutoff"]
    train = splits["train"].scores[:, :-1] if "train" in splits else None
    ends = cutoff_ends(criterion, classes_of(splits["val"].table), asked, train)
    cutoffs = cutoff_grid(asked, report, ends, criterion)
    pieces = []
    for split, scored in splits.items():
        result = sweep_split(scored.scores, scored.correct, cutoffs, model)
        pieces.append(pa.table(sweep_rows(split, criterion, cutoffs, result), schema=SWEEP))
    origin = derived(snakemake.config, [timings, *(s.table for s in splits.values())])
    write(snakemake.output[0], pa.concat_tables(pieces), "sweep", origin)
