"""What can be said of accelerators without one: no tensor is left on another device, float64 is not
asked of mps, and the clock waits for the device."""

import pytest
import torch
from conftest import some_weights, toy_images
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from offramp import OfframpError
from offramp.data import splits
from offramp.inference import machine
from offramp.inference.cascade import Notes, Samples, decide, decide_final, remove
from offramp.scoring.criteria import CRITERIA
from offramp.scoring.policy import Policy


@pytest.fixture
def fake():
    """Tensors without data, which know their device and refuse to be mixed with another's."""
    with FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True) as mode:
        yield mode


@pytest.mark.parametrize("temperatures", [None, (2.0, 3.0, 4.0)])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_decision_stays_on_the_device(fake, criterion, temperatures):
    weights = some_weights(criterion, 3, 10)
    policy = Policy(criterion, (0.5, 0.5, 0.5), temperatures, weights)
    looks_back = CRITERIA[criterion].looks_back
    seen = [torch.empty(8, 10, device="cuda") for _ in range(3 if looks_back else 1)]
    index = torch.arange(8, device="cuda")
    notes = Notes(torch.empty_like(index), torch.empty_like(index))
    stay = decide(seen, policy, 2, index, notes)
    assert stay.device.type == "cuda" and stay.dtype == torch.int64
    samples = Samples(torch.empty(8, 4, 16, 16, device="cuda"), index, tuple(seen))
    x, places, logits = remove(samples, index[:3])
    assert {part.device.type for part in (x, places, *logits)} == {"cuda"}
    assert {len(part) for part in (x, places, *logits)} == {3}
    decide_final(seen[-1], 4, index, notes)


def test_mixed_devices_are_noticed_here(fake):
    index = torch.arange(8)
    with pytest.raises(RuntimeError, match="device"):
        decide_final(torch.empty(8, 10, device="cuda"), 4, index, Notes(index, index))


def test_mps_is_not_asked_for_float64(monkeypatch):
    asked = []

    class Logits(torch.Tensor):
        @property
        def device(self):
            return torch.device("mps")

        def double(self):
            asked.append("double")

    logits = torch.randn(5, 10).as_subclass(Logits)
    index = torch.arange(5)
    decide([logits], Policy("entropy", (0.5,)), 0, index, Notes(index.clone(), index.clone()))
    assert asked == []


@pytest.fixture
def waited(monkeypatch):
    """What the clock waits for, in order."""
    done = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: done.append("cuda"))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: done.append("mps"))

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            done.append("event")

        def synchronize(self):
            done.append("event waited for")

        def elapsed_time(self, other):
            return 250.0  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    return done


def test_on_cuda_events_tell_the_time(waited):
    call = lambda: waited.append("call") or 7  # noqa: E731
    assert machine.timed(call, torch.device("cuda")) == (7, 0.25)
    assert waited == ["cuda", "event", "call", "event", "event waited for"]


def test_on_mps_the_clock_waits_for_the_device(waited):
    result, seconds = machine.timed(lambda: waited.append("call") or 7, torch.device("mps"))
    assert result == 7 and seconds >= 0
    assert waited == ["mps", "call", "mps"]
    machine.timed(lambda: None, torch.device("cpu"))
    assert waited == ["mps", "call", "mps"]


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_with_the_way_out(monkeypatch, kind):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(OfframpError, match=f"device: {kind} is not available here; use auto or"):
        machine.choose_device(kind)
    assert machine.choose_device("auto").type == "cpu"


def test_images_go_to_cuda_through_pinned_memory(monkeypatch):
    pixels = (toy_images(6).permute(0, 2, 3, 1) * 255).to(torch.uint8).numpy()
    split = splits.Split(pixels, pixels[:, 0, 0, 0].astype("int64"), torch.arange(6).numpy())
    calls, to = [], torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: calls.append("pinned") or self)

    def sent(self, *where, **how):
        if where[0] != "cuda":
            return to(self, *where, **how)
        calls.append(how)
        return self

    monkeypatch.setattr(torch.Tensor, "to", sent)
    x = splits.load_images(split, slice(0, 4), "cuda")
    assert calls == ["pinned", {"non_blocking": True}]
    monkeypatch.undo()
    assert torch.equal(x, splits.load_images(split, slice(0, 4), "cpu"))
