"""Benchmark against public networks without exits: accuracy at equal seconds."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from offramp.data.splits import Split
from offramp.inference.cascade import cascade, run_full_network
from offramp.networks.loading import describe
from offramp.networks.multiexit import MultiExitNetwork
from offramp.scoring.policy import Policy, exits_of
from offramp.studies.bench_live import each, interleaved, load_batches, row
from offramp.studies.public_networks import PUBLIC, built
from offramp.thresholds.calibration import CalibrationData, thresholds_for
from offramp.thresholds.joint import costs_of
from offramp.thresholds.time_model import TimeModel

SIZE, IMAGES, TURNS = 256, 2_048, 7
# Fractions lost on the validation data that fitted the thresholds, along the cascade's frontier.
LOST = (0.0, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08)


def against_public_networks(
    network: MultiExitNetwork,
    best: Policy,
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]],
    multiply_adds: np.ndarray,
    model: TimeModel,
    split: Split,
    device: torch.device,
) -> list[dict]:
    """Seconds, accuracy on test data and mean multiply-adds of the public networks, of the full
    network and of its cascade: at the run's best policy, and at thresholds chosen jointly on
    validation data.

    Parameters: ``scores`` entropy and correctness (N, K) of val and test; ``multiply_adds`` int
    (2, K); the test ``split``. All run interleaved, in batches of SIZE.
    """
    policies = {"cascade, best policy": best, **_frontier(scores["val"], model)}
    others = {name: built(name, device) for name in PUBLIC}
    batches = load_batches(split, IMAGES, SIZE, device)
    contenders: dict[str, Callable[[], Any]] = {
        **{name: each(partial(run_full_network, other), batches) for name, other in others.items()},
        "full network": each(partial(run_full_network, network), batches),
        **{n: each(partial(cascade, network, p), batches) for n, p in policies.items()},
    }
    where = {"images": sum(map(len, batches)), "batch_size": SIZE}
    with torch.inference_mode():
        rows = interleaved("public", contenders, device, TURNS, **where)
    for name, other in others.items():
        rows += _figures(
            name, PUBLIC[name].accuracy, describe(other, batches[0][:1])["multiply_adds"][0].as_py()
        )
    values, correct = scores["test"]
    nobody = Policy("entropy", (None,) * (len(network.heads) - 1))
    for name, policy in {"full network": nobody, **policies}.items():
        taken = exits_of(values, policy.thresholds) - 1
        right = correct[np.arange(len(taken)), taken].mean()
        heads = np.where(policy.runs[0], multiply_adds[1], 0)
        rows += _figures(name, right, (multiply_adds[0] + heads).cumsum()[taken].mean())
    return rows


def _figures(name: str, accuracy: float, multiply_adds: float) -> list[dict]:
    return [
        row("public", name, 1, accuracy, "accuracy", case="accuracy"),
        row("public", name, 1, multiply_adds, "multiply-adds", case="multiply-adds"),
    ]


def _frontier(val: tuple[np.ndarray, np.ndarray], model: TimeModel) -> dict[str, Policy]:
    """Thresholds chosen jointly that lose so much on validation data."""
    data = CalibrationData(*val)
    timed = model._replace(batch_size=min(SIZE, model.parts.shape[2] - 1))
    targets = data.correct[:, -1].mean() - np.array(LOST)
    found = thresholds_for({"method": "joint"}, data, targets, costs_of(timed))
    return {
        f"cascade, {100 * lost:g} points lost on val": Policy("entropy", thresholds)
        for lost, thresholds in zip(LOST, found, strict=True)
    }
