"""The interactive page: validation data, time model and policies in one file that computes."""

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image

from offramp.common.intervals import interval
from offramp.scoring.criteria import CRITERIA, score_range
from offramp.scoring.policy import Policy, shared_cutoff
from offramp.scoring.pool import expected_correct
from offramp.scoring.scores import Scored, decided_by
from offramp.tables.files import origin_of
from offramp.thresholds.calibration import calibrate_empirical
from offramp.thresholds.evaluation import evaluate
from offramp.thresholds.joint import costs_of, joint_frontier
from offramp.thresholds.time_model import TimeModel, full_network_seconds

PAGE = Path(__file__).parent / "explorer_page"
# Where the page wants what, and the file that holds it.
PARTS = {
    "@style@": "style.css",
    "@licence@": "vendor/d3.LICENSE",
    "@d3@": "vendor/d3.min.js",
    **{
        f"@{name}@": f"{name}.js"
        for name in ("logic", "words", "controls", "network", "frontier", "gallery", "view")
    },
}
# The page is to stay below 10 MB: bytes for what it computes with, and for its pictures.
MOST_DATA, MOST_PICTURES = 5_000_000, 2_800_000
# Pixels of a picture's longer side; larger ones are made smaller.
PICTURE = 64
MOST_PICTURED = 20_000
# At most so many points on a frontier, and samples that joint thresholds are fitted to.
POINTS, JOINT_SAMPLES = 60, 20_000
TARGETS = (*np.linspace(0.5, 0.9, 17), *np.linspace(0.91, 0.999, 25))
MOST_LOST = 5
SEED = 42


class Run(NamedTuple):
    """What the page is made from. ``val`` and ``test``: scores and correctness; ``logits`` float32
    (N, K, C) and ``label`` int64 (N,) of the samples in ``val``; ``cutoffs`` of the sweep;
    ``policies`` by name, with what their files say, and what was measured ``live`` of them, none
    if nothing was; ``names`` of the classes and ``images`` by sample_id, uint8 (M, H, W, 1 or 3);
    None where there are none, and other inputs are not shown; ``costs_in``, the unit of the time
    model."""

    val: Scored
    test: Scored
    logits: np.ndarray
    label: np.ndarray
    model: TimeModel
    cutoffs: Sequence[float]
    policies: Mapping[str, tuple[Policy, dict[str, Any]]]
    live: pa.Table | None = None
    names: Sequence[str] | None = None
    images: np.ndarray | None = None
    costs_in: str = "s"


def write_explorer(path: str | Path, run: Run) -> None:
    """Write the page, one file that needs no other and no network."""
    temporary = Path(f"{path}.part")
    temporary.write_text(page_of(page_data(run)), encoding="utf-8")
    temporary.replace(path)


def page_of(data: Mapping[str, Any]) -> str:
    """The page's text; ``data`` is what `page_data` found."""
    text = (PAGE / "index.html").read_text(encoding="utf-8")
    # No text of a user's may end the script that carries it.
    carried = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    parts = {mark: (PAGE / file).read_text(encoding="utf-8") for mark, file in PARTS.items()}
    for mark, part in {**parts, "@data@": carried}.items():
        before, after = text.split(mark)
        text = f"{before}{part}{after}"
    return text


def page_data(run: Run) -> dict[str, Any]:
    """All that the page shows and computes with, ready for JSON."""
    rows = carried_samples(run)
    total, exits, classes = run.logits.shape
    scores, correct = run.val.scores[:rows], run.val.correct[:rows]
    ids = run.val.table["sample_id"].to_numpy()[:rows]
    order = np.random.default_rng(SEED).permutation(rows)
    pictures = None
    if run.images is not None and are_pictures(run.images):
        pictures = pictures_of(run.images, ids[order])
    sizes = run.model.batch_size + 1
    criterion = decided_by(run.val.table).criterion
    full = correct[:, -1].sum()
    return {
        "about": about(run),
        "samples": rows,
        "of": total,
        "exits": exits,
        "classes": list(run.names or map(str, range(classes))),
        "looks_back": CRITERIA[criterion].looks_back,
        "scores": packed(scores.T, np.float64),
        "predicted": packed(run.logits[:rows].argmax(axis=2).T, smallest(classes)),
        "labels": packed(run.label[:rows], smallest(classes)),
        "ids": packed(ids, np.uint32),
        "order": packed(order if pictures is None else order[: pictures["count"]], np.uint32),
        "pictures": pictures,
        "scale": scale_of(criterion, classes, scores[:, :-1]),
        "time": {
            "parts": packed(run.model.parts[:, :, :sizes], np.float64),
            "removal": packed(run.model.removal, np.float64),
            "sizes": sizes,
            "batch": run.model.batch_size,
        },
        "costs_in": run.costs_in,
        "full": {
            "correct": int(full),
            "seconds": full_network_seconds(run.model, rows),
        },
        "frontiers": frontiers_of(run, criterion, rows),
        "policies": policies_of(run),
        "policy_base": policy_base(run),
    }


