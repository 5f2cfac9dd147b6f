"""Training: augmentation, schedule, learning at all, and going on after an interruption."""

import numpy as np
import pytest
import torch
from conftest import documented

from offramp import OfframpError
from offramp.data.splits import Split, load_images
from offramp.training.augmentation import augmented_batches, cut_out, shift_and_mirror
from offramp.training.optimisers import Optimisers
from offramp.training.training import joint_loss, precision, rate_factor, train

SETTINGS = {
    "epochs": 3,
    "batch_size": 16,
    "learning_rate": {"convolutions": 0.05, "others": 0.004},
    "exit_weights": [1] * 6,
    "distillation": 0.5,
    "shift": 2,
    "cutout": 0,
    "precision": "fp32",
    "seed": 7,
}
CPU = torch.device("cpu")


def two_class_split(samples: int = 64, seed: int = 0) -> Split:
    """Dark images are class 0, bright ones class 1: anything that learns gets them right."""
    labels = np.arange(samples) % 2
    noise = np.random.default_rng(seed).integers(0, 60, (samples, 32, 32, 3))
    images = (noise + 150 * labels[:, None, None, None]).astype(np.uint8)
    return Split(images, labels, np.arange(samples))


def run(folder, settings=SETTINGS, validation=None):
    splits = two_class_split(), validation or two_class_split(32, seed=1)
    return train("branchynet", "digits", *splits, settings, CPU, folder / "resume.pt")


def test_training_learns_and_notes_every_epoch_and_exit(tmp_path):
    network, curves = run(tmp_path)
    assert curves.num_rows == 3 * 6
    last = [row["accuracy"] for row in curves.to_pylist() if row["epoch"] == 3]
    assert np.mean(last) > 0.9
    assert not network.training


