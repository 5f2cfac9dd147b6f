"""What only a GPU can show: `make test-gpu`. What it measures is printed, and kept in
results/gpu.json. On a CPU (OFFRAMP_TEST_DEVICE=cpu) the same tests run on fewer images, as a
try."""

import json
import os
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from offramp.data.splits import Split, load_images, open_split
from offramp.inference.backends import for_inference
from offramp.inference.cascade import run_cascade, run_cascade_regrouped
from offramp.inference.forward import dump_split
from offramp.inference.machine import prepare, timed
from offramp.inference.probe import probe
from offramp.inference.verification import (
    Case,
    compared,
    fail_on_differences,
    run_interleaved,
    speedups,
    warm_up,
)
from offramp.networks.loading import load
from offramp.networks.multiexit import MultiExitNetwork
from offramp.scoring.policy import Outcome, Policy, outcome_of_tables, policy_scores, shared_cutoff
from offramp.tables.files import read_logits
from offramp.thresholds.time_model import (
    fit_time_model,
    full_network_seconds,
    reached_by,
    stage_seconds,
)

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[2]
KIND = os.environ.get("OFFRAMP_TEST_DEVICE", "cuda")
SAMPLES = 5_000 if KIND == "cuda" else 130
BATCH = 256 if KIND == "cuda" else 64
MOST_LOST = 0.005


class Bench(NamedTuple):
    """A shipped network on the device, images, its logits (N, K, C) there, and where both go."""

    name: str
    network: MultiExitNetwork
    device: torch.device
    split: Split
    logits: np.ndarray


def images() -> Split:
    """CIFAR-10's validation images where `make test-gpu` unpacked them, else noise."""
    if (ROOT / "data/cifar10/train_images.npy").exists():
        split = open_split(ROOT / "data/cifar10", "cifar10", "val", None)
        return Split(split.images, split.labels[:SAMPLES], split.order[:SAMPLES])
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (SAMPLES, 4, 4, 3), dtype=np.uint8)
    labels = draw.integers(0, 10, SAMPLES)
    return Split(coarse.repeat(8, 1).repeat(8, 2), labels, np.arange(SAMPLES))


@pytest.fixture(scope="module", params=["branchynet", "cpunet"])
def bench(request, tmp_path_factory) -> Bench:
    device, about = prepare({"device": KIND, "threads": None})
    note("device", about)
    weights = ROOT / f"weights/{request.param}.safetensors"
    network = for_inference(load(request.param, 10, weights, device), "eager")
    table, split = str(tmp_path_factory.mktemp("gpu") / "logits.parquet"), images()
    dump_split(network, split, "val", 10, BATCH, device, table, {"weights_sha256": "a" * 64})
    return Bench(request.param, network, device, split, read_logits(table)[2])


def note(key: str, found) -> None:
    """Print a finding; on a GPU keep it beside the others."""
    print(f"\n{key}: {json.dumps(found)}")
    if KIND != "cuda":
        return
    path = ROOT / "results/gpu.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known[key] = found
    path.write_text(json.dumps(known, indent=2) + "\n")


def some_policies(logits: np.ndarray) -> list[Case]:
    """Shared cutoffs from nobody to nearly everybody leaving, thresholds that send a part out at
    each exit, and disabled exits."""
    side = logits.shape[1] - 1
    entropies = policy_scores(Policy("entropy", (None,) * side), logits)
    shares = (0.0, 0.3, 0.6, 0.9)
    cases = [
        Case(f"share {share}", shared_cutoff(float(np.quantile(entropies, share)), side), True)
        for share in shares
    ]
    each = tuple(np.quantile(entropies, 0.4, axis=0).tolist())
    cases.append(Case("per exit", Policy("entropy", each), True))
    gaps = tuple(t if k % 2 else None for k, t in enumerate(each))
    return [*cases, Case("with disabled exits", Policy("entropy", gaps), True)]


def fastest_that_loses_little(bench: Bench) -> Policy:
    """The shared cutoff that loses at most half a point on these very images: good for a clock."""
    right = (bench.logits[:, -1].argmax(1) == bench.split.labels).mean()
    best = shared_cutoff(0.0, bench.logits.shape[1] - 1)
    for cutoff in np.geomspace(1e-4, 2.3, 60):
        policy = best._replace(thresholds=(float(cutoff),) * len(best.thresholds))
        labels = outcome_of_tables(policy, bench.logits).labels
        if right - (labels == bench.split.labels).mean() <= MOST_LOST:
            best = policy
    return best


def test_the_live_cascade_agrees_with_the_tables(bench):
    cases = some_policies(bench.logits)
    reached = np.concatenate([taken(bench, case.policy, BATCH) for case in cases])
    warm_up(bench.network, reached, load_images(bench.split, slice(0, BATCH), bench.device))
    outcomes, seconds = run_interleaved(bench.network, cases, bench.split, BATCH, bench.device)
    comparisons = [
        compared(case, bench.logits, table(bench, case.policy), live)
        for case, live in zip(cases, outcomes, strict=True)
    ]
    fail_on_differences(comparisons, bench.split.order)
    excused = [int(comparison.excused.sum()) for comparison in comparisons]
    note(f"{bench.name}: decisions", len(cases) * len(bench.split.order))
    note(f"{bench.name}: excused by the float exceptions", sum(excused))
    assert (seconds > 0).all()


