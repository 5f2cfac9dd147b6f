"""What a training goes on from: damaged, foreign, half a state; and one trainer at a time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ToyNetwork, documented

from offramp import OfframpError
from offramp.training.optimisers import Optimisers
from offramp.training.resuming import restore, sole_trainer, store

ABOUT = {"model.name": "toy", "train.seed": 7}
HISTORY = [{"loss": [0.5], "accuracy": [0.9], "val_accuracy": [0.8], "seconds": 1.0}]
RATES = {"convolutions": 0.1, "others": 0.01}


def made(seed: int):
    """A toy network that has learned a step, and its optimisers."""
    network = ToyNetwork(2, 3, seed)
    optimisers = Optimisers(network, RATES, torch.float32)
    optimisers.step(sum(z.square().mean() for z in network(torch.rand(4, 3, 32, 32))), 1.0)
    return network, optimisers


@pytest.fixture
def stored(tmp_path) -> Path:
    store(tmp_path / "resume.pt", ABOUT, *made(1), HISTORY)
    assert [path.name for path in tmp_path.iterdir()] == ["resume.pt"]
    return tmp_path / "resume.pt"


def test_what_was_stored_is_restored(stored):
    network, optimisers = made(2)
    assert restore(stored, ABOUT, network, optimisers) == HISTORY
    wanted, others = made(1)
    for name, value in wanted.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)
    for found, momentum in zip(optimisers.momenta, others.momenta, strict=True):
        assert torch.equal(found, momentum)


def changed(part, value):
    return lambda state: {**state, part: value}


def without(part):
    return lambda state: {key: value for key, value in state.items() if key != part}


def as_bytes(cut):
    """What becomes of the file's bytes, in place of the state in it."""
    cut.of_bytes = True
    return cut


SPOILT = {
    "empty": (as_bytes(lambda whole: b""), "is damaged (empty)"),
    "half": (as_bytes(lambda whole: whole[: len(whole) // 2]), "is damaged ("),
    "text": (as_bytes(lambda whole: b"no state"), "is damaged ("),
    "zeros": (as_bytes(lambda whole: bytes(len(whole))), "is damaged ("),
    "weights": (lambda state: state["network"], "is no state of a training"),
    "a list": (lambda state: [1, 2], "is no state of a training"),
    "no learners": (without("learners"), "is no state of a training"),
    "another purpose": (
        changed("purpose", {**ABOUT, "train.seed": 8}),
        "is of another training (train.seed: 8 then, 7 now)",
    ),
    "no purpose": (changed("purpose", None), "is damaged (AttributeError"),
    "another network": (changed("network", {"a": torch.zeros(1)}), "is damaged (RuntimeError"),
    # The network fits and is set by the time that this shows.
    "other learners": (changed("learners", {"convolutions": []}), "is damaged (ValueError"),
}


@pytest.mark.parametrize("spoil, words", SPOILT.values(), ids=SPOILT)
def test_a_file_that_is_no_such_state_is_put_aside_and_nothing_of_it_stays(
    stored, capfd, spoil, words
):
    if hasattr(spoil, "of_bytes"):
        stored.write_bytes(spoil(stored.read_bytes()))
    else:
        torch.save(spoil(torch.load(stored, weights_only=True)), stored)
    foreign = stored.read_bytes()
    stored.with_name("resume.1.pt").write_bytes(b"put aside before")
    network, optimisers = made(2)
    assert restore(stored, ABOUT, network, optimisers) == []
    said = capfd.readouterr().err
    assert f"{stored} {words}" in said and documented(said)
    assert "put aside as resume.2.pt, training starts anew" in said
    assert stored.with_name("resume.2.pt").read_bytes() == foreign and not stored.exists()
    assert stored.with_name("resume.1.pt").read_bytes() == b"put aside before"
    wanted, others = made(2)
    for name, value in wanted.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)
    for found, momentum in zip(optimisers.momenta, others.momenta, strict=True):
        assert torch.equal(found, momentum)


def test_a_state_that_cannot_be_read_at_all_is_left_alone(tmp_path):
    (tmp_path / "resume.pt").mkdir()
    with pytest.raises(OfframpError, match=r"resume\.pt: can't be read \(Is a directory\)"):
        restore(tmp_path / "resume.pt", ABOUT, *made(1))
    assert (tmp_path / "resume.pt").is_dir()


HOLD = """
import sys, time
from offramp.training.resuming import sole_trainer
with sole_trainer(sys.argv[1]):
    print("holds", flush=True)
    time.sleep(60)
"""


def test_beside_a_trainer_that_lives_no_second_one_trains_and_after_its_death_one_does(tmp_path):
    resume = tmp_path / "model/resume.pt"
    known = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "scripts")}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, resume], stdout=subprocess.PIPE, text=True, env=known
    ) as other:
        try:
            assert other.stdout.readline() == "holds\n"
            with pytest.raises(OfframpError) as caught, sole_trainer(resume):
                pass
        finally:
            other.send_signal(signal.SIGKILL)
    message = str(caught.value)
    assert message.startswith(f"{resume}: process {other.pid} on ")
    assert f"end it with kill {other.pid} there, then rerun" in message
    assert documented(message)
    for _ in range(2):
        with sole_trainer(resume):
            pass
