"""Benchmarks of the tables: one pass against reruns, the dump against a bare forward pass, and
thresholds against those of others."""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from scipy.stats import entropy as scipy_entropy
from torch import Tensor

from offramp.bench_live import each, in_turn, load_batches, row
from offramp.calibration import evaluate
from offramp.cascade import run_cascade
from offramp.datasets import Split, load_images
from offramp.forward import dump_split
from offramp.joint import costs_of, joint_frontier
from offramp.multiexit import MultiExitNetwork
from offramp.policy import Policy, shared_cutoff
from offramp.sweep import cutoff_grid, sweep_rows, sweep_split
from offramp.tables import SWEEP, read, read_scores, write
from offramp.thresholds import Thresholds
from offramp.timemodel import TimeModel, fit_time_model

RERUN_CUTOFFS = (0.1, 0.6, 1.5)
DUMPED = 6_000
MEMORY_IMAGES = (6_000, 60_000)
MAX_LOSS = 0.005


def sweep_against_reruns(
    network: MultiExitNetwork,
    scores_path: str,
    timings_path: str,
    split: Split,
    classes: int,
    batch_size: int,
    device: torch.device,
) -> list[dict]:
    """All cutoffs of the test split, from Parquet to Parquet, against a loop of masks over the same
    tables (which counts only, and times nothing) and against live runs of single cutoffs."""
    cutoffs = cutoff_grid(100, 0.6, (0.0, math.log(classes)))
    batches = load_batches(split, len(split.order), batch_size, device)
    with tempfile.TemporaryDirectory() as folder:

        def sweep() -> None:
            values, correct, _ = read_scores(scores_path)
            model = fit_time_model(read(timings_path, "timings"))
            result = sweep_split(values, correct, cutoffs, model, batch_size)
            table = pa.table(sweep_rows("test", "entropy", cutoffs, result), schema=SWEEP)
            write(f"{folder}/sweep.parquet", table, "sweep", {})

        contenders: dict[str, Callable[[], Any]] = {
            f"sweep of {len(cutoffs)} cutoffs": sweep,
            f"loop of masks over {len(cutoffs)} cutoffs": lambda: _masks(
                *read_scores(scores_path)[:2], cutoffs
            ),
        }
        for cutoff in RERUN_CUTOFFS:
            policy = shared_cutoff(cutoff, len(network.heads) - 1)
            contenders[f"live run of cutoff {cutoff:g}"] = each(
                partial(run_cascade, network, policy), batches
            )
        where = {"images": len(split.order), "batch_size": batch_size}
        return in_turn("sweep", contenders, device, repeats=3, **where)


def _masks(values: np.ndarray, correct: np.ndarray, cutoffs: np.ndarray) -> np.ndarray:
    """n and correct of every cutoff and exit, as one writes it first."""
    counts = np.zeros((len(cutoffs), values.shape[1], 2), dtype=np.int64)
    for m, cutoff in enumerate(cutoffs):
        here = np.ones(len(values), dtype=bool)
        for k in range(values.shape[1]):
            last = k == values.shape[1] - 1
            leaves = here if last else here & (values[:, k] <= cutoff)
            counts[m, k] = leaves.sum(), (leaves & correct[:, k]).sum()
            here = here & ~leaves
    return counts


def dump_against_forward(
    network: MultiExitNetwork, split: Split, classes: int, batch_size: int, device: torch.device
) -> list[dict]:
    """The pipeline's dump of logits and timings against a bare forward pass over the same images,
    loading them included on both sides."""
    images = min(DUMPED, len(split.order))
    some = Split(split.images, split.labels[:images], split.order[:images])

    @torch.inference_mode()
    def forward() -> None:
        for rows in some.batches(batch_size):
            for logits in network(load_images(some, rows, device)):
                logits.cpu()

    with tempfile.TemporaryDirectory() as folder:
        contenders = {
            "bare forward pass": forward,
            "dump": lambda: dump_split(
                network, some, "train", classes, batch_size, device, f"{folder}/logits.parquet", {}
            ),
        }
        where = {"images": images, "batch_size": batch_size}
        return in_turn("dump", contenders, device, repeats=3, **where)


