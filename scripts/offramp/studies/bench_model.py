"""Benchmark of the time model: predicted against measured seconds of policies that played no part
in fitting it, beside the two usual stand-ins."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch

from offramp.data.splits import Split, load_images
from offramp.inference.forward import Stopwatch
from offramp.inference.probe import probe_round
from offramp.inference.verification import Case, run_interleaved, warm_up
from offramp.networks.multiexit import MultiExitNetwork
from offramp.scoring.policy import Policy, exits_of, shared_cutoff
from offramp.studies.bench_live import row
from offramp.thresholds.time_model import (
    TimeModel,
    fit_time_model,
    full_network_seconds,
    reached_by,
    stage_seconds,
)

# Policies of each kind; on how many images, and between how many rounds of the probe, at each batch
# size.
OF_EACH_KIND = 10
IMAGES = {256: 10_000, 32: 4_000, 1: 500}
PROBE_ROUNDS = {256: 6, 32: 6, 1: 60}
FULL = "full network"
STAND_INS = ("constant per exit", "multiply-adds")


def held_out_policies(scores: np.ndarray, seed: int = 1) -> dict[str, Policy]:
    """Shared cutoffs, per-exit thresholds, and thresholds with disabled exits, by name.

    Parameters: ``scores`` float64 (N, K), of which random quantiles are the thresholds.
    """
    draw = np.random.default_rng(seed)
    side = scores.shape[1] - 1
    minima = scores[:, :-1].min(axis=1)
    shared = np.quantile(minima, np.linspace(0.02, 0.98, OF_EACH_KIND))
    policies = {f"cutoff {i + 1}": shared_cutoff(c, side) for i, c in enumerate(shared)}
    for kind, disabled in (("thresholds", 0), ("disabled", 2)):
        for i in range(OF_EACH_KIND):
            levels = draw.uniform(0.05, 0.9, side)
            limits = [float(np.quantile(scores[:, k], levels[k])) for k in range(side)]
            off = draw.choice(side, min(disabled, side - 1), replace=False)
            thresholds = tuple(None if k in off else t for k, t in enumerate(limits))
            policies[f"{kind} {i + 1}"] = Policy("entropy", thresholds)
    return policies


class StandIns(NamedTuple):
    """What a stage costs a sample, float64 (2, K), blocks and heads with their decisions, in
    seconds: ``constant`` from full batches, ``multiply_adds`` at the full network's pace."""

    constant: np.ndarray
    multiply_adds: np.ndarray


def stand_ins(model: TimeModel, multiply_adds: np.ndarray) -> StandIns:
    """Constant time per exit, and multiply-adds, both right for the full network in full batches.

    Parameters: ``multiply_adds`` int (2, K) of one image, blocks and heads.
    """
    batch_size = model.batch_size
    per_sample = model.parts[:, :, batch_size] / batch_size
    constant = np.stack([per_sample[0], per_sample[1] + per_sample[2]])
    whole = full_network_seconds(model, batch_size) / batch_size
    pace = whole / (multiply_adds[0].sum() + multiply_adds[1, -1])
    return StandIns(constant, multiply_adds * pace)


def predictions(
    policy: Policy,
    exits: np.ndarray,
    models: Mapping[str, TimeModel],
    costs: StandIns,
    batch_size: int,
) -> dict[str, float]:
    """Seconds of a policy as time models (by name) and stand-ins see them; ``exits`` int (N,)."""
    reached = reached_by(exits, batch_size, len(policy.thresholds) + 1)
    total, runs = reached.sum(axis=0), policy.runs
    seconds = {
        name: float(stage_seconds(model, reached, runs).sum()) for name, model in models.items()
    }
    for name, (block, head) in zip(STAND_INS, costs, strict=True):
        seconds[name] = float((total * (block + head * runs[0])).sum())
    return seconds


def time_model(
    network: MultiExitNetwork,
    scores: np.ndarray,
    model: TimeModel,
    multiply_adds: np.ndarray,
    split: Split,
    device: torch.device,
) -> list[dict]:
    """Predicted and measured seconds of every held-out policy and of the full network at every
    batch size of IMAGES; measured on the even batches (repeat 1) and on the odd ones (2).

    Parameters: ``scores`` float64 (N, K) of the split; ``model`` is the pipeline's own, made at
    another time for its batch size. A second model, for any batch size, is fitted to a probe whose
    rounds lie between these very batches; the stand-ins are right for that one's full network.
    """
    policies, exits = held_out_policies(scores), scores.shape[1]
    pipelines_size = model.parts.shape[2] - 1
    rows = []
    for batch_size, images in IMAGES.items():
        if batch_size > pipelines_size:
            continue
        part = Split(split.images, split.labels[:images], split.order[:images])
        where = {"batch_size": batch_size, "images": len(part.order)}
        taken = {n: exits_of(scores[:images], p.thresholds) for n, p in policies.items()}
        taken[FULL] = np.full(len(part.order), exits)
        seconds, probed = _run_and_probe(network, policies, taken, part, batch_size, device)
        for c, name in enumerate(taken):
            for repeat, half in ((1, seconds[::2, c]), (2, seconds[1::2, c])):
                measured = row("time model", "measured", repeat, half.sum(), "seconds", **where)
                rows.append(measured | {"case": name})
        models = {"time model, probed between the runs": probed}
        if batch_size == pipelines_size:
            models["time model of the pipeline"] = model
        costs = stand_ins(probed, multiply_adds)
        all_off = Policy("entropy", (None,) * (exits - 1))
        for name, policy in {**policies, FULL: all_off}.items():
            predicted = predictions(policy, taken[name], models, costs, batch_size)
            for contender, spent in predicted.items():
                rows.append(row("time model", contender, 1, spent, "seconds", case=name, **where))
    return rows


def _run_and_probe(
    network: MultiExitNetwork,
    policies: Mapping[str, Policy],
    taken: Mapping[str, np.ndarray],
    split: Split,
    batch_size: int,
    device: torch.device,
) -> tuple[np.ndarray, TimeModel]:
    """Seconds (batches, policies + 1) of the policies and the full network, and the time model of a
    probe whose rounds lie between the batches. ``taken`` are the exits that the samples of each run
    take, those of the full network last."""
    reached = [reached_by(exits, batch_size, len(network.heads)) for exits in taken.values()]
    images = load_images(split, slice(0, batch_size), device)
    warm_up(network, np.concatenate(reached), images)
    batches = -(-len(split.order) // batch_size)
    probed = set(np.linspace(0, batches - 1, PROBE_ROUNDS.get(batch_size, 6)).astype(int).tolist())
    deciding, draw = next(iter(policies.values())), np.random.default_rng(batch_size)
    watch = Stopwatch(device, "probe")
    probe_round(network, deciding, images, watch, -1, draw)
    watch.rows.clear()  # that one only warmed up

    def between(batch: int) -> None:
        if batch in probed:
            probe_round(network, deciding, images, watch, batch, draw)

    cases = [Case(name, policy, False) for name, policy in policies.items()]
    _, seconds = run_interleaved(network, cases, split, batch_size, device, between)
    return seconds, fit_time_model(watch.table(), batch_size)
