"""Networks: BranchyNet's layers, weights files good and bad, and the look at the parts."""

import os
import pickle
import re
import subprocess
from collections import OrderedDict

import pytest
import torch

from offramp import OfframpError
from offramp.networks.loading import IMAGE_SHAPE, build, describe, load, save
from offramp.networks.states import read

CPU = torch.device("cpu")

# Every weight and its shape, by the names of the published state dict.
LINEAR = {
    "fc1": (128, 2048),
    "fc2": (128, 128),
    "fc3": (128, 128),
    "fc4": (128, 128),
    "fc5": (10, 128),
    "branch1.fc": (10, 3600),
    "branch2.fc": (10, 784),
    "branch3.fc": (10, 784),
    "branch4.fc": (10, 144),
    "branch5.fc": (10, 144),
}
CONV = {
    "conv1": (32, 3, 3, 3),
    "conv2": (32, 32, 3, 3),
    "conv3": (64, 32, 3, 3),
    "conv4": (64, 64, 3, 3),
    "conv5": (128, 64, 3, 3),
    "conv6": (128, 128, 3, 3),
    "branch1.conv": (16, 32, 3, 3),
    "branch2.conv": (16, 32, 3, 3),
    "branch3.conv": (16, 64, 3, 3),
    "branch4.conv": (16, 64, 3, 3),
    "branch5.conv": (16, 128, 3, 3),
}
NORM = {
    "bn1": 32,
    "bn2": 32,
    "bn3": 64,
    "bn4": 64,
    "bn5": 128,
    "bn6": 128,
    "bn7": 128,
    "branch1.bn": 16,
    "branch2.bn": 16,
    "branch3.bn": 16,
    "branch4.bn": 16,
    "branch5.bn": 16,
}


def published_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in {**LINEAR, **CONV}.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name, width in NORM.items():
        shapes |= {f"{name}.{x}": (width,) for x in ("weight", "bias", "running_mean")}
        shapes |= {f"{name}.running_var": (width,), f"{name}.num_batches_tracked": ()}
    return shapes


@pytest.fixture(scope="module")
def network():
    """A BranchyNet whose batch norms are not the identity, so that their order can be seen."""
    torch.manual_seed(0)
    made = build("branchynet", 10)
    for name, tensor in made.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            tensor.uniform_(0.5, 1.5)
    return made.eval()


@pytest.fixture(scope="module")
def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def logits_of(network, images) -> list[torch.Tensor]:
    with torch.inference_mode():
        return network(images)


def refusal(path, classes: int = 10) -> str:
    """The message with which a weights file is refused; it must begin with the path."""
    with pytest.raises(OfframpError) as caught:
        load("branchynet", classes, path, CPU)
    assert str(caught.value).startswith(f"{path}: ")
    assert "to `False`" not in str(caught.value)  # torch's advice to unpickle anything
    return str(caught.value)


def test_the_state_dict_has_the_published_names_and_shapes_and_no_others(network):
    found = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert found == published_shapes()


def test_every_exit_gives_one_logit_a_class(network, images):
    assert [tuple(logits.shape) for logits in logits_of(network, images)] == [(3, 10)] * 6


@pytest.mark.parametrize("classes", [2, 37])
def test_other_numbers_of_classes_work(images, classes):
    made = build("branchynet", classes).eval()
    assert [tuple(logits.shape) for logits in logits_of(made, images)] == [(3, classes)] * 6


