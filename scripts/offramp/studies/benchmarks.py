"""All benchmarks of a network, in parts that can be run again one by one."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
import torch

from offramp import OfframpError
from offramp.data.datasets import dataset_of
from offramp.data.splits import Split, load_images
from offramp.inference.backends import BACKENDS, for_inference
from offramp.inference.opening import ready_network, split_of
from offramp.networks.loading import load
from offramp.networks.multiexit import MultiExitNetwork
from offramp.scoring.policy import Policy, exits_of, load_policy_for
from offramp.scoring.scores import read_scores
from offramp.studies.bench_curves import over_the_range
from offramp.studies.bench_live import answers, overhead, peak, profile, speed
from offramp.studies.bench_model import time_model
from offramp.studies.bench_public import against_public_networks, published_points
from offramp.studies.bench_tables import (
    dump_against_forward,
    dump_memory,
    students_cascade,
    sweep_against_reruns,
)
from offramp.studies.bench_thresholds import at_equal_promise, threshold_data
from offramp.tables.files import read, read_logits
from offramp.thresholds.calibration import CalibrationData
from offramp.thresholds.time_model import TimeModel, fit_time_model


class Subject(NamedTuple):
    """What is measured: the network ready for inference, a policy, test images, and the tables.

    ``scores`` has entropy and correctness (N, K) of val and test; ``multiply_adds`` int (2, K) is
    of one image, blocks and heads; ``paths`` are the rule's inputs and ``params`` its parameters.
    """

    network: MultiExitNetwork
    policy: Policy
    test: Split
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]]
    model: TimeModel
    multiply_adds: np.ndarray
    paths: Any
    params: Any
    device: torch.device


def subject_of(paths: Any, params: Any, device: torch.device) -> Subject:
    """Read what every part needs.

    Raises OfframpError when the policy decides by anything but the entropy of raw logits.
    """
    test = split_of(paths, params, "test")
    network = ready_network(params.model, paths.weights, params, test, device)
    policy = load_policy_for(
        paths.policy, len(network.heads), dataset_of(params.dataset).classes, network.identity
    )
    if (policy.criterion, policy.temperatures) != ("entropy", None):
        raise OfframpError("benchmarks: only of entropy on raw logits; leave criterion as it is")
    scores = {
        split: read_scores(path)[:2]
        for split, path in zip(("val", "test"), paths.scores, strict=True)
    }
    parts = read(paths.network, "network")
    multiply_adds = np.stack(
        [parts.filter(pc.field("part") == part)["multiply_adds"] for part in ("block", "head")]
    )
    model = fit_time_model(read(paths.timings, "timings"), params.batch_size)
    return Subject(network, policy, test, scores, model, multiply_adds, paths, params, device)


def _loaded(paths: Any, params: Any, device: torch.device) -> MultiExitNetwork:
    return load(params.model, dataset_of(params.dataset).classes, paths.weights, device)


def _time_model(s: Subject) -> list[dict]:
    return time_model(s.network, s.scores["test"][0], s.model, s.multiply_adds, s.test, s.device)


def _backends(s: Subject) -> list[dict]:
    """Speed and answers on every backend that is installed and runs on the device."""
    networks, example = {s.params.backend: s.network}, load_images(s.test, slice(0, 2), s.device)
    for backend in BACKENDS.keys() - {s.params.backend}:
        try:
            loaded = _loaded(s.paths, s.params, s.device)
            networks[backend] = for_inference(loaded, backend, example)
        except OfframpError as error:
            print(f"without {backend}: {error}")
    logits = read_logits(s.paths.logits[1]).logits
    rows = speed(networks, s.policy, s.test, s.device)
    return rows + answers(networks, s.policy, s.test, logits, s.params.batch_size, s.device)


def _machine(s: Subject) -> list[dict]:
    size, exits = s.params.batch_size, exits_of(s.scores["test"][0], s.policy.thresholds)
    rows = overhead(s.network, s.test, size, s.device)
    rows += peak(s.network, s.policy, exits, s.multiply_adds, s.test, size, s.device)
    return rows + profile(s.network, s.policy, s.test, size, s.device)


def _tables(s: Subject) -> list[dict]:
    size, classes = s.params.batch_size, dataset_of(s.params.dataset).classes
    train = split_of(s.paths, s.params, "train")
    rows = sweep_against_reruns(
        s.network, s.paths.scores[1], s.paths.timings, s.test, classes, size, s.device
    )
    rows += dump_against_forward(s.network, train, classes, size, s.device)
    folder = str(Path(s.paths.data[0]).parent)
    return rows + dump_memory(dict(s.params.items()), s.paths.weights, folder)


def _thresholds(s: Subject) -> list[dict]:
    val, test = map(read_logits, s.paths.logits)
    logits = val.logits, val.label, test.logits
    data = threshold_data(*logits, s.scores, s.multiply_adds, s.model)
    published = published_points() if s.params.dataset == "cifar10" else {}
    return at_equal_promise(data) + over_the_range(data, published)


def _student(s: Subject) -> list[dict]:
    plain, cutoff = _loaded(s.paths, s.params, s.device), s.params.report_cutoff
    return students_cascade(plain, s.network, s.test, cutoff, s.params.batch_size, s.device)


def _public(s: Subject) -> list[dict]:
    logits = read_logits(s.paths.logits[0])
    val = CalibrationData(*s.scores["val"], logits.logits, logits.label)
    tables = val, s.scores["test"], s.multiply_adds, s.model
    return against_public_networks(s.network, s.policy, *tables, s.test, s.device)


PARTS: dict[str, Callable[[Subject], list[dict]]] = {
    "backends": _backends,
    "machine": _machine,
    "time_model": _time_model,
    "tables": _tables,
    "thresholds": _thresholds,
    "student": _student,
    "public": _public,
}
