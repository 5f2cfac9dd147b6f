"""Peak memory of a dump of logits: a process of its own, asked for in JSON on stdin."""

import json
import resource
import sys
import tempfile
from typing import Any

import numpy as np

from offramp.data.datasets import dataset_of
from offramp.data.splits import Split, load_images, open_split
from offramp.inference.backends import for_inference
from offramp.inference.forward import dump_split
from offramp.inference.machine import prepare
from offramp.networks.loading import load


def dump_peak(params: dict[str, Any], weights: str, data: str, images: int) -> float:
    """Peak resident MiB of this process after a dump of so many images, repeated from the split."""
    device, _ = prepare(params)
    classes = dataset_of(params["dataset"]).classes
    split = open_split(data, params["dataset"], "train", params["validation"])
    loaded, two = load(params["model"], classes, weights, device), slice(0, 2)
    network = for_inference(loaded, params["backend"], load_images(split, two, device))
    again = np.arange(images) % len(split.order)
    long = Split(split.images, split.labels[again], split.order[again])
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/logits.parquet"
        dump_split(network, long, "train", classes, params["batch_size"], device, path, {})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


if __name__ == "__main__":
    print(dump_peak(**json.load(sys.stdin)))