def test_the_forward_pass_is_the_published_one(network, state, images):
    """The whole network once more, written out with plain functions over the state dict."""
    f = torch.nn.functional

    def norm(x, name):
        parts = ("running_mean", "running_var", "weight", "bias")
        return f.batch_norm(x, *(state[f"{name}.{part}"] for part in parts))

    def conv(x, name, **options):
        return f.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    def dense(x, name):
        return f.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    x, want = images, []
    for k in range(1, 7):
        x = norm(f.relu(conv(x, f"conv{k}", padding=1)), f"bn{k}")
        if k % 2 == 0:
            x = f.max_pool2d(x, 2)
        if k < 6:
            side = norm(f.relu(conv(x, f"branch{k}.conv", stride=2)), f"branch{k}.bn")
            want.append(dense(side.flatten(1), f"branch{k}.fc"))
    x = x.flatten(1)
    for k in range(1, 5):
        x = f.relu(dense(x, f"fc{k}"))
    want.append(dense(norm(x, "bn7"), "fc5"))
    for found, wanted in zip(logits_of(network, images), want, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_dropout_stands_where_the_network_was_trained_with_it(network):
    def rates(part):
        return [m.p for m in part.modules() if isinstance(m, torch.nn.Dropout)]

    assert [rates(block) for block in network.blocks] == [[], [0.2], [], [0.3], [], [0.4]]
    assert [rates(head) for head in network.heads] == [[], [], [], [], [], [0.5]]


def test_training_and_inference_mode_reach_the_dropout(network):
    dropouts = [m for m in network.modules() if isinstance(m, torch.nn.Dropout)]
    assert len(dropouts) == 4
    assert not any(m.training for m in dropouts)
    fresh = build("branchynet", 10).train()
    assert all(m.training for m in fresh.modules())


def test_a_built_network_is_channels_last(network):
    assert network.conv2.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".h5", ".pth"])
def test_saved_weights_are_loaded_bit_for_bit(tmp_path, network, state, images, suffix):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save(network, path, {"epochs": "3"})
    else:
        torch.save(state, path)
    loaded = load("branchynet", 10, path, CPU)
    assert not loaded.training
    assert loaded.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, state[name])
    for found, wanted in zip(logits_of(loaded, images), logits_of(network, images), strict=True):
        assert torch.equal(found, wanted)
    assert list(tmp_path.iterdir()) == [path]


def test_torchs_older_format_and_ordered_dicts_are_read_as_well(tmp_path, state):
    torch.save(OrderedDict(state), tmp_path / "w", _use_new_zipfile_serialization=False)
    assert read(tmp_path / "w").keys() == state.keys()


def test_missing_unexpected_and_misshapen_keys_are_all_named(tmp_path, state):
    wrong = {name: tensor for name, tensor in state.items() if name != "conv3.bias"}
    wrong |= {"classifier.weight": torch.zeros(2), "fc5.weight": torch.zeros(7, 128)}
    torch.save(wrong, tmp_path / "w.pt")
    message = refusal(tmp_path / "w.pt")
    assert "missing key conv3.bias" in message
    assert "unexpected key classifier.weight" in message
    assert "fc5.weight: shape (7, 128), want (10, 128)" in message
    assert len(message.splitlines()) == 4


def test_weights_for_another_number_of_classes_are_refused(tmp_path, network):
    save(network, tmp_path / "w.safetensors", {})
    message = refusal(tmp_path / "w.safetensors", classes=100)
    assert "100 classes" in message
    assert "branch1.fc.weight: shape (10, 3600), want (100, 3600)" in message


