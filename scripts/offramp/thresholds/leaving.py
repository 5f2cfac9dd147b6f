"""Which samples are easy: who leaves where and as what, how exits agree, what an oracle reaches."""

import numpy as np
import pyarrow as pa

from offramp.scoring.policy import Outcome, Policy
from offramp.tables.schemas import AGREEMENT, LEAVING, ORACLE
from offramp.thresholds.evaluation import evaluate_exits, evaluation_rows
from offramp.thresholds.time_model import TimeModel


def confusion_by_exit(outcome: Outcome, label: np.ndarray, exits: int, classes: int) -> np.ndarray:
    """How many samples of each class leave at each exit under each label: int64 (K, C, C), by exit,
    true class and predicted label. ``label`` is int64 (N,)."""
    counts = np.zeros((exits, classes, classes), dtype=np.int64)
    np.add.at(counts, (outcome.exits - 1, label, outcome.labels), 1)
    return counts


def leaving_table(counts: np.ndarray) -> pa.Table:
    """The rows of `leaving.parquet`, every cell of ``counts`` (K, C, C), also the empty ones."""
    exit_, label, predicted = np.indices(counts.shape).reshape(3, -1)
    return pa.table([exit_ + 1, label, predicted, counts.ravel()], schema=LEAVING)


def agreement_table(predicted: np.ndarray, label: np.ndarray) -> pa.Table:
    """The rows of `agreement.parquet`, one per ordered pair of exits, over all samples at both.

    Parameters: ``predicted`` int64 (N, K), ``label`` int64 (N,). ``same_label`` counts the samples
    that both exits call the same, right or wrong; ``only_first_right`` those that the first gets
    right and the second wrong.
    """
    samples, exits = predicted.shape
    right = predicted == label[:, None]
    hits, misses = right.astype(np.int64), (~right).astype(np.int64)
    same = [(predicted == predicted[:, [k]]).sum(axis=0) for k in range(exits)]
    first, second = np.indices((exits, exits)).reshape(2, -1) + 1
    both, only_first = (hits.T @ hits).ravel(), (hits.T @ misses).ravel()
    columns = [first, second, np.full(exits**2, samples), np.ravel(same), both, only_first]
    return pa.table(columns, schema=AGREEMENT)


def oracle_exits(correct: np.ndarray) -> np.ndarray:
    """The exit, 1..K, at which an oracle lets each sample leave: the first that is right, the final
    one where none is. ``correct`` is bool (N, K).

    It is right wherever any exit is, so what it is more accurate than the full network is the
    network's destructive overthinking: right at an earlier exit, wrong at the final one. Source:
    Kaya, Hong, Dumitras, "Shallow-Deep Networks: Understanding and Mitigating Network
    Overthinking" (2019).
    """
    last = np.ones((len(correct), 1), dtype=bool)
    return np.hstack([correct[:, :-1], last]).argmax(axis=1) + 1


def oracle_table(
    correct: np.ndarray, outcome: Outcome, policy: Policy, model: TimeModel
) -> pa.Table:
    """The rows of `oracle.parquet`: accuracy and predicted time of the full network, of a policy,
    of the oracle, and of all samples at one side exit (``exit_1``, ...); K + 1 rows each, exit 0
    being overall.

    ``correct`` is bool (N, K). The oracle pays for every head and decision on its way, as a policy
    that enables all exits does; all samples at one exit for its blocks and that exit's head.
    """
    samples, exits = correct.shape
    everywhere = np.ones((2, exits), dtype=bool)
    at_one = {
        k: (np.full(samples, k), np.tile(np.arange(1, exits + 1) == k, (2, 1)))
        for k in range(1, exits + 1)
    }
    rules = {
        "full": at_one.pop(exits),
        "policy": (outcome.exits, policy.runs),
        "oracle": (oracle_exits(correct), everywhere),
        **{f"exit_{k}": case for k, case in at_one.items()},
    }
    pieces = []
    for rule, (taken, runs) in rules.items():
        result = evaluate_exits(taken, correct, runs, model)
        rows = {"exit_rule": [rule] * (exits + 1), **evaluation_rows(result)}
        pieces.append(pa.table(rows, schema=ORACLE))
    return pa.concat_tables(pieces)
