"""Networks of one's own: found by name, made, and refused in one line where they are none."""

import textwrap

import pytest
import torch
from conftest import documented

from offramp import OfframpError
from offramp.networks.loading import build, load, save

CPU = torch.device("cpu")
NET = """
    from torch import nn

    class Net:
        def __init__(self, classes, width=4):
            self.blocks = [nn.Linear(3, width), nn.Linear(width, width)]
            self.heads = [nn.Linear(width, classes), nn.Linear(width, classes)]
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(text: str, name: str = "net.py") -> str:
    with open(name, "w") as file:
        file.write(textwrap.dedent(text))
    return name


def refusal(model, classes: int = 5) -> str:
    with pytest.raises(OfframpError) as caught:
        build(model, classes)
    [line] = str(caught.value).splitlines()
    assert documented(line), line
    return line


def test_a_factory_is_called_with_its_options_and_the_number_of_classes():
    written(NET)
    network = build({"name": "net.py:Net", "options": {"width": 7}}, 5)
    x = torch.rand(6, 3)
    assert [tuple(z.shape) for z in network(x)] == [(6, 5), (6, 5)]
    assert network.blocks[0].out_features == 7
    written("from net import Net\ndef make(wide): return Net(3, wide)", "other.py")
    assert build({"name": "other.py:make", "options": {"wide": 2}}, 5)(x)[1].shape == (6, 3)
    assert build({"name": "net.py:Net", "options": {"classes": 9}}, 5)(x)[0].shape == (6, 9)


def test_an_edit_of_the_same_second_counts(here):
    for width in range(1, 6):
        written(NET.replace("width=4", f"width={width}"))
        assert build("net.py:Net", 5).blocks[0].out_features == width
    assert not (here / "__pycache__").exists()


def test_a_module_that_python_finds_is_named_without_its_ending(here, monkeypatch):
    (here / "packaged").mkdir()
    written(NET, "packaged/nets.py")
    monkeypatch.syspath_prepend(str(here))
    assert len(build("packaged.nets:Net", 5).heads) == 2


def test_its_weights_keep_the_names_that_it_gives_them():
    written(
        """
        from torch import nn

        class Net(nn.Module):
            def __init__(self, classes):
                super().__init__()
                self.stem, self.body = nn.Linear(3, 4), nn.Linear(4, 4)
                self.first, self.last = nn.Linear(4, classes), nn.Linear(4, classes)
                self.blocks, self.heads = (self.stem, self.body), [self.first, self.last]
        """
    )
    network = build("net.py:Net", 5)
    assert {name.split(".")[0] for name in network.state_dict()} == {
        "stem",
        "body",
        "first",
        "last",
    }
    torch.save(network.holder.state_dict(), "w.pt")
    save(network, "w.safetensors", {})
    for path in ("w.pt", "w.safetensors"):
        loaded = load("net.py:Net", 5, path, CPU)
        x = torch.rand(2, 3)
        assert all(map(torch.equal, loaded(x), network(x)))
        assert loaded.identity.name == "net.py:Net" and loaded.identity.weights == path
    with pytest.raises(OfframpError, match=r"not weights of net\.py:Net with 6 classes"):
        load("net.py:Net", 6, "w.pt", CPU)


def test_a_part_that_is_used_twice_is_saved_and_loaded():
    two = "[nn.Linear(width, classes), nn.Linear(width, classes)]"
    written(NET.replace(two, "[self.blocks[1]] * 2"))
    network = build("net.py:Net", 4)
    save(network, "w.safetensors", {})
    x = torch.rand(2, 3)
    assert all(map(torch.equal, load("net.py:Net", 4, "w.safetensors", CPU)(x), network(x)))


def test_weights_for_a_network_without_any_are_refused():
    written("from torch.nn import Identity as I\nclass net:\n  blocks, heads = [I()], [I()]")
    torch.save({"a": torch.zeros(2)}, "w.pt")
    with pytest.raises(OfframpError, match="unexpected key a"):
        load("net.py:net", 2, "w.pt", CPU)


def test_weights_of_its_own_are_known_by_their_values():
    seeded = "__import__('torch').manual_seed(width); self.blocks = ["
    written(NET.replace("self.blocks = [", seeded))
    digests = [
        load({"name": "net.py:Net", "options": {"width": w}}, 5, None, CPU).identity.weights_sha256
        for w in (4, 4, 5)
    ]
    assert digests[0] == digests[1] != digests[2]


BROKEN = {
    "is not there": ("absent.py:net", ""),
    "is a folder": ("folder.py:net", ""),
    "no module absent": ("absent.nets:net", ""),
    "line 2: ": ("net.py:net", "\ndef net(:"),
    "has no nett; it has net; did you mean net?": ("net.py:nett", "def net(): pass"),
    "has no inner; it has net": ("net.py:inner", "def net():\n    inner = 1"),
    "has no width; it has Net": ("net.py:width", "class Net:\n    width = 1"),
    "has no hidden": ("net.py:hidden", "globals()['net'] = 1"),
    "is no factory": ("net.py:", ""),
    "is no factory; want": ("net.py:a b", ""),
    "importing net.py raised ModuleNotFoundError: No module named 'absent'": (
        "net.py:net", "import absent\ndef net(): pass",
    ),
    "importing net.py raised SystemExit: 3": ("net.py:net", "exit(3)\ndef net(): pass"),
    "is of type int, not a function": ("net.py:net", "net = 3"),
    "net.py:net raised KeyError: 'b' (net.py, line 2)": ("net.py:net", "def net():\n  {}['b']"),
    "net.py:net raised TypeError: unhashable type: 'list' (net.py, line 1)": (
        {"name": "net.py:net", "options": {"a": [1]}}, "def net(a): return {a: 1}",
    ),
    "got an unexpected keyword argument 'b'": (
        {"name": "net.py:net", "options": {"b": 1}}, "def net(classes, a=2): pass",
    ),
    "missing a required argument: 'a'": ("net.py:net", "def net(a): pass"),
    "gave None without a list of blocks": ("net.py:net", "def net(): pass"),
    "gave an object of type int": ("net.py:net", "def net(): return 3"),
    "gave an object of type Linear without a list of blocks": (
        "net.py:net", "from torch import nn\ndef net(): return nn.Linear(2, 2)",
    ),
    "without a list of heads": (
        "net.py:net", "class net:\n  blocks, heads = [], 3",
    ),
    "heads[0] is an object of type function": (
        "net.py:net", "class net:\n  blocks, heads = [], [len.__class__ and (lambda x: x)]",
    ),
    "0 blocks and 0 heads": ("net.py:net", "class net:\n  blocks, heads = [], []"),
    "2 blocks and 1 heads": (
        "net.py:net",
        "from torch.nn import Identity as I\nclass net:\n  blocks, heads = [I(), I()], [I()]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("words", BROKEN)
def test_what_is_no_network_is_refused_in_one_line(words, here):
    model, text = BROKEN[words]
    (here / "folder.py").mkdir()
    written(text)
    assert words in refusal(model)
