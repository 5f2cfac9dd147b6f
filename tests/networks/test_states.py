"""Weights files made elsewhere: named wrongly, packed, wrapped, prefixed, of other kinds."""

import argparse
import gzip
import io
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import documented

from offramp import OfframpError
from offramp.networks.index import mismatches
from offramp.networks.loading import build, load

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build("branchynet", 10).eval()


@pytest.fixture(scope="module")
def state(network):
    return {key: value.contiguous() for key, value in network.state_dict().items()}


def refusal(path, content=None) -> str:
    """The message with which a file is refused, of which docs/faults.md knows."""
    if content is not None:
        torch.save(content, path)
    with pytest.raises(OfframpError) as caught:
        load("branchynet", 10, path, CPU)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and documented(message), message
    return message


def assert_loaded(path, state) -> None:
    loaded = load("branchynet", 10, path, CPU).state_dict()
    for key, value in state.items():
        assert torch.equal(loaded[key], value), key


# What the file is


@pytest.mark.parametrize("name", ["w.pt", "w.bin", "w.SAFETENSORS", "w", "w.h5"])
def test_a_safetensors_file_is_read_whatever_its_name(tmp_path, state, name):
    safetensors.torch.save_file(state, tmp_path / name)
    assert_loaded(tmp_path / name, state)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_is_read_whatever_its_name(tmp_path, state, zipped):
    path = tmp_path / "w.safetensors"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    assert_loaded(path, state)


def zip_of(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


OTHERS = {
    "empty": (b"", "is empty, no weights; copy or download it again"),
    "zeros": (bytes(5000), "is nothing but zero bytes"),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n",
        "is a Git LFS pointer, no weights; fetch the file that it stands for: git lfs pull",
    ),
    "page": (b"\n<!DOCTYPE html><title>", "is a web page, no weights; download the file itself"),
    "bucket": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "is a web page"),
    "words": (b"404: Not Found", "is a text file ('404: Not Found'), no weights"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(64), "is an HDF5 file, no weights; that is how Keras"),
    "gzip": (gzip.compress(b"x"), "is a gzip archive, no weights; unpack it and name"),
    "zip": (zip_of(weights=b"x"), "is a zip archive that torch did not save (it holds weights)"),
    "numpy": (b"\x93NUMPY\1\0", "is a NumPy array, no weights"),
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content, words", OTHERS.values(), ids=OTHERS)
def test_another_file_is_told_by_its_content_also_before_any_job(tmp_path, content, words, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    assert words in refusal(path)
    found = list(mismatches("model.weights", path, "model.name", "branchynet", "cifar10", 5))
    assert len(found) == 1 and found[0].startswith(f"model.weights: {path} {words[:8]}")


def test_a_file_that_is_cut_off_is_told(tmp_path, state):
    path = tmp_path / "w"
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:100_000])
    assert "is cut off or damaged (a zip archive without its end)" in refusal(path)
    whole = safetensors.torch.save(state)
    path.write_bytes(whole[:200])
    assert "is a safetensors file that is cut off" in refusal(path)
    path.write_bytes(whole[:100_000])
    assert "is a safetensors file that is damaged or cut off" in refusal(path)


def test_a_torchscript_archive_is_told(tmp_path):
    class Doubled(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    torch.jit.script(Doubled()).save(tmp_path / "w.pt")
    assert "is a TorchScript archive, which holds a program; save the" in refusal(tmp_path / "w.pt")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "make, type_",
    [
        (lambda net: net, "offramp.networks.branchynet.BranchyNet"),
        (lambda net: {"net": net.state_dict(), "acc": np.float64(0.9)}, "multiarray.scalar"),
        (lambda net: {"net": net.state_dict(), "args": argparse.Namespace()}, "argparse.Namespace"),
    ],
    ids=["network", "scalar", "arguments"],
)
def test_a_refused_pickle_is_told_by_its_type(tmp_path, network, make, type_, zipped):
    path = tmp_path / "w.pt"
    torch.save(make(network), path, _use_new_zipfile_serialization=zipped)
    message = refusal(path)
    assert f"{type_}, and unpickling that could run any code" in message
    assert len(message.splitlines()) == 1


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_plain_pickle_is_told_by_its_first_type(tmp_path, protocol):
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps({"a": np.zeros(3)}, protocol))
    assert "multiarray._reconstruct, and unpickling that" in refusal(path)


# How it is wrapped


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


def optimizer_state(state):
    """As torch's Adam saves it, tensors by name under numbers."""
    steps = {i: {"step": torch.tensor(1.0), "exp_avg": v} for i, v in enumerate(state.values())}
    return {"state": steps, "param_groups": [{"lr": 0.1, "params": list(steps)}]}


