"""Benchmarks of the live cascade: against its own parts, its full network, other backends, and the
machine's peak. All that is compared in one table runs interleaved in one run."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from offramp.common.progress import progress
from offramp.data.splits import Split, load_images
from offramp.inference.cascade import cascade, cascade_regrouped, run_full_network
from offramp.inference.forward import Stopwatch, all_samples, timed_stage
from offramp.inference.machine import timed
from offramp.inference.verification import differences
from offramp.networks.features import Features
from offramp.networks.multiexit import MultiExitNetwork
from offramp.scoring.policy import Outcome, Policy, outcome_of_tables, shared_cutoff
from offramp.thresholds.time_model import reached_by

REPEATS = 5
# Batch size and on how many images.
SIZES = {256: 2_048, 32: 1_024, 1: 200}
# Channels and side of the 3x3 convolutions that look for the machine's peak, at a batch of 64.
PEAK_CONVOLUTIONS = ((64, 32), (128, 32), (256, 16), (512, 8))
# torch's own names of operations inside blocks and heads, and what they are to a reader.
OPERATIONS = {
    "convolutions": ("conv",),
    "linear layers": ("addmm", "linear"),
    "batch norm": ("batch_norm",),
    "pooling": ("pool", "amax"),
    "activations": ("relu", "clamp"),
}


def row(
    benchmark: str, contender: str, repeat: int, value: float, unit: str, **where: Any
) -> dict[str, Any]:
    """A row of `benchmarks.parquet`; ``where`` may have case, batch_size, images."""
    empty = {"case": None, "batch_size": None, "images": None}
    named = {"benchmark": benchmark, "contender": contender, "repeat": repeat}
    return {**named, **empty, **where, "value": float(value), "unit": unit}


def interleaved(
    benchmark: str,
    contenders: Mapping[str, Callable[[], Any]],
    device: torch.device,
    repeats: int = REPEATS,
    **where: Any,
) -> list[dict]:
    """Seconds of every contender, one after the other and all over again; the first turn warms up
    and is not kept."""
    rows = []
    for repeat in progress(
        range(repeats + 1), f"{benchmark} {where.get('batch_size', '')}", "turn"
    ):
        for name, call in contenders.items():
            seconds = seconds_of(call, device)
            if repeat:
                rows.append(row(benchmark, name, repeat, seconds, "seconds", **where))
    return rows


def seconds_of(call: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call."""
    return timed(call, device)[1]


def load_batches(split: Split, images: int, batch_size: int, device: torch.device) -> list[Tensor]:
    """The first ``images`` of a split on the device, in batches."""
    images = min(images, len(split.order))
    ends = [*range(batch_size, images, batch_size), images]
    starts = [0, *ends[:-1]]
    return [
        load_images(split, slice(start, end), device).contiguous(memory_format=torch.channels_last)
        for start, end in zip(starts, ends, strict=True)
    ]


def over_batches(call: Callable[[Tensor], Any], batches: Sequence[Tensor]) -> Callable[[], None]:
    """A call that does all batches."""

    def run() -> None:
        for x in batches:
            call(x)

    return run


def speed(
    networks: Mapping[str, MultiExitNetwork], policy: Policy, split: Split, device: torch.device
) -> list[dict]:
    """The cascade, plain and with survivors regrouped into full batches, against its full network
    on every backend, at every batch size of SIZES."""
    rows = []
    for batch_size, images in SIZES.items():
        batches = load_batches(split, images, batch_size, device)
        contenders: dict[str, Callable[[], Any]] = {}
        for backend, network in networks.items():
            full, early = (
                partial(run_full_network, network),
                partial(cascade, network, policy),
            )
            contenders[f"{backend}: full network"] = over_batches(full, batches)
            contenders[f"{backend}: cascade"] = over_batches(early, batches)
            contenders[f"{backend}: cascade, regrouped"] = partial(
                cascade_regrouped, network, policy, batches, batch_size
            )
        where = {"batch_size": batch_size, "images": min(images, len(split.order))}
        rows += interleaved("speed", contenders, device, **where)
    return rows


def answers(
    networks: Mapping[str, MultiExitNetwork],
    policy: Policy,
    split: Split,
    logits: np.ndarray,
    batch_size: int,
    device: torch.device,
) -> list[dict]:
    """On how many samples each backend's cascade decides otherwise than the tables do, and how many
    of those the float exceptions do not excuse."""
    rows = []
    table = outcome_of_tables(policy, logits)
    for backend, network in networks.items():
        live = Outcome(*np.zeros((2, len(split.order)), dtype=np.int64))
        for batch in progress(list(split.batches(batch_size)), f"answers of {backend}", "batch"):
            labels, exits = cascade(network, policy, load_images(split, batch, device))
            live.exits[batch], live.labels[batch] = exits.cpu(), labels.cpu()
        differ, excused = differences(policy, logits, table, live)
        where = {"batch_size": batch_size, "images": len(split.order)}
        for what, count in (("differ", differ), ("not excused", differ & ~excused)):
            rows.append(row("answers", f"{backend}: {what}", 1, count.sum(), "samples", **where))
    return rows


