"""Benchmark against public networks without exits: accuracy at equal seconds. They are rebuilt with
random weights for their seconds and multiply-adds; their accuracy is what their authors publish."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torchvision.models import mobilenet_v2

from offramp.data.splits import Split
from offramp.inference.cascade import cascade, run_full_network
from offramp.networks.loading import IMAGE_SHAPE, describe
from offramp.networks.multiexit import MultiExitNetwork
from offramp.scoring.policy import Policy, exits_of
from offramp.scoring.scores import fitting_part
from offramp.studies.bench_live import interleaved, load_batches, over_batches, row
from offramp.thresholds.calibration import CalibrationData, thresholds_for
from offramp.thresholds.joint import costs_of
from offramp.thresholds.survivors import Thresholds
from offramp.thresholds.time_model import TimeModel

SIZE, IMAGES, TURNS = 256, 2_048, 7
# Fractions that are expected to be lost on the validation data, along the cascade's frontier.
LOST = (0.0, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08)


class Public(NamedTuple):
    """How to build a network, and its accuracy on CIFAR-10's test images."""

    build: Callable[[], nn.Module]
    accuracy: float


class Basic(nn.Module):
    """A residual block of two 3x3 convolutions; where the size changes, a 1x1 convolution is the
    way past it. Source: He et al., "Deep Residual Learning for Image Recognition" (2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.convs = nn.Sequential(
            *conv_norm(inputs, outputs, 3, stride), nn.ReLU(), *conv_norm(outputs, outputs, 3, 1)
        )
        same = inputs == outputs
        self.past = nn.Identity() if same else nn.Sequential(*conv_norm(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """Features to features."""
        return torch.relu(self.convs(x) + self.past(x))


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    """A convolution and its batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


