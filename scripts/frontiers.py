"""Rule `frontiers`: logits, fits to them and timings -> time against accuracy, by criterion."""

from typing import TYPE_CHECKING

from offramp.studies.frontiers import SplitData, curves, equal_accuracy_table, frontiers_table
from offramp.tables.files import read, read_logits, write
from offramp.tables.origins import derived
from offramp.thresholds.time_model import fit_time_model
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    paths, output = snakemake.input, snakemake.output
    names = "timings", "temperatures", "deferral"
    timings, temperatures, deferral = tables = [read(getattr(paths, name), name) for name in names]
    splits = []
    for path in (paths.val, paths.test):
        split = read_logits(path)
        correct = split.logits.argmax(axis=2) == split.label[:, None]
        splits.append(SplitData(split.logits, split.label, correct))
        tables.append(split.table)
    model = fit_time_model(timings, snakemake.params.batch_size)
    all_curves = curves(*splits, temperatures["temperature"].to_pylist(), deferral, model)
    origin = derived(snakemake.config, tables, "test")
    write(output.frontiers, frontiers_table(all_curves), "frontiers", origin)
    equal = equal_accuracy_table(all_curves, splits[1].correct, model)
    write(output.equal_accuracy, equal, "equal_accuracy", origin)