def table(bench: Bench, policy: Policy) -> Outcome:
    return outcome_of_tables(policy, bench.logits)


def taken(bench: Bench, policy: Policy, batch_size: int) -> np.ndarray:
    exits = table(bench, policy).exits
    return reached_by(exits, batch_size, bench.logits.shape[1])


def test_regrouped_batches_agree_with_the_tables(bench):
    case = some_policies(bench.logits)[1]
    batches = [load_images(bench.split, rows, bench.device) for rows in bench.split.batches(BATCH)]
    labels, exits = run_cascade_regrouped(bench.network, case.policy, batches, BATCH)
    live = Outcome(exits.cpu().numpy(), labels.cpu().numpy())
    comparison = compared(case, bench.logits, table(bench, case.policy), live)
    fail_on_differences([comparison], bench.split.order)


def test_time_is_predicted_from_events(bench):
    """The parts' seconds, between events, add up to a cascade's: within a factor of two, since
    the host's own work between the parts is outside them."""
    timings = probe(
        bench.network, shared_cutoff(0.0, bench.logits.shape[1] - 1), bench.split, BATCH,
        bench.device,
    )  # fmt: skip
    assert (timings["seconds"].to_numpy() > 0).all()
    model = fit_time_model(timings, BATCH)
    cases = some_policies(bench.logits)
    _, seconds = run_interleaved(bench.network, cases, bench.split, BATCH, bench.device)
    full = full_network_seconds(model, len(bench.split.order))
    predicted = np.array(
        [stage_seconds(model, taken(bench, c.policy, BATCH), c.policy.runs).sum() for c in cases]
    )
    errors = full / predicted / speedups(seconds)[0] - 1
    note(f"{bench.name}: predicted speed-ups, off by", np.round(errors, 3).tolist())
    note(f"{bench.name}: speed-ups of these policies", np.round(speedups(seconds), 2).tolist())
    assert np.isfinite(errors).all()
    if KIND == "cuda":  # a try on a CPU shares it with other work
        assert np.abs(np.log2(1 + errors)).max() < 1


@pytest.mark.parametrize("batch_size", [1, 256, 4096] if KIND == "cuda" else [1, 64])
def test_how_fast_a_cascade_is(bench, batch_size):
    """Interleaved with the full network, at a cutoff that loses at most half a point here."""
    policy = fastest_that_loses_little(bench)
    few = min(400, SAMPLES) if batch_size == 1 else SAMPLES
    split = Split(bench.split.images, bench.split.labels[:few], bench.split.order[:few])
    cases = [Case("cascade", policy, True)]
    for _ in range(2):  # the first only warms up
        _, seconds = run_interleaved(bench.network, cases, split, batch_size, bench.device)
    found = {
        "cutoff": policy.thresholds[0],
        "speedup": np.round(speedups(seconds)[:, 0], 3).tolist(),
        "milliseconds an image, full network": seconds[:, -1].sum() / few * 1e3,
    }
    note(f"{bench.name}: cascade against the full network at batch {batch_size}", found)
    assert seconds.shape == (int(np.ceil(few / batch_size)), 2) and (seconds > 0).all()


def test_what_waiting_once_an_exit_costs(bench):
    """The cascade in which nobody leaves against the same work without asking who stays."""
    images = load_images(bench.split, slice(0, BATCH), bench.device)
    side = bench.logits.shape[1] - 1
    nobody = shared_cutoff(-1.0, side)
    seconds: dict[str, list[float]] = {"asks": [], "does not ask": []}
    for _ in range(30):
        for name, run in (
            ("asks", partial(run_cascade, bench.network, nobody, images)),
            ("does not ask", partial(without_asking, bench.network, nobody, images)),
        ):
            seconds[name].append(timed(run, bench.device)[1])
    asks, blind = (float(np.median(each[5:])) for each in seconds.values())
    note(f"{bench.name}: microseconds of waiting once an exit", (asks - blind) / side * 1e6)
    assert asks > 0 and blind > 0


@torch.inference_mode()
def without_asking(network: MultiExitNetwork, policy: Policy, x: Tensor) -> Tensor:
    """All blocks, heads and scores, and no answer to how many stay."""
    for block, head in zip(network.blocks[:-1], network.heads[:-1], strict=True):
        x = block(x)
        logits = head(x).double()
        log_p = logits - logits.logsumexp(1, keepdim=True)
        _ = -(log_p.exp() * log_p).sum(1) > policy.thresholds[0]
    return run_final(network, x)


def run_final(network: MultiExitNetwork, x: Tensor) -> Tensor:
    return network.heads[-1](network.blocks[-1](x)).argmax(1)


def test_compiled_parts_agree_with_the_tables(bench):
    weights = ROOT / f"weights/{bench.name}.safetensors"
    compiled = for_inference(load(bench.name, 10, weights, bench.device), "compile")
    case = some_policies(bench.logits)[2]
    split = Split(
        bench.split.images, bench.split.labels[: 4 * BATCH], bench.split.order[: 4 * BATCH]
    )
    outcomes, _ = run_interleaved(compiled, [case], split, BATCH, bench.device)
    logits = bench.logits[: 4 * BATCH]
    table = outcome_of_tables(case.policy, logits)
    fail_on_differences([compared(case, logits, table, *outcomes)], split.order)


def test_tf32_is_off(bench):
    assert torch.backends.cudnn.allow_tf32 is False
    assert torch.get_float32_matmul_precision() == "highest"