def overhead(
    network: MultiExitNetwork, split: Split, batch_size: int, device: torch.device
) -> list[dict]:
    """The cascade at cutoff 0, where next to nobody leaves, against the sum of its parts, each
    timed by itself in the turn between."""
    batches = load_batches(split, SIZES[256], batch_size, device)
    policy = shared_cutoff(0.0, len(network.heads) - 1)
    where = {"batch_size": batch_size, "images": sum(map(len, batches))}
    rows = []
    for repeat in progress(range(REPEATS + 1), "overhead", "turn"):
        seconds = seconds_of(over_batches(partial(cascade, network, policy), batches), device)
        watch = Stopwatch(device, "bench")
        for x in batches:
            _time_parts(network, policy, x, watch)
        parts = sum(part["seconds"] for part in watch.rows)
        if repeat:
            rows.append(row("overhead", "cascade at cutoff 0", repeat, seconds, "seconds", **where))
            rows.append(row("overhead", "sum of the parts", repeat, parts, "seconds", **where))
    return rows


@torch.inference_mode()
def _time_parts(network: MultiExitNetwork, policy: Policy, x: Features, watch: Stopwatch) -> None:
    samples, notes = all_samples(x)
    for _ in network.heads:
        samples = timed_stage(network, policy, samples, notes, watch)


def peak(
    network: MultiExitNetwork,
    policy: Policy,
    exits: np.ndarray,
    multiply_adds: np.ndarray,
    split: Split,
    batch_size: int,
    device: torch.device,
) -> list[dict]:
    """Gflop/s (two a multiply-add) of the full network, of the cascade, and of large convolutions.

    Parameters: ``exits`` int (N,), where each sample of the split leaves under the policy;
    ``multiply_adds`` int (2, K) of one image, blocks and heads.
    """
    batches = load_batches(split, SIZES[256], batch_size, device)
    images = sum(map(len, batches))
    heads, _ = policy.runs
    reached = reached_by(exits[:images], batch_size, len(heads)).sum(axis=0)
    work = {
        "full network": images * (multiply_adds[0].sum() + multiply_adds[1, -1]),
        "cascade": int((reached * (multiply_adds[0] + multiply_adds[1] * heads)).sum()),
    }
    contenders: dict[str, Callable[[], Any]] = {
        "full network": over_batches(partial(run_full_network, network), batches),
        "cascade": over_batches(partial(cascade, network, policy), batches),
    }
    for channels, side in PEAK_CONVOLUTIONS:
        name = f"convolution of {channels} channels, {side}x{side}"
        contenders[name], work[name] = _convolution(channels, side, device)
    rows = interleaved("peak", contenders, device, batch_size=batch_size)
    for timed_row in rows:
        gflops = 2e-9 * work[timed_row["contender"]] / timed_row["value"]
        timed_row |= {"value": gflops, "unit": "Gflop/s"}
    return rows


def _convolution(channels: int, side: int, device: torch.device) -> tuple[Callable[[], Any], int]:
    layout: Any = {"memory_format": torch.channels_last}
    layer = nn.Conv2d(channels, channels, 3, padding=1).to(device, **layout)
    x = torch.rand(64, channels, side, side, device=device).contiguous(**layout)

    @torch.inference_mode()
    def run() -> None:
        for _ in range(4):
            layer(x)

    return run, 4 * 64 * channels**2 * 9 * side**2


def profile(
    network: MultiExitNetwork,
    policy: Policy,
    split: Split,
    batch_size: int,
    device: torch.device,
) -> list[dict]:
    """Where the cascade's time goes, as shares of the whole: torch's profiler over operations on
    the CPU; what is not inside one is Python, dispatch and the profiler itself."""
    batches = load_batches(split, SIZES[256], batch_size, device)
    run = over_batches(partial(cascade, _labelled(network), policy), batches)
    run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        whole = seconds_of(run, device)
    spent: dict[str, float] = {}
    for operation in profiler.events():
        name = _part_of(operation)
        spent[name] = spent.get(name, 0.0) + operation.self_cpu_time_total / 1e6
    spent["Python and dispatch"] = whole - sum(spent.values()) + spent.pop("", 0.0)
    where = {"batch_size": batch_size, "images": sum(map(len, batches))}
    return [
        row("profile", name, 1, spent[name] / whole, "share", **where) for name in sorted(spent)
    ]


def _labelled(network: MultiExitNetwork) -> MultiExitNetwork:
    """The network with its blocks and heads marked for the profiler."""

    def marked(part: Callable[[Tensor], Tensor], label: str) -> Any:
        def run(x: Tensor) -> Tensor:
            with torch.profiler.record_function(label):
                return part(x)

        return run

    labelled = MultiExitNetwork()
    labelled.blocks = tuple(marked(block, "blocks") for block in network.blocks)
    labelled.heads = tuple(marked(head, "heads") for head in network.heads)
    return labelled


def _part_of(operation: Any) -> str:
    """What an operation is part of; "" for the marks themselves."""
    if operation.name in ("blocks", "heads"):
        return ""
    outside = operation.cpu_parent
    while outside is not None and outside.name not in ("blocks", "heads"):
        outside = outside.cpu_parent
    if outside is None:
        return "removal and notes" if "index" in operation.name else "entropy and decision"
    kinds = (
        kind for kind, keys in OPERATIONS.items() if any(key in operation.name for key in keys)
    )
    return f"{outside.name}: {next(kinds, 'other')}"
