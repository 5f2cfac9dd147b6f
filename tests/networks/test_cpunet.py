"""CPUNet and its family without side exits, against plain functions and hand counts."""

import numpy as np
import pytest
import torch
from torch.nn import functional as f

from offramp.networks.cpunet import ConvUnit, Whitening
from offramp.networks.loading import IMAGE_SHAPE, build, describe


@pytest.fixture(scope="module")
def images():
    draw = torch.Generator().manual_seed(3)
    smooth = f.avg_pool2d(torch.rand(20, 3, 40, 40, generator=draw), 9, stride=1)
    return smooth.contiguous(memory_format=torch.channels_last)


@pytest.fixture(scope="module")
def network(images):
    """Every weight and statistic away from what it is at birth."""
    torch.manual_seed(0)
    built = build("cpunet", 10)
    built.fit_to(images)
    for name, value in built.state_dict().items():
        if name.endswith("running_mean") or name.endswith("bn.bias"):
            value.normal_(std=0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
    return built.eval()


def test_a_coarse_whitening_keeps_the_strongest_directions(images):
    whitening = Whitening(patch=3, stride=2, kept=5)
    whitening.fit(images)
    columns = f.unfold(images, 3, stride=2).permute(1, 0, 2).flatten(1)
    variance, directions = np.linalg.eigh(np.cov(columns.numpy().astype(np.float64)))
    strongest = (directions / np.sqrt(variance + 5e-4)).T[-5:]
    found = whitening.weight.flatten(1).numpy()
    signs = np.sign((found[:5] * strongest).sum(1, keepdims=True))
    np.testing.assert_allclose(found[:5], signs * strongest, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(found[5:], -found[:5])
    assert whitening(images[:, :, :32, :32]).shape == (20, 10, 15, 15)


def test_whitened_patches_are_uncorrelated_with_unit_variance_and_both_signs(images):
    whitening = Whitening(patch=2, stride=1, kept=12)
    whitening.fit(images)
    y = f.conv2d(images, whitening.weight, whitening.bias)
    flat = y.permute(1, 0, 2, 3).flatten(1).double()
    torch.testing.assert_close(flat[:12], -flat[12:], atol=1e-4, rtol=1e-4)
    covariance = torch.cov(flat[:12])
    off = covariance - torch.diag(covariance.diag())
    assert off.abs().max() < 0.02
    # The epsilon holds down directions in which images hardly vary.
    columns = f.unfold(images, 2).permute(1, 0, 2).flatten(1)
    variance = np.linalg.eigvalsh(np.cov(columns.numpy().astype(np.float64)))
    np.testing.assert_allclose(covariance.diag(), variance / (variance + 5e-4), rtol=1e-3)
    assert flat.mean(1).abs().max() < 1e-3
    assert whitening(images).min() == 0
    assert not list(whitening.parameters())


def test_the_network_is_what_its_words_say(network, images):
    state = network.state_dict()

    def norm(x, name):
        return f.batch_norm(
            x, state[f"{name}.running_mean"], state[f"{name}.running_var"],
            state[f"{name}.weight"], state[f"{name}.bias"],
        )  # fmt: skip

    def unit(x, name, pool=False):
        y = f.conv2d(x, state[f"stages.{name}.conv.weight"], padding=1)
        return f.relu(norm(f.max_pool2d(y, 2) if pool else y, f"stages.{name}.bn"))

    def head(x, k, convs):
        for i in range(convs):
            y = f.conv2d(x, state[f"exits.{k}.convs.{3 * i}.weight"], stride=2, padding=1)
            x = f.relu(norm(y, f"exits.{k}.convs.{3 * i + 1}"))
        x = x.flatten(2).max(2).values
        return f.linear(x, state[f"exits.{k}.fc.weight"], state[f"exits.{k}.fc.bias"])

    x = f.relu(f.conv2d(images, state["whitening.weight"], state["whitening.bias"], stride=2))
    want = []
    x = unit(x, "0.0")
    want.append(head(x, 0, 2))
    x = x + unit(x, "1.0")
    x = x + unit(x, "1.1")
    want.append(head(x, 1, 2))
    x = unit(unit(x, "2.0", pool=True), "2.1")
    want.append(head(x, 2, 1))
    x = x + unit(x, "3.0")
    want.append(head(x, 3, 0))
    x = x + unit(x, "4.0")
    want.append(head(x, 4, 0))
    x = x + unit(x, "5.0")
    x = unit(x, "5.1", pool=True)
    x = x + unit(x, "5.2")
    want.append(head(x, 5, 0))
    with torch.inference_mode():
        found = network(images)
    for one, other in zip(found, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_batch_norm_has_no_weight_so_that_its_scale_stays_positive(network):
    names = {name for name, p in network.named_parameters() if not p.requires_grad}
    norms = {name for name in network.state_dict() if name.endswith("running_var")}
    assert names == {name.replace("running_var", "weight") for name in norms}
    assert all((network.state_dict()[name] == 1).all() for name in names)


def test_a_fresh_unit_passes_its_input_through_its_first_channels():
    unit = ConvUnit(4, 6).eval()
    x = torch.rand(2, 4, 5, 5)
    torch.testing.assert_close(unit(x)[:, :4], x, rtol=1e-4, atol=1e-4)


def test_shapes_and_multiply_adds_are_those_counted_by_hand(network):
    rows = {
        (row["part"], row["exit"]): row
        for row in describe(network, torch.zeros(1, *IMAGE_SHAPE)).to_pylist()
    }
    features = ["3x32x32", "64x15x15", "64x15x15", "192x7x7", "192x7x7", "192x7x7", "256x3x3"]
    multiply_adds = {
        ("block", 1): 15 * 15 * (27 * 48 + 9 * 48 * 64),
        ("block", 2): 15 * 15 * 9 * 64 * 64 * 2,
        ("block", 3): 15 * 15 * 9 * 64 * 128 + 7 * 7 * 9 * 128 * 192,
        ("block", 4): 7 * 7 * 9 * 192 * 192,
        ("block", 5): 7 * 7 * 9 * 192 * 192,
        ("block", 6): 7 * 7 * 9 * (192 * 192 + 192 * 256) + 3 * 3 * 9 * 256 * 256,
        ("head", 1): 8 * 8 * 9 * 64 * 96 + 4 * 4 * 9 * 96 * 128 + 1280,
        ("head", 2): 8 * 8 * 9 * 64 * 96 + 4 * 4 * 9 * 96 * 128 + 1280,
        ("head", 3): 4 * 4 * 9 * 192 * 128 + 1280,
        ("head", 4): 1920,
        ("head", 5): 1920,
        ("head", 6): 2560,
    }
    assert {key: row["multiply_adds"] for key, row in rows.items()} == multiply_adds
    for k in range(1, 7):
        shapes = rows["block", k]["input_shape"], rows["block", k]["output_shape"]
        assert shapes == (features[k - 1], features[k])


def test_the_static_baseline_has_one_exit_and_is_of_the_same_family(images):
    baseline = build("cpunet_static", 10)
    baseline.fit_to(images)
    (logits,) = baseline.eval()(images)
    assert logits.shape == (20, 10)
    assert {type(m) for m in baseline.modules()} <= {
        type(m) for m in build("cpunet", 10).modules()
    } | {type(baseline)}