def about(run: Run) -> dict[str, Any]:
    """What the page says of the run."""
    origin = origin_of(run.val.table) | ({} if run.live is None else origin_of(run.live))
    keys_shown = ("dataset", "model", "weights_sha256", "device_name", "threads", "git_commit")
    criterion = decided_by(run.val.table).criterion
    return {name: origin.get(name, "") for name in keys_shown} | {
        "criterion": criterion.replace("_", " "),
        "unit": CRITERIA[criterion].unit,
        "tests": len(run.test.correct),
    }


def carried_samples(run: Run) -> int:
    """How many of the validation samples fit into the page: all, or the first whole batches."""
    samples, exits, classes = run.logits.shape
    label = np.dtype(smallest(classes)).itemsize
    each = exits * (8 + label) + label + 4 + 4
    most, batch = int(MOST_DATA * 3 / 4 / each), run.model.batch_size
    return samples if samples <= most else max(most // batch, 1) * batch


def smallest(classes: int) -> type:
    """The smallest type that holds a label."""
    return next(t for t in (np.uint8, np.uint16, np.uint32) if classes <= np.iinfo(t).max + 1)


def packed(values: np.ndarray, dtype: type) -> dict[str, str]:
    """An array as the page reads it: row by row, little-endian, in base64."""
    little = np.ascontiguousarray(values, dtype=np.dtype(dtype).newbyteorder("<"))
    return {"dtype": np.dtype(dtype).name, "data": base64.b64encode(little.tobytes()).decode()}


def scale_of(criterion: str, classes: int, scores: np.ndarray) -> dict[str, float]:
    """The sliders' scale: its ends, and by which power it is bent so that the median of the side
    exits' ``scores`` is in the middle, as far as that goes."""
    if not scores.size:
        return {"low": 0.0, "high": 1.0, "bend": 1.0}
    low, high = score_range(criterion, classes, scores)
    share = (float(np.median(scores)) - low) / (high - low) if high > low else 0.5
    bend = math.log(max(share, 1e-9)) / math.log(0.5)
    return {"low": low, "high": high, "bend": min(max(bend, 1.0), 5.0)}


def frontiers_of(run: Run, criterion: str, rows: int) -> list[dict[str, Any]]:
    """By way to choose thresholds on validation data: policies to which no other of the same way is
    as fast and more often right, from fast to slow, each with what it does on these data."""
    scores, correct = run.val.scores[:rows], run.val.correct[:rows]
    side_exits = scores.shape[1] - 1
    if not side_exits:
        return []
    thresholds_by_kind = {
        "shared": [shared_cutoff(c, side_exits).thresholds for c in run.cutoffs],
        "targets": [calibrate_empirical(scores, correct, target) for target in TARGETS],
        "joint": joint_thresholds(run, criterion, rows),
    }
    return [
        {"kind": kind, "points": points_of(thresholds, criterion, run, rows)}
        for kind, thresholds in thresholds_by_kind.items()
    ]


def joint_thresholds(run: Run, criterion: str, rows: int) -> list[tuple[float | None, ...]]:
    """Thresholds of least time at accuracies down to MOST_LOST points below the full network's."""
    fitted_to = slice(min(rows, JOINT_SAMPLES))
    scores, correct = run.val.scores[fitted_to], run.val.correct[fitted_to]
    least = correct[:, -1].sum() - MOST_LOST / 100 * len(correct)
    expected = expected_correct(run.logits[fitted_to], run.label[fitted_to])
    levels = np.arange(least, len(correct) + 1)
    costs = costs_of(run.model, criterion)
    frontier = joint_frontier(scores, expected, costs, levels)
    places = np.unique(np.linspace(0, len(frontier.cost) - 1, POINTS).round().astype(int))
    return [frontier.thresholds(int(i)) for i in places if i >= 0]


def points_of(
    thresholds: Sequence[tuple[float | None, ...]], criterion: str, run: Run, rows: int
) -> list[dict[str, Any]]:
    """The undominated of the policies with these thresholds: thresholds, correct and seconds."""
    points: list[dict[str, Any]] = []
    tried = [figures_of(t, criterion, run, rows) for t in dict.fromkeys(thresholds)]
    for point in sorted(tried, key=lambda p: (p["seconds"], -p["correct"])):
        if not points or point["correct"] > points[-1]["correct"]:
            points.append(point)
    return points


def figures_of(
    thresholds: tuple[float | None, ...], criterion: str, run: Run, rows: int
) -> dict[str, Any]:
    """What thresholds do on the validation samples that the page carries."""
    scores, correct = run.val.scores[:rows], run.val.correct[:rows]
    result = evaluate(scores, correct, Policy(criterion, thresholds), run.model)
    return {
        "thresholds": list(thresholds),
        "correct": int(result["correct"][0]),
        "seconds": float(result["seconds"][0]),
    }


def policies_of(run: Run) -> list[dict[str, Any]]:
    """The run's policies, and the full network, with their figures on test data."""
    live = {} if run.live is None else overall_rows(run.live)
    scores, correct = run.test.scores, run.test.correct
    policies = []
    for name, (policy, _) in run.policies.items():
        result = evaluate(scores, correct, policy, run.model)
        n, right = len(correct), int(result["correct"][0])
        test = {"n": n, "correct": right, "interval": interval(right, n)}
        test |= {"seconds": float(result["seconds"][0]), "speedup": float(result["speedup"])}
        policies.append(
            {"name": name, "thresholds": list(policy.thresholds), "test": test}
            | {"live": live.get(name)}
        )
    return policies


def overall_rows(live: pa.Table) -> dict[str, dict[str, Any]]:
    """What the live run says of each policy that the run saved."""
    counts = ("n_live", "correct_live", "differ", "excused")
    ratios = tuple(f"speedup_{end}" for end in ("measured", "low", "high"))
    rows = [row for row in live.to_pylist() if row["exit"] == 0 and row["chosen"]]
    return {row["policy"]: {name: row[name] for name in (*counts, *ratios)} for row in rows}


def policy_base(run: Run) -> dict[str, Any]:
    """What a policy made in the page has in common with those that the run saved: all but its
    thresholds and what was said of them."""
    _, content = next(iter(run.policies.values()))
    of_one_policy = ("thresholds", "origin", "selection", "expected")
    return {key: value for key, value in content.items() if key not in of_one_policy}


def pictures_of(images: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
    """Pictures of as many samples as MOST_PICTURES bytes hold, the first of ``wanted``, int64 (N,),
    side by side in one image: their count, size, columns, and that image as an address."""
    count = min(len(wanted), MOST_PICTURED)
    tiles = np.stack([picture_of(images[i]) for i in wanted[:count]])
    while True:
        columns, encoded = sheet_of(tiles)
        if len(encoded) <= MOST_PICTURES or len(tiles) == 1:
            break
        tiles = tiles[: max(int(len(tiles) * 0.95 * MOST_PICTURES / len(encoded)), 1)]
    height, width = tiles.shape[1:3]
    address = f"data:image/webp;base64,{base64.b64encode(encoded).decode()}"
    return {
        "count": len(tiles), "width": width, "height": height, "columns": columns,
        "rows": -(-len(tiles) // columns), "address": address,
    }  # fmt: skip


def are_pictures(images: np.ndarray) -> bool:
    """Whether the dataset's inputs can be looked at."""
    return images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] in (1, 3)


def picture_of(image: np.ndarray) -> np.ndarray:
    """One image, uint8 (H, W, 1 or 3), as RGB of at most PICTURE pixels a side."""
    colours = np.broadcast_to(image, (*image.shape[:2], 3))
    if max(image.shape[:2]) <= PICTURE:
        return colours
    picture = Image.fromarray(np.ascontiguousarray(colours))
    share = PICTURE / max(picture.size)
    width, height = (max(round(side * share), 1) for side in picture.size)
    return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))


def sheet_of(tiles: np.ndarray) -> tuple[int, bytes]:
    """Tiles uint8 (M, H, W, 3) in rows on one sheet: how many to a row, and the sheet as WebP."""
    count, height, width, _ = tiles.shape
    columns = math.ceil(math.sqrt(count * height / width))
    rows = -(-count // columns)
    empty = np.zeros((rows * columns - count, height, width, 3), dtype=np.uint8)
    grid = np.concatenate([tiles, empty]).reshape(rows, columns, height, width, 3)
    sheet = grid.swapaxes(1, 2).reshape(rows * height, columns * width, 3)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(sheet)).save(file, "WEBP", quality=90, method=4)
    return columns, file.getvalue()
