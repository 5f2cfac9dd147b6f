"""Rule `leaving`: logits, timings and the best policy -> which samples are easy."""

from pathlib import Path
from typing import TYPE_CHECKING

from offramp.networks.identity import Identity
from offramp.scoring.policy import load_policy_for, outcome_of_tables
from offramp.tables.files import origin_of, read, read_logits, same_weights, write
from offramp.tables.origins import derived
from offramp.thresholds.leaving import (
    agreement_table,
    confusion_by_exit,
    leaving_table,
    oracle_table,
)
from offramp.thresholds.time_model import fit_time_model
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    paths, outputs = snakemake.input, snakemake.output
    test = read_logits(paths.logits)
    timings = read(paths.timings, "timings")
    weights = same_weights([test.table, timings])
    network = Identity(origin_of(test.table)["model"], paths.logits, weights)
    policy = load_policy_for(paths.policy, *test.logits.shape[1:], network)
    model = fit_time_model(timings, snakemake.params.batch_size)
    outcome, predicted = outcome_of_tables(policy, test.logits), test.logits.argmax(axis=2)
    correct = predicted == test.label[:, None]
    origin = derived(snakemake.config, [timings, test.table], "test")
    origin |= {"policy": Path(paths.policy).stem}
    counts = confusion_by_exit(outcome, test.label, *test.logits.shape[1:])
    write(outputs.leaving, leaving_table(counts), "leaving", origin)
    write(outputs.agreement, agreement_table(predicted, test.label), "agreement", origin)
    oracle = oracle_table(correct, outcome, policy, model)
    write(outputs.oracle, oracle, "oracle", origin)
