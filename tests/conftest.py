"""What several test modules share: toy networks, a hand-made clock, slow obvious oracles."""

import fcntl
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import settings
from torch import nn

from offramp.networks.multiexit import MultiExitNetwork
from offramp.scoring.criteria import CRITERIA, FEATURES
from offramp.tables.schemas import TIMINGS
from offramp.thresholds.time_model import TimeModel

# Tests share the machine with other jobs, and one thread keeps toy networks deterministic.
torch.set_num_threads(1)

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

FAULTS = Path(__file__).parents[1] / "docs/faults.md"
ORIGIN = {"dataset": "toy", "split": "val", "model": "toy", "weights_sha256": "a" * 64}


def faults() -> list[tuple[str, str]]:
    """The messages of docs/faults.md, each with the test that meets it."""
    rows = [line.split(" | ") for line in FAULTS.read_text().splitlines() if line.count(" | ") == 3]
    rows = [[cell.strip("| `") for cell in row] for row in rows]
    return [(row[1], row[3]) for row in rows if "test_" in row[3]]


def documented(message: str) -> bool:
    """Whether docs/faults.md has this message, or one that it holds; its ``…`` is anything."""
    text = " ".join(message.split())
    return any(re.search(".*".join(map(re.escape, said.split("…"))), text) for said, _ in faults())