class Payload:
    """Unpickled, it would make a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Shell(Payload):
    """Unpickled, it would run a program."""

    def __reduce__(self):
        return subprocess.call, (["touch", str(self.path)],)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("payload", [Payload, Shell])
@pytest.mark.parametrize("form", ["plain pickle", "torch zip", "torch legacy", "among weights"])
def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path, state, payload, form):
    path, made = tmp_path / "w.pt", tmp_path / "made"
    bad = payload(made)
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(bad))
    elif form == "among weights":
        torch.save({**state, "conv1.weight": bad}, path)
    else:
        torch.save(bad, path, _use_new_zipfile_serialization=form == "torch zip")
    refusal(path)
    assert not made.exists()


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(2)],
        torch.zeros(3),
        {"state_dict": {"a": torch.zeros(1)}},
        {"epoch": 3},
        {},
        "a",
    ],
    ids=["list", "tensor", "nested", "number", "empty", "string"],
)
def test_what_is_not_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    assert "state dict" in refusal(tmp_path / "w.pt")


GARBAGE = {
    "empty": b"",
    "zeros": bytes(100),
    "html": b"<!DOCTYPE html><html>404</html>",
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(64),
    "a zip of nothing": b"PK\x05\x06" + bytes(18),
    "half a zip": b"PK\x03\x04" + bytes(60),
    # As pickle opcodes these read from an empty stack or memo.
    "a sentence": b"hello, these are no weights\n",
    "a note": b"see (1) elsewhere\n",
    "a list": b"]" * 20,
    "a number": b"(42)\n",
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE.keys())
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_garbage_is_refused(tmp_path, content, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    refusal(path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".legacy"])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.3, 0.9, 0.999])
def test_truncated_weights_are_refused(tmp_path, network, state, suffix, share):
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        save(network, path, {})
    else:
        torch.save(state, path, _use_new_zipfile_serialization=suffix == ".pt")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refusal(path)


def test_weights_whose_tensors_point_at_no_data_are_refused(tmp_path):
    """Torch's older format names a tensor's storage by a long number, and asserts to find it."""
    path = tmp_path / "w.pt"
    torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    key = re.search(rb"\d{8,}", whole).group()
    path.write_bytes(whole.replace(key, key[::-1] if key != key[::-1] else b"1" * len(key), 1))
    refusal(path)


@pytest.mark.parametrize("name", ["absent.pt", "absent.safetensors"])
def test_missing_weights_are_refused(tmp_path, name):
    refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["folder", "folder.safetensors"])
def test_a_folder_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    refusal(tmp_path / name)


def test_the_description_has_the_shapes_parameters_and_multiply_adds_counted_by_hand(network):
    rows = {
        (row["part"], row["exit"]): row
        for row in describe(network, torch.zeros(1, *IMAGE_SHAPE)).to_pylist()
    }
    features = ["3x32x32", "32x32x32", "32x16x16", "64x16x16", "64x8x8", "128x8x8", "128"]
    for k in range(1, 7):
        block, head = rows["block", k], rows["head", k]
        assert (block["input_shape"], block["output_shape"]) == (features[k - 1], features[k])
        assert (head["input_shape"], head["output_shape"]) == (features[k], "10")
    multiply_adds = {
        ("block", 1): 9 * 3 * 32 * 32 * 32,
        ("block", 2): 9 * 32 * 32 * 32 * 32,
        ("block", 3): 9 * 32 * 64 * 16 * 16,
        ("block", 4): 9 * 64 * 64 * 16 * 16,
        ("block", 5): 9 * 64 * 128 * 8 * 8,
        ("block", 6): 9 * 128 * 128 * 8 * 8 + 2048 * 128 + 3 * 128 * 128,
        ("head", 1): 9 * 32 * 16 * 15 * 15 + 3600 * 10,
        ("head", 2): 9 * 32 * 16 * 7 * 7 + 784 * 10,
        ("head", 3): 9 * 64 * 16 * 7 * 7 + 784 * 10,
        ("head", 4): 9 * 64 * 16 * 3 * 3 + 144 * 10,
        ("head", 5): 9 * 128 * 16 * 3 * 3 + 144 * 10,
        ("head", 6): 128 * 10,
    }
    assert {key: row["multiply_adds"] for key, row in rows.items()} == multiply_adds
    assert rows["block", 1]["parameters"] == 32 * 3 * 9 + 32 + 2 * 32
    assert rows["head", 6]["parameters"] == 128 * 10 + 10
    # Every parameter belongs to exactly one part.
    total = sum(p.numel() for p in network.parameters())
    assert sum(row["parameters"] for row in rows.values()) == total