WRAPS = {
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "best": torch.tensor(0.9)},
    "with an optimizer": lambda s: {"model": s, "optimizer": optimizer_state(s)},
    "net": lambda s: {"net": s, "acc": 93.1, "epoch": 7},
    "only the average": lambda s: {"ema": {"module": s}, "updates": 9},
    "beside numbers": lambda s: {**s, "epoch": 3},
    "among measures": lambda s: {"model": s, "measures": {"acc": torch.tensor(0.3)}},
    "of a wrapped network": lambda s: {"state_dict": prefixed(s, "module.")},
    "averaged": lambda s: {**prefixed(s, "module."), "n_averaged": torch.tensor(3)},
    "compiled within": lambda s: {f"{k.replace('.', '._orig_mod.', 1)}": v for k, v in s.items()},
    **{
        prefix: lambda s, prefix=prefix: prefixed(s, prefix)
        for prefix in ("module.", "_orig_mod.", "model.", "backbone.", "module._orig_mod.net.")
    },
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_the_one_state_dict_in_a_file_is_loaded_without_what_wraps_it(tmp_path, state, wrap):
    torch.save(wrap(state), tmp_path / "w.pt")
    assert_loaded(tmp_path / "w.pt", state)


def test_between_two_sets_of_weights_the_user_chooses(tmp_path, state):
    message = refusal(tmp_path / "w.pt", {"model": state, "model_ema": state, "epoch": 3})
    assert "several state dicts of branchynet with 10 classes, at ['model'] and ['model_ema']" in (
        message
    )


def test_a_wrapped_state_dict_that_does_not_fit_is_named_by_its_key(tmp_path, state):
    less = {key: value for key, value in state.items() if key != "fc5.bias"}
    message = refusal(tmp_path / "w.pt", {"net": less, "measures": {"acc": torch.tensor(0.3)}})
    assert "its state dict at ['net'] is not weights of branchynet with 10 classes:" in message
    assert message.splitlines()[1:] == ["  missing key fc5.bias"]


def test_keys_are_told_where_none_holds_these_weights(tmp_path, state):
    message = refusal(tmp_path / "w.pt", {"a": {"x": torch.zeros(1)}, "b": {"y": torch.zeros(1)}})
    assert "it holds the keys a, b" in message
    message = refusal(tmp_path / "w.pt", {"optimizer": optimizer_state(state)})
    assert "holds no state dict, tensors by name, but the keys optimizer" in message


def test_a_dict_that_holds_itself_or_nothing_but_a_counter_is_refused(tmp_path):
    ring = {"n_averaged": torch.tensor(3)}
    ring["model"] = ring
    refusal(tmp_path / "w.pt", ring)


def test_a_prefix_of_some_names_is_given_as_the_cause_in_few_lines(tmp_path, state):
    mixed = {**prefixed(state, "model."), "loss.weight": torch.zeros(2)}
    message = refusal(tmp_path / "w.pt", mixed)
    assert "its names begin with 'model.', but not all do: loss.weight; save those alone" in message
    assert "more" in message.splitlines()[-1] and len(message.splitlines()) < 15


def test_weights_of_another_network_here_are_told(tmp_path):
    message = refusal(tmp_path / "w.pt", build("cpunet", 10).state_dict())
    assert message.endswith("these are weights of cpunet: name that network in the config")


# What its tensors are


def test_a_file_without_batch_norms_counters_is_loaded_as_torch_does(tmp_path, state):
    older = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert len(older) < len(state)
    torch.save(older, tmp_path / "w.pt")
    assert_loaded(tmp_path / "w.pt", older)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_types_are_converted(tmp_path, state, dtype):
    other = {key: value.to(dtype) for key, value in state.items()}
    torch.save(other, tmp_path / "w.pt")
    loaded = load("branchynet", 10, tmp_path / "w.pt", CPU).state_dict()
    assert loaded["fc5.weight"].dtype == torch.float32
    assert torch.equal(loaded["fc5.weight"], other["fc5.weight"].float())


ODD = {
    "integer": (torch.zeros(10, dtype=torch.int64), "torch.int64, want torch.float32 or"),
    "boolean": (torch.zeros(10, dtype=torch.bool), "torch.bool, want torch.float32 or"),
    "complex": (torch.zeros(10, dtype=torch.complex64), "torch.complex64, want torch.float32 or"),
    "meta": (torch.zeros(10, device="meta"), "has a shape but no data"),
    "sparse": (torch.zeros(10).to_sparse(), "a sparse tensor (torch.sparse_coo), want a dense"),
    "nan": (torch.tensor([0.0] * 9 + [torch.nan]), "1 of 10 values are not finite"),
    "infinite": (torch.full((10,), torch.inf), "10 of 10 values are not finite"),
    "too large": (torch.full((10,), 1e300, dtype=torch.float64), "10 of 10 values are not finite"),
}


@pytest.mark.parametrize("tensor, words", ODD.values(), ids=ODD)
def test_a_tensor_of_another_kind_is_told_by_its_key_in_one_line(tmp_path, state, tensor, words):
    message = refusal(tmp_path / "w.pt", {**state, "fc5.bias": tensor})
    assert message.splitlines()[1].startswith(f"  fc5.bias: {words}")
    assert len(message.splitlines()) == 2
