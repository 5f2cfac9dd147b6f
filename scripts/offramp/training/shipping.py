"""Weights that ship with the project: in half precision, listed in an index, each with a card."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from offramp import OfframpError
from offramp.common.intervals import interval
from offramp.common.markdown import parts_table, percent, short_commit, table
from offramp.data.datasets import SPLIT_SEED, dataset_of
from offramp.data.splits import Split
from offramp.networks.index import INDEX, read_index
from offramp.networks.loading import IMAGE_SHAPE, describe, load, save
from offramp.networks.multiexit import MultiExitNetwork
from offramp.tables.files import sha256
from offramp.training.evaluation import correct_of


def ship(
    network: MultiExitNetwork,
    splits: Mapping[str, Split],
    curves: pa.Table,
    about: Mapping[str, str],
    device: torch.device,
    folder: str | Path,
) -> str:
    """Write a trained network's weights into ``folder``, list them in its index, and return their
    model card.

    Parameters: ``splits`` are val and test; ``curves`` is the training table and ``about`` its
    metadata (model, dataset, recipe, machine). Raises OfframpError for weights that are not finite,
    and leaves the folder as it is.
    """
    exact = {name: correct_of(network, split, device) for name, split in splits.items()}
    weights = Path(folder) / f"{about['model']}.safetensors"
    new = weights.with_suffix(".new.safetensors")
    origin = {key: about[key] for key in ("model", "dataset", "git_commit")}
    save(network, new, origin, half=True)
    classes = dataset_of(about["dataset"]).classes
    try:
        network = load(about["model"], classes, new, device)
    except OfframpError:  # of weights that are not finite, or too large for half precision
        new.unlink()
        raise
    rounded = {name: correct_of(network, split, device) for name, split in splits.items()}
    entry = {
        "model": about["model"],
        "dataset": about["dataset"],
        "classes": classes,
        "sha256": sha256(new),
        "preprocessing": {
            "shape": list(IMAGE_SHAPE),
            "channels": "RGB",
            "range": [0, 1],
            "normalization": None,
        },
        "validation": len(splits["val"].order),
        "split_seed": SPLIT_SEED,
    }
    changed = {name: int((exact[name] != rounded[name]).sum()) for name in splits}
    size = new.stat().st_size
    card = model_card(network.cpu(), rounded, changed, curves, about, entry, size)
    path = Path(folder) / INDEX
    index = read_index(path) | {weights.name: entry}
    part = path.with_suffix(".part")
    part.write_text(json.dumps(dict(sorted(index.items())), indent=2) + "\n")
    new.replace(weights)
    part.replace(path)
    return card


def model_card(
    network: MultiExitNetwork,
    correct: Mapping[str, np.ndarray],
    changed: Mapping[str, int],
    curves: pa.Table,
    about: Mapping[str, str],
    entry: Mapping[str, Any],
    size: int,
) -> str:
    """What one must know of shipped weights, as Markdown."""
    model = about["model"]
    doc = (type(network).__doc__ or "").split("\n\n")[0]
    lines = [
        f"# {model}",
        " ".join(doc.split()),
        f"`{model}.safetensors`, {size / 1e6:.1f} MB, sha256 `{entry['sha256']}`. Input: float32 "
        f"N x {' x '.join(map(str, IMAGE_SHAPE))}, RGB in 0..1, no normalisation. Output: raw "
        "logits of every exit; their entropy is in nats, from 0 (sure) to ln 10 = 2.302585, and "
        "was trained without label smoothing, so that a sure answer is near 0.",
        *_accuracy_lines(correct, changed),
        *_training_lines(curves, about, entry),
        *_parts_lines(network),
        "## Limits",
        "Made to study early exit, not to be relied on: it knows the ten classes of its dataset, "
        "in 32 x 32 pixels, and is sure of itself on anything else too. Entropies are of raw "
        "logits, not calibrated. Thresholds belong to these very weights. The validation images "
        "are fit for choosing thresholds; the test images were not used for any choice of weights "
        "by the code.",
    ]
    return "\n\n".join(lines) + "\n"


def _accuracy_lines(correct: Mapping[str, np.ndarray], changed: Mapping[str, int]) -> list[str]:
    exits = next(iter(correct.values())).shape[1]
    return [
        "## Accuracy",
        "Every sample at every exit, with 95 % intervals (exact):",
        table(
            ["exit", *(f"{name} ({len(rows):,})" for name, rows in correct.items())],
            [
                [k + 1, *(_accuracy_cell(rows[:, k]) for rows in correct.values())]
                for k in range(exits)
            ],
        ),
        "Kernels and matrices are stored in half precision. Against single precision that changes "
        + ", ".join(
            f"{n} of {correct[name].size:,} answers on {name} between right and wrong"
            for name, n in changed.items()
        )
        + ".",
    ]


def _training_lines(
    curves: pa.Table, about: Mapping[str, str], entry: Mapping[str, Any]
) -> list[str]:
    seconds = {row["epoch"]: row["seconds"] for row in curves.to_pylist()}
    recipe, minutes = json.loads(about["recipe"]), sum(seconds.values()) / 60
    seeds = json.loads(about.get("seeds", "{}"))
    spread = [f"seed {s}: " + ", ".join(f"{a:.2%}" for a in seeds[s]) for s in seeds]
    return [
        "## Training",
        f"{about.get('how', '`snakemake train`')} with this project's own code (commit "
        f"{short_commit(about['git_commit'])}), from nothing, on {about['dataset']}: the training "
        f"images less the {entry['validation']:,} "
        f"validation images of the split seeded {entry['split_seed']}, which touched no weight. "
        f"The last of {len(seconds)} epochs was taken. Seed {recipe['seed']}; "
        f"{round(minutes, 1) if minutes < 10 else round(minutes):g} minutes on "
        f"{about['device_name']}, {about['threads']} threads, in {about['dtype']}, "
        f"torch {about['torch']}.",
        "```yaml\n" + "\n".join(f"{key}: {value}" for key, value in recipe.items()) + "\n```",
        *([f"Validation accuracy per exit, by seed: {'; '.join(spread)}."] if spread else []),
        f"![training curves]({about['model']}_training.png)",
    ]


def _parts_lines(network: MultiExitNetwork) -> list[str]:
    parts = describe(network, torch.zeros(1, *IMAGE_SHAPE)).to_pylist()
    blocks_and_final_head = [p for p in parts if p["part"] == "block"] + parts[-1:]
    return [
        "## Parts",
        f"{sum(p['parameters'] for p in parts):,} learned parameters; "
        f"{sum(p['multiply_adds'] for p in blocks_and_final_head):,} multiply-adds for one image "
        "through the full network (all blocks and the final head), counted by torch's "
        "FlopCounterMode.",
        parts_table(parts),
    ]


def _accuracy_cell(right: np.ndarray) -> str:
    return percent(right.mean(), *interval(int(right.sum()), len(right)))