def dump_memory(params: dict[str, Any], weights: str, data: str) -> list[dict]:
    """Peak memory of a dump of few and of many images, each in a process of its own."""
    rows = []
    for images in MEMORY_IMAGES:
        asked = {"params": params, "weights": weights, "data": data, "images": images}
        peak = subprocess.run(
            [sys.executable, "-m", "offramp.bench_memory"],
            input=json.dumps(asked),
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        where = {"images": images, "batch_size": params["batch_size"]}
        rows.append(row("memory", "dump", 1, float(peak.split()[-1]), "MiB", **where))
    return rows


def thresholds_of_others(
    logits: np.ndarray,
    labels: np.ndarray,
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]],
    multiply_adds: np.ndarray,
    model: TimeModel,
    batch_size: int,
) -> list[dict]:
    """Thresholds that lose at most MAX_LOSS on validation data, found on the same logits by
    earlyon, by us, and as the best shared cutoff: seconds to find them, and what they do on test.

    Parameters: ``logits`` float32 (N, K, C) and ``labels`` int64 (N,) of the validation split,
    ``scores`` entropy and correctness (N, K) of val and test; ``multiply_adds`` int (2, K).
    """
    values, correct = scores["val"]
    allowed = correct[:, -1].sum() - MAX_LOSS * len(correct)

    def ours() -> Thresholds:
        frontier = joint_frontier(values, correct, costs_of(model, batch_size))
        return frontier.thresholds[int(np.searchsorted(frontier.correct, allowed))]

    def shared() -> Thresholds:
        cutoffs = np.unique(values[:, :-1])[:: max(1, values.size // 2_000)]
        result = sweep_split(values, correct, cutoffs, model, batch_size)
        total = np.where(
            result["correct"].sum(axis=1) >= allowed, result["seconds"].sum(axis=1), np.inf
        )
        return (float(cutoffs[total.argmin()]),) * (values.shape[1] - 1)

    rows = []
    methods: dict[str, Callable[[], Thresholds]] = {
        "earlyon 0.3.0, entropy": lambda: _earlyon(logits, labels, multiply_adds),
        "offramp, joint": ours,
        "best shared cutoff": shared,
    }
    full = scores["test"][1][:, -1].mean()
    for name, method in methods.items():
        start = time.perf_counter()
        thresholds = method()
        spent = time.perf_counter() - start
        policy = Policy("entropy", thresholds)
        found = evaluate(*scores["test"], policy, model, batch_size)
        for case, value, unit in (
            ("to find", spent, "seconds"),
            ("test loss", 100 * (full - found["correct"][0] / found["n"][0]), "points"),
            ("predicted on test", float(found["speedup"]), "speed-up"),
        ):
            rows.append(row("thresholds", name, 1, value, unit, case=case))
    return rows


def _earlyon(logits: np.ndarray, labels: np.ndarray, multiply_adds: np.ndarray) -> Thresholds:
    """earlyon's own calibration, its network being the table: images are the rows' logits, and the
    forward pass only takes them apart."""
    from earlyon import EarlyExitConfig, ExitPoint
    from earlyon.core.thresholds import calibrate_thresholds

    side = logits.shape[1] - 1
    points = [ExitPoint(f"exit_{k + 1}", f"exit_{k + 1}", 1) for k in range(side)]
    config = EarlyExitConfig(
        backbone="a table",
        exit_points=points,
        num_classes=logits.shape[2],
        routing_policy="entropy",
        entropy_thresholds=[0.0] * side,
    )
    spent = (multiply_adds[0].cumsum() / multiply_adds[0].sum())[:-1]
    flops = {point.layer_name: float(s) for point, s in zip(points, spent, strict=True)}
    forward: Any = _Table(config, flops)
    loader: Any = [(torch.from_numpy(logits), torch.from_numpy(labels))]
    found = calibrate_thresholds(forward, loader, target_accuracy_drop=MAX_LOSS)
    return tuple(
        t if on else None for t, on in zip(found.thresholds, found.enabled_exits, strict=True)
    )


class _Table:
    """What earlyon asks of its wrapper."""

    def __init__(self, config: Any, flops: dict[str, float]):
        self.config, self._flops_at, self.training = config, flops, False

    def to(self, _: str) -> "_Table":
        return self

    def eval(self) -> None:
        """Nothing here trains."""

    def train(self, _: bool) -> None:
        """Nothing here trains."""

    def __call__(self, x: Tensor, mode: str) -> list[Tensor]:
        return list(x.unbind(1))


def students_cascade(
    plain: MultiExitNetwork,
    network: MultiExitNetwork,
    split: Split,
    cutoff: float,
    batch_size: int,
    device: torch.device,
) -> list[dict]:
    """The cascade of ``network`` at one cutoff against one as it is often written: ``plain`` in
    torch's default layout, softmax, scipy's entropy, boolean masks."""
    batches = load_batches(split, 2_048, batch_size, device)
    policy = shared_cutoff(cutoff, len(network.heads) - 1)
    plain = plain.to(memory_format=torch.contiguous_format)
    contiguous = [x.contiguous() for x in batches]
    contenders = {
        "as a student writes it": each(lambda x: _student(plain, cutoff, x), contiguous),
        "offramp": each(partial(run_cascade, network, policy), batches),
    }
    where = {"images": sum(map(len, batches)), "batch_size": batch_size}
    return in_turn("student", contenders, device, repeats=3, **where)


@torch.no_grad()
def _student(network: MultiExitNetwork, cutoff: float, x: Tensor) -> Tensor:
    labels = torch.zeros(len(x), dtype=torch.int64)
    index = torch.arange(len(x))
    for k, (block, head) in enumerate(zip(network.blocks, network.heads, strict=True)):
        x = block(x)
        logits = head(x)
        entropies = scipy_entropy(torch.softmax(logits, 1).cpu().numpy(), axis=1)
        leaves = torch.from_numpy(
            entropies <= (math.inf if k == len(network.heads) - 1 else cutoff)
        )
        labels[index[leaves]] = logits[leaves].argmax(1).cpu()
        x, index = x[~leaves], index[~leaves]
        if len(index) == 0:
            break
    return labels
