"""What the config says of logits and costs that a user brings, checked before any job."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from offramp.data.datasets import SPLITS

# Totals over all samples stay finite.
MOST = 1e100
TRAIN = "logits/train.parquet"


def splits_of(logits: str | Mapping[str, Any] | None) -> tuple[str, ...]:
    """The splits there are: all of a network run here; of own logits, and of another run's results
    folder, train only where there is one."""
    if logits is None:
        return SPLITS
    if isinstance(logits, str):
        return tuple(s for s in SPLITS if s != "train" or (Path(logits) / TRAIN).exists())
    return tuple(s for s in SPLITS if s != "train" or logits.get("train") is not None)


def own_faults(config: Mapping[str, Any]) -> Iterable[str]:
    """What is wrong with the config's own logits and costs, a line each."""
    logits, costs = config.get("logits"), config.get("costs")
    if logits is None:
        if costs is not None:
            yield "costs: these belong to own logits, and logits is null; a network here is timed"
    elif isinstance(logits, str):
        yield from _run_faults(logits, config["results"])
        if costs is not None:
            yield f"costs: the timings of {logits} count; leave this out"
    else:
        for split in splits_of(logits):
            yield from _samples_faults(f"logits.{split}", logits[split])
        if costs is None:
            yield "costs: missing; say what a sample costs: {up_to: [a number per exit], unit: s}"
        elif isinstance(costs, str):
            yield from _file_faults("costs", costs, (".parquet",), "a timings table (.parquet)")
        else:
            yield from _cost_faults(costs)


def compare_faults(config: Mapping[str, Any]) -> Iterable[str]:
    """Which of the results folders to compare are not those of finished runs, a line each."""
    for folder in config.get("compare") or ():
        finished = Path(folder, "summary.json").exists()
        if not finished and Path(folder).resolve() != Path(config["results"]).resolve():
            yield f"compare: {folder} has no summary.json; run its config first"


def _run_faults(folder: str, results: str) -> Iterable[str]:
    if Path(folder).resolve() == Path(results).resolve():
        yield f"logits: {folder} is this config's own results folder; give the variant another one"
        return
    if not Path(folder).is_dir():
        yield f"logits: no results folder {folder}; name the folder of a finished run, or files"
        return
    needed = ("logits/val.parquet", "logits/test.parquet", "timings.parquet")
    missing = [name for name in needed if not Path(folder, name).exists()]
    if missing:
        yield f"logits: {folder} has no {missing[0]}; run its config first"


def _samples_faults(key: str, source: str | Mapping[str, str]) -> Iterable[str]:
    if isinstance(source, str):
        what = "an .npz with logits and labels, or a logits table (.parquet)"
        yield from _file_faults(key, source, (".npz", ".parquet"), what)
    else:
        for name in ("logits", "labels"):
            yield from _file_faults(f"{key}.{name}", source[name], (".npy",), "an .npy")


def _file_faults(key: str, path: str, endings: tuple[str, ...], what: str) -> Iterable[str]:
    if not path.endswith(endings):
        hint = "; two .npy are named {logits: …, labels: …}" if path.endswith(".npy") else ""
        yield f"{key}: {path}: want {what}{hint}"
    elif not Path(path).is_file():
        yield f"{key}: no file {path}"


def _cost_faults(costs: Mapping[str, Any]) -> Iterable[str]:
    if costs.keys() not in ({"blocks", "heads", "unit"}, {"up_to", "unit"}):
        yield "costs: want blocks and heads, a number per exit each, or up_to; and unit"
        return
    for key in sorted(costs.keys() - {"unit"}):
        for place, value in enumerate(costs[key]):
            if not 0 <= value <= MOST:  # nor is NaN
                yield f"costs.{key}: {value} at index {place}; want finite numbers, none below 0"
                return
    if "up_to" in costs:
        for place, (previous, value) in enumerate(pairwise([0, *costs["up_to"]])):
            if value <= previous:
                yield (
                    f"costs.up_to: {value:g} at index {place} isn't above the {previous:g} before "
                    "it; each exit costs more than the one before"
                )
                return
    elif len(costs["blocks"]) != len(costs["heads"]):
        yield (
            f"costs: {len(costs['blocks'])} blocks and {len(costs['heads'])} heads; want one "
            "number per exit in each"
        )
    else:
        for place, pair in enumerate(zip(costs["blocks"], costs["heads"], strict=True)):
            if not sum(pair):
                yield f"costs: block and head at index {place} both cost 0; want one above 0"
                return