def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(tmp_path, monkeypatch):
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole, _ = run(tmp_path / "whole")
    import offramp.training.training as training

    epoch = training._epoch

    def stop_in_the_second(*args):
        if args[4] == 4:
            raise KeyboardInterrupt
        return epoch(*args)

    monkeypatch.setattr(training, "_epoch", stop_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut")
    begun = []

    def noted(*args):
        begun.append(args[4])
        return epoch(*args)

    monkeypatch.setattr(training, "_epoch", noted)
    resumed, curves = run(tmp_path / "cut")
    assert begun == [4, 8]
    assert curves.num_rows == 3 * 6
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_state_of_other_settings_is_named_and_put_aside(tmp_path, capfd):
    run(tmp_path, {**SETTINGS, "epochs": 1})
    foreign = (tmp_path / "resume.pt").read_bytes()
    _, curves = run(tmp_path, {**SETTINGS, "epochs": 1, "seed": 8})
    said = capfd.readouterr().err
    assert "is of another training (train.seed: 7 then, 8 now)" in said
    assert "put aside as resume.1.pt, training starts anew" in said and documented(said)
    assert (tmp_path / "resume.1.pt").read_bytes() == foreign
    assert curves.num_rows == 6


def test_a_training_that_diverges_stops_at_its_epoch_and_goes_on_from_none_of_it(tmp_path):
    settings = {**SETTINGS, "learning_rate": {"convolutions": 0.05, "others": 1e30}}
    with pytest.raises(OfframpError) as caught:
        run(tmp_path, settings)
    message = str(caught.value)
    assert message.startswith("epoch 1 of 3: loss or weights are no longer finite (loss per exit ")
    assert "lower train.learning_rate (now convolutions 0.05, others 1e+30)" in message
    assert documented(message)
    assert list(tmp_path.iterdir()) == []


def test_a_single_weight_that_is_not_finite_stops_it_although_the_loss_is(tmp_path, monkeypatch):
    import offramp.training.training as training

    epoch = training._epoch

    def spoiling(network, *others):
        result = epoch(network, *others)
        with torch.no_grad():
            network.fc5.bias[3] = torch.inf
        return result

    monkeypatch.setattr(training, "_epoch", spoiling)
    with pytest.raises(OfframpError, match="epoch 1 of 3: loss or weights are no longer finite"):
        run(tmp_path)


def test_the_seed_decides_the_weights(tmp_path):
    one = {**SETTINGS, "epochs": 1}
    for name in "abc":
        (tmp_path / name).mkdir()
    first, again = (run(tmp_path / name, one)[0].conv1.weight for name in "ab")
    other = run(tmp_path / "c", {**one, "seed": 8})[0].conv1.weight
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_an_epoch_is_every_sample_once_in_the_epochs_own_order():
    images = torch.arange(100, dtype=torch.uint8)[:, None, None, None].expand(100, 8, 8, 3)
    labels = torch.arange(100)
    settings = {"seed": 1, "batch_size": 30, "shift": 2, "cutout": 0}
    orders = []
    for epoch in (0, 0, 1):
        batches = list(augmented_batches(images, labels, True, settings, epoch))
        assert [len(x) for x, _ in batches] == [25, 25, 25, 25]
        for x, y in batches:
            assert x.shape[1:] == (3, 8, 8) and x.dtype == torch.float32
            assert x.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(x[:, 0, 0, 0] * 255, y.float())
        orders.append(torch.cat([y for _, y in batches]))
    assert torch.equal(orders[0].sort().values, labels)
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_images_are_shifted_with_reflection_and_mirrored_only_where_wanted():
    images = torch.zeros(200, 32, 32, 3, dtype=torch.uint8)
    images[:, 16, 5] = 255  # a dot left of the middle
    draw = torch.Generator().manual_seed(0)
    for flip in (False, True):
        found = shift_and_mirror(images, torch.full((200,), flip), 2, draw)
        places = {tuple(place[1:3].tolist()) for place in found.nonzero()}
        assert {r for r, _ in places} == set(range(14, 19))
        assert {c for _, c in places} == (set(range(24, 29)) if flip else set(range(3, 8)))
        assert torch.equal(found.amax((1, 2, 3)), torch.full((200,), 255, dtype=torch.uint8))


def test_what_a_shift_leaves_open_is_reflected_from_inside():
    image = torch.arange(5, dtype=torch.uint8)[None, None, :, None].expand(1, 5, 5, 3)
    draw = torch.Generator().manual_seed(0)
    none = torch.zeros(1, dtype=torch.bool)
    rows = {tuple(shift_and_mirror(image, none, 2, draw)[0, 0, :, 0].tolist()) for _ in range(60)}
    assert rows == {
        (2, 1, 0, 1, 2), (1, 0, 1, 2, 3), (0, 1, 2, 3, 4), (1, 2, 3, 4, 3), (2, 3, 4, 3, 2)
    }  # fmt: skip


def test_flips_alternate_so_that_two_epochs_show_each_image_both_ways():
    images = torch.zeros(64, 4, 4, 3, dtype=torch.uint8)
    images[:, :, 0] = 255  # bright on the left
    labels = torch.arange(64)
    settings = {"seed": 3, "batch_size": 64, "shift": 0, "cutout": 0}
    mirrored = []
    for epoch in range(3):
        ((x, y),) = augmented_batches(images, labels, True, settings, epoch)
        mirrored.append((x[:, 0, 0, 0] == 0)[y.argsort()])
    assert torch.equal(mirrored[0], ~mirrored[1]) and torch.equal(mirrored[0], mirrored[2])
    assert 10 < mirrored[0].sum() < 54
    ((x, _),) = augmented_batches(images, labels, False, settings, 0)
    assert (x[:, 0, 0, 0] == 1).all()


def test_one_grey_square_of_the_wanted_side_is_cut_out_of_each_image():
    draw = torch.Generator().manual_seed(0)
    x = cut_out(torch.zeros(300, 3, 8, 8), 3, draw)
    assert set(x.unique().tolist()) == {0.0, 0.5}
    assert (x.sum((1, 2, 3)) == 0.5 * 3 * 3 * 3).all()
    tops = {int(image[0].nonzero()[0, 0]) for image in x}
    assert tops == set(range(6))
    assert torch.equal(cut_out(torch.zeros(2, 3, 8, 8), 0, draw), torch.zeros(2, 3, 8, 8))


def test_the_learning_rate_rises_then_falls_to_zero():
    rates = [rate_factor(p) for p in np.linspace(0, 1, 101)]
    assert 0 < rates[0] < 0.1 and max(rates) == pytest.approx(1.0) and rates[-1] == pytest.approx(0)
    top = int(np.argmax(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_the_loss_is_the_weighted_mean_and_later_pulls_side_exits_to_the_final_one():
    torch.manual_seed(0)
    logits = [torch.randn(6, 4) for _ in range(3)]
    losses = torch.tensor([1.0, 2.0, 4.0])
    settings = {"exit_weights": [1, 2, 1], "distillation": 0.5}
    early = joint_loss(logits, losses, settings, 0.0)
    assert early == pytest.approx((1 + 2 * 2 + 4) / 4)
    teacher = logits[2].double().softmax(1)

    def apart(z):
        return float((teacher * (teacher.log() - z.double().softmax(1).log())).sum(1).mean())

    pull = 0.5 * (apart(logits[0]) + 2 * apart(logits[1])) / 4
    late = joint_loss(logits, losses, settings, 0.9)
    assert float(late) == pytest.approx(float(early) + pull, rel=1e-5)
    assert joint_loss(logits, losses, {**settings, "distillation": 0}, 0.9) == early
    alone = joint_loss(logits[2:], losses[2:], {"exit_weights": [1], "distillation": 0.5}, 0.9)
    assert alone == losses[2]


def test_the_final_exit_is_not_pulled_by_the_side_exits():
    logits = [torch.randn(6, 4, requires_grad=True) for _ in range(2)]
    settings = {"exit_weights": [1, 0], "distillation": 1.0}
    joint_loss(logits, torch.zeros(2), settings, 0.9).backward()
    assert logits[0].grad.abs().sum() > 0
    assert logits[1].grad is None


def test_a_wrong_number_of_exit_weights_is_refused(tmp_path):
    with pytest.raises(OfframpError, match=r"train.exit_weights: want 6 numbers.*found 2"):
        run(tmp_path, {**SETTINGS, "exit_weights": [1, 1]})


def test_precision_is_what_is_asked_for():
    assert precision(CPU, {"precision": "bf16"}) == "bfloat16"
    assert precision(CPU, {"precision": "fp32"}) == "float32"
    assert precision(torch.device("mps"), {"precision": "auto"}) == "float32"


@pytest.mark.parametrize(
    "has, want",
    [
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True, "avx512_bf16": False}, "bfloat16"),
        ({"avx512_bf16": False, "avx2": True}, "float32"),
        ({}, "float32"),
    ],
)
def test_automatic_precision_follows_the_hardware(monkeypatch, has, want):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert precision(CPU, {"precision": "auto"}) == want


def test_half_precision_learns_too(tmp_path):
    _, curves = run(tmp_path, {**SETTINGS, "precision": "bf16"})
    last = [row["accuracy"] for row in curves.to_pylist() if row["epoch"] == 3]
    assert np.mean(last) > 0.9


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.bfloat16, 1e-6), (torch.float32, 0.01)], ids=str
)
@pytest.mark.parametrize("outputs", [8, 40], ids=["wide", "tall"])
def test_optimisers_step_convolutions_as_torchs_muon_does_their_matrices(dtype, tolerance, outputs):
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, outputs, 3).to(memory_format=torch.channels_last)
    scale = outputs**0.5
    start = layer.weight.detach().permute(0, 2, 3, 1).flatten(1)
    matrix = torch.nn.Parameter(start * scale / start.norm())
    bias = layer.bias.detach().clone()
    optimisers = Optimisers(layer, {"convolutions": 0.1, "others": 0.01}, dtype)
    muon = torch.optim.Muon([matrix], 0.05, weight_decay=0.0, momentum=0.8)
    for step in range(3):
        loss = layer(torch.randn(4, 3, 8, 8)).square().mean()
        (gradient,) = torch.autograd.grad(loss, layer.weight, retain_graph=True)
        matrix.grad = gradient.permute(0, 2, 3, 1).flatten(1)
        muon.step()
        matrix.data *= scale / matrix.data.norm()
        optimisers.step(loss, 0.5)
        found = layer.weight.detach().permute(0, 2, 3, 1).flatten(1)
        torch.testing.assert_close(found, matrix.detach(), rtol=0, atol=tolerance)
        if step == 0:
            moved = (layer.bias.detach() - bias).abs()
            torch.testing.assert_close(moved, torch.full((outputs,), 0.005), rtol=0.02, atol=1e-4)


def test_validation_images_change_no_weight(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    one = {**SETTINGS, "epochs": 1}
    first, curves = run(tmp_path / "a", one)
    second, other = run(tmp_path / "b", one, validation=two_class_split(10, seed=5))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert curves["loss"] == other["loss"]


def test_validation_accuracy_is_that_of_the_network_as_it_then_was(tmp_path):
    network, curves = run(tmp_path)
    split = two_class_split(32, seed=1)
    with torch.inference_mode():
        logits = network(load_images(split, slice(0, 32), CPU))
    want = [float((z.argmax(1).numpy() == split.labels).mean()) for z in logits]
    found = [row["val_accuracy"] for row in curves.to_pylist() if row["epoch"] == 3]
    assert found == pytest.approx(want)
