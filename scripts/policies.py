"""Rule `policies`: sweep, calibration and optimism -> the chosen policies."""

from pathlib import Path
from typing import TYPE_CHECKING

from offramp.networks.identity import Identity
from offramp.scoring.policy import save_policy
from offramp.scoring.scores import decided_by, read_scores
from offramp.tables.files import origin_of, read, same_weights
from offramp.thresholds.selection import ValidationScores, choose_policies
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    params, paths = snakemake.params, snakemake.input
    names = "sweep", "calibration", "optimism"
    tables = [read(getattr(paths, name), name) for name in names]
    values, correct, scores = read_scores(paths.scores)
    weights = same_weights([*tables, scores])
    model = origin_of(scores)["model"]
    network = Identity(model, params.weights, weights, params.options or None)
    chosen = choose_policies(
        *tables,
        ValidationScores(values, correct, decided_by(scores)),
        params.report_cutoff,
        params.target,
        params.selection,
    )
    for path in snakemake.output:
        policy, about = chosen[Path(path).stem]
        policy = policy._replace(network=network)
        save_policy(path, policy, **about, provenance=origin_of(tables[0]) | {"split": "val"})
