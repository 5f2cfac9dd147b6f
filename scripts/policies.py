"""Rule `policies`: sweep and calibration -> the chosen policies."""

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
    sweep, calibration = read(paths.sweep, "sweep"), read(paths.calibration, "calibration")
    values, correct, scores = read_scores(paths.scores)
    same_weights([sweep, calibration, scores])
    chosen = choose_policies(
        sweep,
        calibration,
        values,
        correct,
        params.report_cutoff,
        params.target,
        params.selection,
        *decided_by(scores),
    )
    for path in snakemake.output:
        policy, about = chosen[Path(path).stem]
        save_policy(path, policy, **about, provenance=origin_of(sweep) | {"split": "val"})