def resnet(depth: int) -> nn.Module:
    """The ResNet for CIFAR of this depth, 6 n + 2: three times n blocks of 16, 32, 64 channels."""
    layers, inputs = [*conv_norm(3, 16, 3, 1), nn.ReLU()], 16
    for outputs in (16, 32, 64):
        for number in range((depth - 2) // 6):
            halves = number == 0 and outputs > 16
            layers.append(Basic(inputs, outputs, 2 if halves else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def mobilenet(width: float) -> nn.Module:
    """MobileNetV2 with the first two strides of 2 left out, as on small images."""
    stages = [
        [1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2],
        [6, 320, 1, 1],
    ]  # fmt: skip
    network = mobilenet_v2(width_mult=width, inverted_residual_setting=stages, num_classes=10)
    network.features[0][0].stride = (1, 1)
    return network


# Accuracies by the repository chenyaofo/pytorch-cifar-models, trained on all 50,000 images.
PUBLIC = {
    **{
        f"ResNet-{depth}": Public(partial(resnet, depth), accuracy)
        for depth, accuracy in ((20, 0.9260), (32, 0.9353), (44, 0.9401), (56, 0.9437))
    },
    "MobileNetV2 x0.5": Public(partial(mobilenet, 0.5), 0.9288),
    "MobileNetV2 x0.75": Public(partial(mobilenet, 0.75), 0.9372),
}
# Budgeted batch classification on CIFAR-10: million multiply-adds an image, and accuracy. Both are
# the same network of five exits, as the repository LeapLabTHU/L2W-DEN (Han et al., "Learning to
# Weight Samples for Dynamic Early-Exiting Networks", 2022) shows them.
PUBLISHED = {
    "MSDNet": ((18, 0.930), (40, 0.941)),
    "L2W-DEN": ((14, 0.9335), (18, 0.9407), (22, 0.9456), (30, 0.9476)),
}


def published_points() -> dict[str, list[tuple[float, float]]]:
    """Multiply-adds an image and accuracy, by network, as published; those of ResNets counted."""
    points = {name: [(1e6 * m, a) for m, a in curve] for name, curve in PUBLISHED.items()}
    for name, public in PUBLIC.items():
        parts = describe(built(name, torch.device("cpu")), torch.zeros(1, *IMAGE_SHAPE))
        counted = parts["multiply_adds"][0].as_py()
        points.setdefault(name.split("-")[0].split(" ")[0], []).append((counted, public.accuracy))
    return points


def built(name: str, device: torch.device) -> MultiExitNetwork:
    """One of PUBLIC as a network of one block, ready for inference, batch norm folded."""
    torch.manual_seed(0)
    plain = fuse(PUBLIC[name].build().eval()).to(device)
    plain.to(memory_format=torch.channels_last)
    network = MultiExitNetwork()
    network.blocks, network.heads = (plain,), (nn.Identity(),)
    return network


def against_public_networks(
    network: MultiExitNetwork,
    best: Policy,
    val: CalibrationData,
    test: tuple[np.ndarray, np.ndarray],
    multiply_adds: np.ndarray,
    model: TimeModel,
    split: Split,
    device: torch.device,
) -> list[dict]:
    """Seconds, accuracy on test data and mean multiply-adds of the public networks, of the full
    network and of its cascade: at the run's best policy, and at thresholds chosen jointly on
    validation data. Beside them the accuracy on these, and that of thresholds which did not see the
    samples that they are judged on.

    Parameters: ``val`` by entropy; ``test`` entropy and correctness (N, K); ``multiply_adds`` int
    (2, K); the test ``split``. All run interleaved, in batches of SIZE.
    """
    policies = {"cascade, best policy": best, **_frontier(val, model)}
    others = {name: built(name, device) for name in PUBLIC}
    batches = load_batches(split, IMAGES, SIZE, device)
    contenders: dict[str, Callable[[], Any]] = {
        **{
            name: over_batches(partial(run_full_network, other), batches)
            for name, other in others.items()
        },
        "full network": over_batches(partial(run_full_network, network), batches),
        **{n: over_batches(partial(cascade, network, p), batches) for n, p in policies.items()},
    }
    where = {"images": sum(map(len, batches)), "batch_size": SIZE}
    with torch.inference_mode():
        rows = interleaved("public", contenders, device, TURNS, **where)
    for name, other in others.items():
        spent = describe(other, batches[0][:1])["multiply_adds"][0].as_py()
        rows += _figures(name, PUBLIC[name].accuracy, spent, other)
    nobody = Policy("entropy", (None,) * (len(network.heads) - 1))
    for name, policy in {"full network": nobody, **policies}.items():
        taken = exits_of(test[0], policy.thresholds) - 1
        heads = np.where(policy.runs[0], multiply_adds[1], 0)
        spent = (multiply_adds[0] + heads).cumsum()[taken].mean()
        rows += _figures(name, _right_where_left(*test, policy.thresholds).mean(), spent, network)
        rows.append(
            _accuracy_row(
                name, _right_where_left(val.scores, val.correct, policy.thresholds).mean(), "on val"
            )
        )
    for name, accuracy in _crossed(val, model).items():
        rows.append(_accuracy_row(name, accuracy, "on val, crossed"))
    return rows


def _figures(
    name: str, accuracy: float, multiply_adds: float, network: MultiExitNetwork
) -> list[dict]:
    parts = *network.blocks, *network.heads
    parameters = sum(each.numel() for part in parts for each in part.parameters())
    return [
        _accuracy_row(name, accuracy, "accuracy"),
        row("public", name, 1, multiply_adds, "multiply-adds", case="multiply-adds"),
        row("public", name, 1, parameters, "parameters", case="parameters"),
    ]


def _accuracy_row(name: str, accuracy: float, case: str) -> dict:
    return row("public", name, 1, accuracy, "accuracy", case=case)


def _right_where_left(
    values: np.ndarray, correct: np.ndarray, thresholds: Thresholds
) -> np.ndarray:
    """Whether each sample is right where it leaves, bool (N,)."""
    return correct[np.arange(len(correct)), exits_of(values, thresholds) - 1]


def _frontier(data: CalibrationData, model: TimeModel) -> dict[str, Policy]:
    """Thresholds chosen jointly that are expected to lose so much on validation data."""
    timed = model._replace(batch_size=min(SIZE, model.parts.shape[2] - 1))
    targets = data.correct[:, -1].mean() - np.array(LOST)
    fitted = thresholds_for({"method": "joint"}, data, targets, costs_of(timed))
    return {
        f"cascade, {100 * lost:g} points lost on val": Policy("entropy", thresholds)
        for lost, thresholds in zip(LOST, fitted, strict=True)
    }


def _crossed(data: CalibrationData, model: TimeModel) -> dict[str, float]:
    """The accuracy on validation data of the same, by thresholds of the half without the sample."""
    halves = np.split(np.arange(len(data.scores)), [fitting_part(len(data.scores))])
    right: dict[str, list[np.ndarray]] = {}
    for fitting, judging in (halves, halves[::-1]):
        half = data.sample(judging)
        for name, policy in _frontier(data.sample(fitting), model).items():
            right.setdefault(name, []).append(
                _right_where_left(half.scores, half.correct, policy.thresholds)
            )
    return {name: np.concatenate(parts).mean() for name, parts in right.items()}
