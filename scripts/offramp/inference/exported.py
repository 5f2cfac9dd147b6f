"""What was exported, proved against the tables and timed beside torch."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import torch

from offramp import OfframpError
from offramp.common.progress import progress
from offramp.data.splits import Split, blank, load_images
from offramp.inference.backends import onnx_bytes
from offramp.inference.cascade import cascade
from offramp.inference.deployed import Cascade
from offramp.inference.export import MANIFEST, FullNetwork, write_manifest
from offramp.inference.machine import timed
from offramp.inference.runner import Runner
from offramp.inference.verification import Case, compared, fail_on_differences
from offramp.scoring.policy import Outcome, outcome_of_tables
from offramp.tables.schemas import EXPORT

# Batch sizes, and how many batches of each are timed in one repeat.
TIMED_BATCHES = {1: 32, 32: 16, 256: 2}
CPU = torch.device("cpu")
REPEATS = 5


def prove(
    folder: str | Path, deployed: Cascade, split: Split, logits: np.ndarray
) -> dict[str, Any]:
    """Run the folder's own runner on a split, in a process of its own, and hold it against the
    tables, ``logits`` float32 (N, K, C) of the split. Returns what the manifest says of it.

    Raises OfframpError when it fails, or differs where the float exceptions excuse nothing.
    """
    with tempfile.TemporaryDirectory() as scratch:
        images, output = Path(scratch, "images.npy"), Path(scratch, "answers.npz")
        np.save(images, split.images[split.order])
        command = [sys.executable, "-B", str(Path(folder, "run.py")), str(images), str(output)]
        process = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if process.returncode:
            raise OfframpError(f"{folder}/run.py failed: {process.stderr.strip()}")
        answers = np.load(output, allow_pickle=False)
    live = Outcome(answers["exits"], answers["labels"])
    case = Case("the export", deployed.policy, True)
    comparison = compared(case, logits, outcome_of_tables(case.policy, logits), live)
    fail_on_differences([comparison], split.order)
    exits = np.bincount(live.exits, minlength=len(deployed.network.heads) + 1)[1:]
    return {
        "split": "test",
        "n": len(live.labels),
        "accuracy": float((live.labels == split.labels).mean()),
        "exits": exits.tolist(),
        "differ": int(comparison.differ.sum()),
        "excused": int(comparison.excused.sum()),
    }


def time_export(folder: str | Path, deployed: Cascade, split: Split, threads: int) -> pa.Table:
    """Seconds of every batch under the exported stages, under torch, and through one plain ONNX
    file of the full network, in turns of a few batches and in another order every repeat, so that
    all meet the same minutes. All start with float32 images in the layout that each likes best.
    """
    contenders = contenders_of(Path(folder), deployed, threads)
    order, rows = np.random.default_rng(0), []
    for repeat in progress(range(REPEATS), "race", "repeat"):
        for size, count in TIMED_BATCHES.items():
            last = max(0, len(split.order) - size)  # where a whole batch still begins
            starts = np.arange(repeat * count, (repeat + 1) * count) * size % (last + 1)
            batches = [load_images(split, slice(s, s + size), "cpu") for s in starts.tolist()]
            arrays = [batch.contiguous().numpy() for batch in batches]
            for name in order.permutation(list(contenders)):
                inputs = batches if name == "torch" else arrays
                for batch, seconds in enumerate(seconds_of_each(contenders[name], inputs)):
                    rows.append(
                        {
                            "contender": str(name),
                            "batch_size": len(inputs[batch]),
                            "repeat": repeat,
                            "batch": batch,
                            "seconds": seconds,
                        }
                    )
    return pa.Table.from_pylist(rows, schema=EXPORT)


def contenders_of(
    folder: Path, deployed: Cascade, threads: int
) -> dict[str, Callable[[Any], object]]:
    """Whom `time_export` times, each a function of a batch."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with torch.inference_mode():
        x = blank(deployed.dataset, 2)
        model = onnx_bytes(FullNetwork(deployed.network), x, ["logits"])
    full = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return {
        "export": Runner(folder, threads).cascade,
        "torch": lambda x: cascade(deployed.network, deployed.policy, x),
        "full_onnx": lambda x: full.run(None, {"inputs": x})[0].argmax(1),
    }


def seconds_of_each(call: Callable[[Any], object], batches: list) -> list[float]:
    """Seconds of each batch in one turn, once all have come untimed: torch prepares a kernel for
    every number of survivors that it meets."""
    for batch in batches:
        call(batch)
    return [timed(partial(call, batch), CPU)[1] for batch in batches]


def note_measured(
    folder: str | Path, proof: dict[str, Any], seconds: pa.Table, machine: dict
) -> None:
    """Put into the manifest what was proved, and the median milliseconds of a batch."""
    medians = seconds.group_by(["batch_size", "contender"]).aggregate(
        [("seconds", "approximate_median")]
    )
    speed: dict[str, dict[str, float]] = {}
    for row in medians.sort_by("batch_size").to_pylist():
        milliseconds = speed.setdefault(str(row["batch_size"]), {})
        milliseconds[row["contender"]] = round(1000 * row["seconds_approximate_median"], 4)
    manifest = json.loads(Path(folder, MANIFEST).read_text())
    manifest["measured"] = {**proof, "ms_per_batch": speed, "machine": machine}
    write_manifest(folder, manifest)
