"""Benchmark of the time model: predicted against measured seconds of policies that played no part
in fitting it, beside the two usual stand-ins."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from offramp.bench_live import each, load_batches, row, seconds_of
from offramp.cascade import run_cascade
from offramp.datasets import Split
from offramp.forward import Stopwatch
from offramp.multiexit import MultiExitNetwork
from offramp.policy import Policy, exits_of, shared_cutoff
from offramp.probe import probe_batch, probe_sizes
from offramp.progress import progress
from offramp.timemodel import (
    TimeModel,
    fit_time_model,
    full_network_seconds,
    reached_by,
    stage_seconds,
)
from offramp.verification import warm_up

# Policies of each kind, and on how many images at each batch size.
OF_EACH_KIND = 10
IMAGES = {256: 10_000, 32: 4_000, 1: 500}
# How often each policy runs, which shows how far repeats of it lie apart.
REPEATED = 3
# A round of the probe after every so many runs.
PROBED_EVERY = 9
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
            shut = draw.choice(side, min(disabled, side - 1), replace=False)
            thresholds = tuple(None if k in shut else t for k, t in enumerate(limits))
            policies[f"{kind} {i + 1}"] = Policy("entropy", thresholds)
    return policies


class StandIns(NamedTuple):
    """What a stage costs a sample, float64 (2, K), blocks and heads with their decisions, in
    seconds: ``constant`` from full batches, ``multiply_adds`` at the full network's pace."""

    constant: np.ndarray
    multiply_adds: np.ndarray


def stand_ins(model: TimeModel, multiply_adds: np.ndarray, batch_size: int) -> StandIns:
    """Constant time per exit, and multiply-adds, both right for the full network in full batches.

    Parameters: ``multiply_adds`` int (2, K) of one image, blocks and heads.
    """
    per_sample = model.parts[:, :, batch_size] / batch_size
    constant = np.stack([per_sample[0], per_sample[1] + per_sample[2]])
    whole = full_network_seconds(model, batch_size, batch_size) / batch_size
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
    total, enabled = reached.sum(axis=0), policy.heads_run
    found = {
        name: float(stage_seconds(model, reached, enabled).sum()) for name, model in models.items()
    }
    for name, (block, head) in zip(STAND_INS, costs, strict=True):
        found[name] = float((total * (block + head * enabled)).sum())
    return found


def time_model(
    network: MultiExitNetwork,
    scores: np.ndarray,
    model: TimeModel,
    multiply_adds: np.ndarray,
    split: Split,
    device: torch.device,
) -> list[dict]:
    """Predicted and measured seconds of every held-out policy at every batch size of IMAGES.

    Parameters: ``scores`` float64 (N, K) of the split; ``model`` is of the pipeline's own probe,
    made at another time. The machine changes its pace meanwhile, so a second model is fitted to a
    probe in turn with the runs; the stand-ins are right for that one's full network. The policies
    run REPEATED times each, in a random order.
    """
    policies = held_out_policies(scores)
    rows = []
    for batch_size, images in IMAGES.items():
        if batch_size >= model.parts.shape[2]:
            continue
        batches = load_batches(split, images, batch_size, device)
        samples = sum(map(len, batches))
        where = {"batch_size": batch_size, "images": samples}
        taken = {name: exits_of(scores[:samples], p.thresholds) for name, p in policies.items()}
        met = [reached_by(exits, batch_size, scores.shape[1]) for exits in taken.values()]
        warm_up(network, np.concatenate(met), batches[0])
        measured, in_turn = _run_and_probe(network, policies, batches, device)
        rows += [
            row("time model", "measured", repeat, spent, "seconds", case=name, **where)
            for repeat, name, spent in measured
        ]
        models = {"time model": in_turn, "time model, probed before": model}
        costs = stand_ins(in_turn, multiply_adds, batch_size)
        for name, policy in policies.items():
            guesses = predictions(policy, taken[name], models, costs, batch_size)
            for contender, seconds in guesses.items():
                rows.append(row("time model", contender, 1, seconds, "seconds", case=name, **where))
    return rows


def _run_and_probe(
    network: MultiExitNetwork,
    policies: Mapping[str, Policy],
    batches: Sequence[Tensor],
    device: torch.device,
) -> tuple[list[tuple[int, str, float]], TimeModel]:
    """Repeat, name and seconds of every run, and the time model of a probe in turn with them."""
    batch_size = len(batches[0])
    turns = [(repeat, name) for repeat in range(1, REPEATED + 1) for name in policies]
    draw, watch = np.random.default_rng(batch_size), Stopwatch(device, "probe")
    order = draw.permutation(len(turns))
    deciding = next(iter(policies.values()))
    found = []
    for number, place in enumerate(progress(order, f"time model {batch_size}", "run")):
        if number % PROBED_EVERY == 0:
            for n in draw.permutation(probe_sizes(batch_size)):
                probe_batch(network, deciding, batches[0][: int(n)], watch, number)
            if number == 0:
                watch.rows.clear()  # of the first round, which warms up
        repeat, name = turns[place]
        run = each(partial(run_cascade, network, policies[name]), batches)
        found.append((repeat, name, seconds_of(run, device)))
    return found, fit_time_model(watch.table())
