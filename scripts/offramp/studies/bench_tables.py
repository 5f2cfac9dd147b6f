"""Benchmarks of the tables: one pass against reruns, the dump against a bare forward pass, and the
cascade against one as it is often written."""

import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from scipy.stats import entropy as scipy_entropy
from torch import Tensor

from offramp.data.datasets import dataset_of
from offramp.data.splits import Split, load_images, open_split
from offramp.inference.backends import for_inference
from offramp.inference.cascade import cascade
from offramp.inference.forward import dump_split
from offramp.inference.machine import prepare
from offramp.networks.loading import load
from offramp.networks.multiexit import MultiExitNetwork
from offramp.scoring.policy import shared_cutoff
from offramp.scoring.scores import read_scores
from offramp.studies.bench_live import interleaved, load_batches, over_batches, row
from offramp.tables.files import read, write
from offramp.tables.schemas import SWEEP
from offramp.thresholds.sweep import cutoff_grid, sweep_rows, sweep_split
from offramp.thresholds.time_model import fit_time_model

# The middles of the fifths of 0 to ln 10, so that their mean stands for that of a whole sweep.
RERUN_CUTOFFS = (0.23, 0.69, 1.15, 1.61, 2.07)
DUMPED = 6_000
MEMORY_IMAGES = (6_000, 60_000)


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
            model = fit_time_model(read(timings_path, "timings"), batch_size)
            result = sweep_split(values, correct, cutoffs, model)
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
            contenders[f"live run of cutoff {cutoff:g}"] = over_batches(
                partial(cascade, network, policy), batches
            )
        where = {"images": len(split.order), "batch_size": batch_size}
        return interleaved("sweep", contenders, device, repeats=3, **where)


def _masks(values: np.ndarray, correct: np.ndarray, cutoffs: np.ndarray) -> np.ndarray:
    """n and correct of every cutoff and exit, as one writes it first."""
    counts = np.zeros((len(cutoffs), values.shape[1], 2), dtype=np.int64)
    for m, cutoff in enumerate(cutoffs):
        remain = np.ones(len(values), dtype=bool)
        for k in range(values.shape[1]):
            last = k == values.shape[1] - 1
            leaves = remain if last else remain & (values[:, k] <= cutoff)
            counts[m, k] = leaves.sum(), (leaves & correct[:, k]).sum()
            remain = remain & ~leaves
    return counts


def dump_against_forward(
    network: MultiExitNetwork, split: Split, classes: int, batch_size: int, device: torch.device
) -> list[dict]:
    """The pipeline's dump of logits and timings against a bare forward pass over the same images,
    loading them included on both sides."""
    images = min(DUMPED, len(split.order))
    part = Split(split.images, split.labels[:images], split.order[:images])

    @torch.inference_mode()
    def forward() -> None:
        for rows in part.batches(batch_size):
            for logits in network(load_images(part, rows, device)):
                logits.cpu()

    with tempfile.TemporaryDirectory() as folder:
        contenders = {
            "bare forward pass": forward,
            "dump": lambda: dump_split(
                network, part, "train", classes, batch_size, device, f"{folder}/logits.parquet", {}
            ),
        }
        where = {"images": images, "batch_size": batch_size}
        return interleaved("dump", contenders, device, **where)


def dump_memory(params: dict[str, Any], weights: str, data: str) -> list[dict]:
    """Peak memory of a dump of few and of many images, each in a process of its own."""
    rows = []
    for images in MEMORY_IMAGES:
        arguments = {"params": params, "weights": weights, "data": data, "images": images}
        peak = subprocess.run(
            [sys.executable, "-m", "offramp.studies.bench_tables"],
            input=json.dumps(arguments),
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        where = {"images": images, "batch_size": params["batch_size"]}
        rows.append(row("memory", "dump", 1, float(peak.split()[-1]), "MiB", **where))
    return rows


def dump_peak(params: dict[str, Any], weights: str, data: str, images: int) -> float:
    """Peak resident MiB of this process after a dump of so many images, repeated from the split."""
    device, _ = prepare(params)
    classes = dataset_of(params["dataset"]).classes
    split = open_split(data, params["dataset"], "train", params["validation"])
    loaded, example = load(params["model"], classes, weights, device), slice(0, 2)
    network = for_inference(loaded, params["backend"], load_images(split, example, device))
    rows = np.arange(images) % len(split.order)
    repeated = Split(split.images, split.labels[rows], split.order[rows])
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/logits.parquet"
        dump_split(network, repeated, "train", classes, params["batch_size"], device, path, {})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


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
        "as a student writes it": over_batches(
            lambda x: _students_labels(plain, cutoff, x), contiguous
        ),
        "offramp": over_batches(partial(cascade, network, policy), batches),
    }
    where = {"images": sum(map(len, batches)), "batch_size": batch_size}
    return interleaved("student", contenders, device, repeats=3, **where)


@torch.no_grad()
def _students_labels(network: MultiExitNetwork, cutoff: float, x: Tensor) -> Tensor:
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


if __name__ == "__main__":
    print(dump_peak(**json.load(sys.stdin)))
