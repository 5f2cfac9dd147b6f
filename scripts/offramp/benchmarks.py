"""All benchmarks of a network, one after the other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch

from offramp import OfframpError
from offramp.bench_live import answers, overhead, peak, profile, speed
from offramp.bench_model import time_model
from offramp.bench_tables import (
    dump_against_forward,
    dump_memory,
    students_cascade,
    sweep_against_reruns,
)
from offramp.bench_thresholds import thresholds_of_others
from offramp.datasets import DATASETS, Split
from offramp.multiexit import MultiExitNetwork
from offramp.policy import Policy, exits_of
from offramp.tables import read, read_logits, read_scores
from offramp.timemodel import fit_time_model


def run_all(
    plain: MultiExitNetwork,
    networks: Mapping[str, MultiExitNetwork],
    policy: Policy,
    splits: Mapping[str, Split],
    paths: Any,
    params: Any,
    device: torch.device,
) -> list[dict]:
    """The rows of `benchmarks.parquet`.

    Parameters: ``plain`` is the network as loaded, ``networks`` by backend; ``splits`` has train
    and test; ``paths`` are the rule's inputs (logits and scores of val and test, timings, network,
    weights, data), ``params`` its parameters.
    """
    if (policy.criterion, policy.temperatures) != ("entropy", None):
        raise OfframpError("benchmarks: only of entropy on raw logits; leave criterion as it is")
    size, classes, test = params.batch_size, DATASETS[params.dataset].classes, splits["test"]
    scores = {
        split: read_scores(path)[:2]
        for split, path in zip(("val", "test"), paths.scores, strict=True)
    }
    _, val_labels, val_logits, _ = read_logits(paths.logits[0])
    test_logits = read_logits(paths.logits[1])[2]
    model = fit_time_model(read(paths.timings, "timings"))
    parts = read(paths.network, "network")
    multiply_adds = np.stack(
        [parts.filter(pc.field("part") == part)["multiply_adds"] for part in ("block", "head")]
    )
    network, exits = networks[params.backend], exits_of(scores["test"][0], policy.thresholds)
    rows = time_model(network, scores["test"][0], model, multiply_adds, test, device)
    rows += speed(networks, policy, test, device)
    rows += answers(networks, policy, test, test_logits, size, device)
    rows += overhead(network, test, size, device)
    rows += peak(network, policy, exits, multiply_adds, test, size, device)
    rows += profile(network, policy, test, size, device)
    rows += sweep_against_reruns(
        network, paths.scores[1], paths.timings, test, classes, size, device
    )
    rows += dump_against_forward(network, splits["train"], classes, size, device)
    rows += dump_memory(dict(params.items()), paths.weights, str(Path(paths.data[0]).parent))
    rows += thresholds_of_others(val_logits, val_labels, scores, multiply_adds, model, size)
    rows += students_cascade(plain, network, test, params.report_cutoff, size, device)
    return rows
