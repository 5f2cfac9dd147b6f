"""Training: augmentation, schedule, learning at all, and going on after an interruption."""

import numpy as np
import pytest
import torch

from offramp.datasets import Split
from offramp.training import augment, one_cycle, train

SETTINGS = {"epochs": 3, "batch_size": 16, "learning_rate": 0.003, "seed": 7}
CPU = torch.device("cpu")


def two_class_split(samples: int = 64) -> Split:
    """Dark images are class 0, bright ones class 1: anything that learns gets them right."""
    labels = np.arange(samples) % 2
    noise = np.random.default_rng(0).integers(0, 60, (samples, 32, 32, 3))
    images = (noise + 150 * labels[:, None, None, None]).astype(np.uint8)
    return Split(images, labels, np.arange(samples))


def run(folder, settings=SETTINGS):
    return train("branchynet", "digits", two_class_split(), settings, CPU, folder / "resume.pt")


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
    import offramp.training as training

    epoch = training._epoch

    def stop_in_the_second(*args):
        if args[4] == 1:
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
    assert begun == [1, 2]
    assert curves.num_rows == 3 * 6
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_state_of_other_settings_is_not_gone_on_from(tmp_path, capfd):
    run(tmp_path, {**SETTINGS, "epochs": 1})
    _, curves = run(tmp_path, {**SETTINGS, "epochs": 1, "seed": 8})
    assert "training starts anew" in capfd.readouterr().err
    assert curves.num_rows == 6


def test_the_seed_decides_the_weights(tmp_path):
    one = {**SETTINGS, "epochs": 1}
    for name in "abc":
        (tmp_path / name).mkdir()
    first, again = (run(tmp_path / name, one)[0].conv1.weight for name in "ab")
    other = run(tmp_path / "c", {**one, "seed": 8})[0].conv1.weight
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_augmented_images_are_shifted_copies_and_mirrored_only_where_wanted():
    torch.manual_seed(0)
    images = torch.zeros(200, 32, 32, 3, dtype=torch.uint8)
    images[:, 16, 5] = 255  # a dot left of the middle
    for flip in (False, True):
        found = augment(images, flip)
        assert found.shape == (200, 3, 32, 32) and found.dtype == torch.float32
        assert found.is_contiguous(memory_format=torch.channels_last)
        places = {tuple(place[1:].tolist()) for place in found[:, 0].nonzero()}
        rows, columns = {r for r, _ in places}, {c for _, c in places}
        assert rows == set(range(14, 19))
        assert columns == set(range(3, 8)) | (set(range(24, 29)) if flip else set())
        assert torch.equal(found.amax((1, 2, 3)), torch.ones(200))


def test_the_learning_rate_rises_then_falls_to_zero():
    rates = [one_cycle(p) for p in np.linspace(0, 1, 101)]
    assert 0 < rates[0] < 0.1 and max(rates) == pytest.approx(1.0) and rates[-1] == pytest.approx(0)
    top = int(np.argmax(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
