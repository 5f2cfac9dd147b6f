"""Rule `policies`: sweep, calibration and optimism -> the chosen policies."""

from pathlib import Path
from typing import TYPE_CHECKING

from offramp.job import job_log
from offramp.policy import save_policy
from offramp.selection import choose_policies
from offramp.tables import decided_by, origin_of, read, read_scores, same_weights

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, paths = snakemake.params, snakemake.input
    names = "sweep", "calibration", "optimism"
    tables = [read(getattr(paths, name), name) for name in names]
    values, correct, scores = read_scores(paths.scores)
    same_weights([*tables, scores])
    chosen = choose_policies(
        *tables,
        values,
        correct,
        params.report_cutoff,
        params.target,
        params.selection,
        *decided_by(scores),
    )
    for path in snakemake.output:
        policy, about = chosen[Path(path).stem]
        save_policy(path, policy, **about, provenance=origin_of(tables[0]) | {"split": "val"})
