"""What computes blocks and heads: same exits and labels whatever it is, and clear errors."""

import builtins

import numpy as np
import pytest
import torch
from conftest import toy_images
from torch import nn

from offramp import OfframpError
from offramp.inference.backends import BACKENDS, for_inference
from offramp.inference.cascade import run_cascade, run_full_network
from offramp.networks.loading import NETWORKS, build
from offramp.scoring.policy import Policy, policy_scores

# The fixtures are costly: one worker makes them.
pytestmark = pytest.mark.xdist_group("backends")

SIZES = (1, 2, 7, 24)
TWO = torch.zeros(2, 3, 32, 32)


def used_network(name: str):
    """A network whose batch norms have seen some images, so that folding them changes weights."""
    torch.manual_seed(3)
    network = build(name, 10)
    network.fit_to(toy_images(50, seed=2))
    network.train()
    with torch.no_grad():
        for seed in range(3):
            network(toy_images(24, seed=seed))
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.bias.normal_(0, 0.3)
        for head in network.heads:
            list(head.parameters())[-2].mul_(5)  # entropies further apart
    return network.eval()


@pytest.fixture(scope="module", params=[*BACKENDS])
def backend(request):
    return request.param


@pytest.fixture(scope="module")
def images():
    return toy_images(24, seed=9).contiguous(memory_format=torch.channels_last)


@pytest.fixture(scope="module")
def reference(images):
    with torch.inference_mode():
        return torch.stack(used_network("cpunet")(images), dim=1)


@pytest.fixture(scope="module")
def network(backend):
    return for_inference(used_network("cpunet"), backend, TWO)


def middle_of_a_gap(scores: np.ndarray) -> float:
    """A threshold that no float noise pushes a sample across, with others on both sides."""
    ordered = np.sort(scores)[6:18]
    widest = np.diff(ordered).argmax()
    assert np.diff(ordered)[widest] > 1e-3
    return float(ordered[widest : widest + 2].mean())


@torch.inference_mode()
def test_every_backend_gives_the_logits_of_the_network_for_batches_of_any_size(
    network, images, reference
):
    for size in SIZES:
        found = torch.stack(network(images[:size]), dim=1)
        torch.testing.assert_close(found, reference[:size], rtol=1e-4, atol=1e-4)


def test_the_cascade_leaves_where_the_reference_says_on_every_backend(network, images, reference):
    scores = policy_scores(Policy("entropy", (None,) * 5), reference.numpy())
    limits = [middle_of_a_gap(scores[:, k]) for k in range(5)]
    policy = Policy("entropy", (limits[0], None, *limits[2:]))
    fires = scores <= np.array([limits[0], -np.inf, *limits[2:]])
    want = np.hstack([fires, np.ones((24, 1), dtype=bool)]).argmax(axis=1)
    assert len(set(want)) > 2  # the batch shrinks more than once
    labels, exits = run_cascade(network, policy, images)
    assert exits.tolist() == (want + 1).tolist()
    assert labels.tolist() == reference[torch.arange(24), torch.tensor(want)].argmax(1).tolist()
    full = reference[:, -1].argmax(1).tolist()
    assert run_full_network(network, images).tolist() == full


@pytest.mark.parametrize("name", NETWORKS)
def test_folding_changes_no_answer_and_leaves_no_batch_norm_after_a_convolution(name):
    x = toy_images(24, seed=9).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        want = used_network(name)(x)
        folded = for_inference(used_network(name), "eager")
        for a, b in zip(folded(x), want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    norms = [part for part in folded.modules() if isinstance(part, nn.BatchNorm2d)]
    # branchynet's come after the ReLU, whose zero padding for the next convolution they'd change.
    assert (len(norms) == 0) == name.startswith("cpunet")


@pytest.mark.parametrize("missing", ["onnxruntime", "onnxscript"])
def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch, missing):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == missing:
            raise ImportError(name=missing)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(OfframpError, match=rf"needs the package {missing}.*\.\[onnxruntime\]"):
        for_inference(build("branchynet", 10), "onnxruntime", TWO)
