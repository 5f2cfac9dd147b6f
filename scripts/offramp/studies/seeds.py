"""Training of several networks and seeds side by side, without Snakemake: `make train-gpu`.

python -m offramp.studies.seeds --data data/cifar10 --out results/gpu
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offramp import OfframpError
from offramp.common.progress import progress
from offramp.data.splits import open_split
from offramp.inference.machine import prepare
from offramp.networks.index import EXITS, recipe_of
from offramp.networks.loading import save
from offramp.tables.files import origin_of, provenance, read, sha256, write
from offramp.training.purpose import PURPOSE, purpose
from offramp.training.resuming import sole_trainer
from offramp.training.training import precision, train


def settings_of(model: str, seed: int, epochs: int | None) -> dict[str, Any]:
    """A network's own recipe under a seed; ``epochs`` None takes the recipe's."""
    return recipe_of(model) | {"seed": seed} | ({} if epochs is None else {"epochs": epochs})


def train_one(model: str, seed: int, options: argparse.Namespace) -> None:
    """Train one network under one seed; weights and curves into a folder of their own, where a run
    that is cut off goes on."""
    device, machine = prepare({"device": options.device, "threads": options.threads})
    folder = folder_of(options.out, model, seed)
    folder.mkdir(parents=True, exist_ok=True)
    settings = settings_of(model, seed, options.epochs)
    dataset = options.data.name
    splits = [open_split(options.data, dataset, name, None) for name in ("train", "val")]
    config = {"model": {"name": model}, "dataset": {"name": dataset}, "train": settings}
    origin = provenance(config, "", "train") | machine
    resume = folder / "resume.pt"
    with sole_trainer(resume):
        network, curves = train(model, dataset, splits[0], splits[1], settings, device, resume)
        weights = folder / "weights.safetensors"
        save(network, weights, {"model": model, "dataset": dataset})
        origin |= {
            "how": "`make train-gpu`",
            "weights_sha256": sha256(weights),
            "dtype": precision(device, settings),
            "recipe": json.dumps(settings),
            PURPOSE: json.dumps(purpose(model, dataset, None, settings)),
        }
        write(folder / "training.parquet", curves, "training", origin)
        resume.unlink()


def train_all(options: argparse.Namespace) -> None:
    """All networks and seeds, each in a process of its own: one alone leaves most of a GPU idle.

    Raises OfframpError that names the logs of those that failed.
    """
    missing = [
        (model, seed)
        for model in options.networks
        for seed in options.seeds
        if not (folder_of(options.out, model, seed) / "training.parquet").exists()
    ]
    running = {}
    for model, seed in missing:
        log = folder_of(options.out, model, seed).with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "offramp.studies.seeds", "--one", model, str(seed)]
        command += ["--data", options.data, "--out", options.out, "--device", options.device]
        command += ["--threads", str(options.threads)]
        command += [] if options.epochs is None else ["--epochs", str(options.epochs)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        with log.open("w") as file:
            running[log] = subprocess.Popen([*map(str, command)], env=environment, stderr=file)
    failed = [str(log) for log in progress(running, "train", "network") if running[log].wait()]
    if failed:
        raise OfframpError(f"not trained; see {', '.join(failed)}")


def folder_of(out: Path, model: str, seed: int) -> Path:
    """Where one training's files go."""
    return out / f"{model}_{seed}"


def final_accuracies(curves: str | Path) -> list[float]:
    """Validation accuracy per exit after the last epoch of a training table."""
    rows = read(curves, "training").to_pylist()
    last = max(row["epoch"] for row in rows)
    return [row["val_accuracy"] for row in rows if row["epoch"] == last]


def report(options: argparse.Namespace) -> None:
    """A line a training: validation accuracy of every exit, and minutes. The accuracies of all
    seeds go into the first one's table, whose card will say how far they spread."""
    for model in options.networks:
        paths = {s: folder_of(options.out, model, s) / "training.parquet" for s in options.seeds}
        accuracies = {seed: final_accuracies(path) for seed, path in paths.items()}
        for seed, path in paths.items():
            accuracy = " ".join(f"{a:.2%}" for a in accuracies[seed])
            rows: list[Mapping] = read(path, "training").to_pylist()
            minutes = sum(row["seconds"] for row in rows if row["exit"] == 1) / 60
            print(f"{model}, seed {seed}: val {accuracy}; {minutes:.1f} minutes")
        first = paths[options.seeds[0]]
        curves = read(first, "training")
        write(first, curves, "training", origin_of(curves) | {"seeds": json.dumps(accuracies)})


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--data", type=Path, default=Path("data/cifar10"), help="its name is the dataset's"
    )
    parser.add_argument("--out", type=Path, default=Path("results/gpu"))
    parser.add_argument("--networks", nargs="+", choices=EXITS, default=["branchynet", "cpunet"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, help="fewer than the recipe's, for a try")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each training")
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "SEED"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    options = arguments()
    try:
        if options.one:
            train_one(options.one[0], int(options.one[1]), options)
        else:
            train_all(options)
            report(options)
    except OfframpError as error:
        sys.exit(f"error: {error}")