class ToyNetwork(MultiExitNetwork):
    """``exits`` small blocks and heads on 3x32x32 images, weights drawn under a seed.

    The blocks halve the image until 4x4 is left; heads are scaled so that entropies differ widely.
    """

    def __init__(self, exits: int, classes: int, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        widths, size = [3] + [4] * exits, 32
        blocks, heads = [], []
        for k in range(exits):
            stride = 2 if size > 4 else 1
            size //= stride
            conv = nn.Conv2d(widths[k], widths[k + 1], 3, stride=stride, padding=1)
            nn.init.normal_(conv.weight, std=(2 / (9 * widths[k])) ** 0.5)
            linear = nn.Linear(4 * size * size, classes)
            nn.init.normal_(linear.weight, std=2.5 / size)
            blocks.append(nn.Sequential(conv, nn.ReLU()))
            heads.append(nn.Sequential(nn.Flatten(), linear))
        self.trunk, self.exits = nn.ModuleList(blocks), nn.ModuleList(heads)
        self.blocks, self.heads = tuple(blocks), tuple(heads)


def toy_network(exits: int, classes: int = 10, seed: int = 0) -> MultiExitNetwork:
    network = ToyNetwork(exits, classes, seed).to(memory_format=torch.channels_last)
    return network.eval()


def toy_images(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, 32, 32, generator=generator)
    return images.contiguous(memory_format=torch.channels_last)


def some_weights(criterion: str, side_exits: int, classes: int):
    """Weights for a fitted criterion, far enough from 0 to matter; None for any other."""
    if not CRITERIA[criterion].fitted:
        return None
    draw = np.random.default_rng(8)
    rows = np.hstack(
        [
            np.tile([0.8, 2.0, -0.3], (side_exits, 1)),
            draw.normal(-2, 1, (side_exits, classes)),
        ]
    )
    assert rows.shape == (side_exits, FEATURES + classes)
    return tuple(map(tuple, rows.tolist()))


def hand_made_model(exits: int, largest: int, batch_size: int | None = None) -> TimeModel:
    """A clock on which every part of every exit has a time of its own, not linear in n, and where
    removal would be negative for some batches if it were not held at 0."""
    n = np.arange(largest + 1)
    parts = np.array(
        [
            [(p + 1) * (k + 2) + 0.1 * (k + 1) * n + 0.01 * (p + 1) * n**2 for k in range(exits)]
            for p in range(3)
        ]
    )
    parts[:, :, 0] = 0.0
    removal = np.array([[-0.5 + k, 0.2, 0.05 * (k + 1)] for k in range(exits - 1)])
    return TimeModel(parts, removal.reshape(exits - 1, 3), batch_size or largest)


def slow_stage_seconds(
    model: TimeModel, taken, batch_size: int, heads, decides=None
) -> list[float]:
    """Seconds of each stage by the design's words: for every batch in turn, the parts at the number
    of samples that are still there. Where heads run it is decided, if ``decides`` says no other."""
    exits = len(heads)
    decides = heads if decides is None else decides
    seconds = [0.0] * exits
    for start in range(0, len(taken), batch_size):
        batch = list(taken[start : start + batch_size])
        for k in range(1, exits + 1):
            here = sum(1 for exit_ in batch if exit_ >= k)
            stay = sum(1 for exit_ in batch if exit_ > k)
            if here == 0:
                continue
            seconds[k - 1] += model.parts[0][k - 1][here]
            if heads[k - 1]:
                seconds[k - 1] += model.parts[1][k - 1][here]
            if decides[k - 1]:
                seconds[k - 1] += model.parts[2][k - 1][here]
                if k < exits and 0 < stay < here:
                    a, b, c = model.removal[k - 1]
                    seconds[k - 1] += max(0.0, a + b * here + c * stay)
    return seconds


def slow_exit(scores, thresholds) -> int:
    """The exit of one sample, 1..K."""
    for k, threshold in enumerate(thresholds, 1):
        if threshold is not None and scores[k - 1] <= threshold:
            return k
    return len(thresholds) + 1


def linear_seconds(part: str, exit_: int, size: int, kept: int = 0) -> float:
    """The formula behind `probe_table`."""
    base, slope = {"block": (5, 2), "head": (3, 1), "decide": (2, 0.5), "remove": (1, 0.25)}[part]
    return 1e-5 * exit_ * (base + slope * size + 0.75 * kept)


def probe_table(exits: int, sizes=(1, 2, 4, 8), noise=(0.5, 1.0, 1.5)) -> pa.Table:
    """Probe rows by `linear_seconds`; every repeat is off by a factor, the median is not."""
    rows = []

    def note(part, exit_, size, kept=None):
        seconds = linear_seconds(part, exit_, size, kept or 0)
        for repeat, factor in enumerate(noise):
            rows.append(
                {
                    "split": "probe",
                    "part": part,
                    "exit": exit_,
                    "batch_size": size,
                    "kept": kept,
                    "repeat": repeat,
                    "seconds": seconds * factor,
                }
            )

    for exit_ in range(1, exits + 1):
        for size in sizes:
            for part in ("block", "head", "decide"):
                note(part, exit_, size)
            if exit_ < exits:
                for kept in range(1, size):
                    note("remove", exit_, size, kept)
    return pa.Table.from_pylist(rows, schema=TIMINGS)


def named_path(variable: str) -> Path | None:
    """The path that an environment variable names; in CI a missing one is a failure."""
    value = os.environ.get(variable)
    assert value or not os.environ.get("CI"), f"CI must set {variable}"
    return Path(value).resolve() if value else None


def real_archive() -> Path:
    """The folder of the real CIFAR-10 archive; a test that needs it is skipped where a contributor
    has none, never in CI."""
    folder = named_path("OFFRAMP_DATA")
    if folder is None:
        pytest.skip("needs the real archive: set OFFRAMP_DATA to its folder")
    return folder


def pytest_collection_modifyitems(items):
    """Those that start Snakemake come last, so that a broken library shows within seconds."""
    items.sort(key=lambda item: item.path.parent.name == "workflow")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Nothing runs beside a test marked `alone`, whose seconds count. Several workers share a lock,
    which such a test takes for itself; the door makes the others wait behind it."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is None:
        return (yield)
    lock = f"{tempfile.gettempdir()}/offramp-tests-{run}"
    with open(f"{lock}.room", "w") as room, open(f"{lock}.door", "w") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        return (yield)
