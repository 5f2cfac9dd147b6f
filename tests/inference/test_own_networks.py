"""Networks of one's own, with a tensor or a tuple of them between blocks, wherever one is run."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ORIGIN, documented
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from offramp import OfframpError
from offramp.common.hashing import sha256
from offramp.data.datasets import DATASETS, text_of
from offramp.data.splits import Split, load_images
from offramp.inference.backends import BACKENDS, for_inference
from offramp.inference.cascade import (
    check_images,
    run_cascade,
    run_cascade_regrouped,
    run_full_network,
)
from offramp.inference.deployed import Cascade
from offramp.inference.export import export
from offramp.inference.forward import dump_split
from offramp.inference.opening import ready_network
from offramp.inference.probe import probe
from offramp.inference.runner import Runner
from offramp.inference.verification import cases_of, verify
from offramp.networks.features import count, take
from offramp.networks.identity import Identity
from offramp.networks.loading import describe, digest_of, own_network, save
from offramp.networks.own.trying import check_network
from offramp.scoring.policy import Policy, load_policy, policy_scores, save_policy
from offramp.tables.files import read_logits
from offramp.thresholds.time_model import fit_time_model

CPU, WIDE = torch.device("cpu"), 6


class Block(nn.Module):
    """Whole numbers to whole numbers, so that no sum depends on the batch; of several tensors the
    mask says which count, and the third goes along."""

    def __init__(self, draw):
        super().__init__()
        self.weight = nn.Parameter(torch.randint(-1, 2, (WIDE, WIDE), generator=draw).float())

    def forward(self, x):
        if isinstance(x, torch.Tensor):
            return (x @ self.weight).clamp(-8, 8)
        values, mask, ids = x
        return ((values * mask) @ self.weight).clamp(-8, 8), mask, ids + 1


class Head(nn.Module):
    def __init__(self, classes, draw):
        super().__init__()
        self.weight = nn.Parameter(torch.randint(-1, 2, (WIDE, classes), generator=draw) / 4)
        self.apart = nn.Parameter(torch.arange(classes) / 1024)  # no two logits are the same

    def forward(self, x):
        if isinstance(x, torch.Tensor):
            return x @ self.weight + self.apart
        values, mask, ids = x
        return (values * mask) @ self.weight + self.apart + (ids % 2)[:, None] / 4


class Several(nn.Module):
    """A first block that makes a tuple of the input."""

    def forward(self, x):
        return x, x.abs() % 4 != 3, x.abs().sum(1).long()


def made(exits: int, classes: int, several: bool, seed: int = 0, one_input: bool = True):
    draw = torch.Generator().manual_seed(seed)
    blocks = [Block(draw) for _ in range(exits)]
    heads = [Head(classes, draw) for _ in range(exits)]
    if several and one_input:
        blocks[0] = nn.Sequential(Several(), blocks[0])

    class Made:
        pass

    network = Made()
    network.blocks, network.heads = blocks, heads
    return own_network("made", network).eval()


def inputs(n: int, several: bool, seed: int = 0):
    x = torch.randint(-4, 5, (n, WIDE), generator=torch.Generator().manual_seed(seed)).float()
    return Several()(x) if several else x


def slow(network, policy: Policy, x) -> tuple[list[int], list[int]]:
    """Labels and exits by a loop over samples, each alone."""
    labels, exits = [], []
    for row in range(count(x)):
        here, seen = take(x, slice(row, row + 1)), []
        for k, (block, head) in enumerate(zip(network.blocks, network.heads, strict=True)):
            with torch.inference_mode():
                here = block(here)
                seen.append(head(here).numpy())
            logits = np.stack([*seen, *[seen[-1]] * (len(network.heads) - len(seen))], 1)
            last = k == len(network.heads) - 1
            threshold = None if last else policy.thresholds[k]
            if last or (threshold is not None and policy_scores(policy, logits)[0, k] <= threshold):
                labels.append(int(seen[-1].argmax()))
                exits.append(k + 1)
                break
    return labels, exits


@st.composite
def cases(draw):
    exits, classes = draw(st.integers(1, 8)), draw(st.integers(2, 1000))
    several, seed, n = draw(st.booleans()), draw(st.integers(0, 99)), draw(st.integers(1, 9))
    criterion = draw(st.sampled_from(["entropy", "margin", "agreement", "patience"]))
    shares = [draw(st.one_of(st.none(), st.floats(0, 1))) for _ in range(exits - 1)]
    network = made(exits, classes, several, seed, one_input=False)
    x = inputs(n, several, seed)
    with torch.inference_mode():
        logits = torch.stack(network(x), 1).numpy()
    scores = policy_scores(Policy(criterion, (None,) * (exits - 1)), logits)
    thresholds = tuple(
        None if share is None else float(np.quantile(scores[:, k], share)) + 1e-7
        for k, share in enumerate(shares)
    )
    return network, Policy(criterion, thresholds), x


@given(cases(), st.integers(1, 4), st.integers(1, 9))
@settings(max_examples=200)
def test_the_cascade_is_a_loop_over_samples(case, size, group):
    network, policy, x = case
    wanted = slow(network, policy, x)
    labels, exits = run_cascade(network, policy, x)
    assert (labels.tolist(), exits.tolist()) == wanted
    batches = [take(x, slice(start, start + size)) for start in range(0, count(x), size)]
    labels, exits = run_cascade_regrouped(network, policy, batches, group)
    assert (labels.tolist(), exits.tolist()) == wanted
    everyone = Policy(policy.criterion, (None,) * len(policy.thresholds))
    assert run_full_network(network, x).tolist() == slow(network, everyone, x)[0]


@pytest.mark.parametrize("exits", [1, 3])
@pytest.mark.parametrize("several", [False, True])
def test_tables_probe_and_proof_are_made_of_it(tmp_path, exits, several):
    network, n = made(exits, 5, several), 40
    samples = inputs(n, False).numpy()
    labels = np.random.default_rng(0).integers(0, 5, n)
    split = Split(samples, labels, np.random.default_rng(1).permutation(n))
    split = split._replace(labels=labels[split.order])
    path = str(tmp_path / "logits.parquet")
    clock = dump_split(network, split, "test", 5, 16, CPU, path, ORIGIN | {"split": "test"})
    assert len(clock) == 3 * 3 * exits
    known = read_logits(path)
    with torch.inference_mode():
        whole = torch.stack(network(load_images(split, slice(None), CPU)), 1).numpy()
    assert (known.logits == whole).all()
    scores = policy_scores(Policy("entropy", (None,) * (exits - 1)), whole)
    policy = Policy("entropy", tuple(np.median(scores, axis=0).tolist()))
    timings = probe(network, policy, split, 16, CPU)
    assert set(timings["part"].to_pylist()) >= {"block", "head", "decide"}
    save_policy(tmp_path / "best.json", policy)
    cases = cases_of([str(tmp_path / "best.json")], whole)
    rows = verify(network, cases, split, whole, fit_time_model(timings, 16), CPU)
    assert sum(rows["differ"].to_pylist()) == 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("one_input", [False, True])
def test_every_backend_takes_a_tuple(backend, one_input):
    network = made(2, 4, True, seed=3, one_input=one_input)
    x = inputs(9, not one_input, seed=1)
    policy = Policy("entropy", (0.9,))
    wanted = run_cascade(network, policy, x)
    assert len(set(wanted[1].tolist())) == 2
    other = for_inference(network, backend, take(x, slice(0, 2)))
    assert all(map(torch.equal, run_cascade(other, policy, x), wanted))


def test_its_parts_are_described_with_all_their_tensors():
    rows = describe(made(1, 4, True), inputs(1, False)).to_pylist()
    assert (rows[0]["input_shape"], rows[0]["output_shape"]) == ("6", "6 + 6 + 1")
    assert (rows[1]["input_shape"], rows[1]["output_shape"]) == ("6 + 6 + 1", "4")


@pytest.mark.parametrize(
    ("x", "words"),
    [
        ([1.0], "want a tensor or a tuple of tensors (N, ...), not a list"),
        ((), "not a tuple"),
        ((torch.zeros(2, 6), None), "not a NoneType"),
        (torch.tensor(3.0), "not a number"),
        ((torch.zeros(2, 6), torch.zeros(3, 6)), "tensors of 2, 3 samples"),
    ],
)
def test_inputs_that_are_none_are_refused(x, words):
    with pytest.raises(OfframpError) as caught:
        check_images(made(1, 4, False), x)
    assert words in str(caught.value) and documented(str(caught.value))


class Part(nn.Module):
    """Whatever a function does."""

    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, x):
        return self.call(x)


def trial(block=lambda x: x, head=lambda x: x[:, :4], x=None) -> str:
    """What is said of a network whose second exit is of these."""

    class Net:
        blocks = [Part(lambda x: x), Part(block)]  # noqa: RUF012
        heads = [Part(lambda x: x[:, :4]), Part(head)]  # noqa: RUF012

    x = torch.rand(4, 6) if x is None else x
    with pytest.raises(OfframpError) as caught:
        check_network(own_network("net.py:Net", Net()).eval(), "net.py:Net", x, 4)
    [line] = str(caught.value).splitlines()
    assert documented(line), line
    return line


def raises(x):
    raise ValueError("two\nlines")


FAULTY = {
    "block 2 gives an object of type list; want a tensor, or a plain": {"block": lambda x: [x]},
    "block 2 gives None": {"block": lambda x: None},
    "block 2 gives (3, 6) in float32 for 4 samples": {"block": lambda x: x[1:]},
    "block 2 gives () in float32 for 4 samples": {"block": lambda x: x.sum()},
    "block 2 gives a tuple of (4, 6) in float32 and (1, 6) in float32": {
        "block": lambda x: (x, x[:1])
    },
    "head 2 gives (4, 3) in float32 for 4 samples of 4 classes; want logits (4, 4)": {
        "head": lambda x: x[:, :3]
    },
    "head 2 gives (6,) in float32": {"head": lambda x: x[0]},
    "head 2 gives a tuple": {"head": lambda x: (x, x)},
    "head 2 gives logits in float64; want float32": {"head": lambda x: x[:, :4].double()},
    "head 2 gives probabilities; want logits": {"head": lambda x: x[:, :4].softmax(1)},
    "head 2 gives logits that are not finite": {"head": lambda x: x[:, :4].log() / 0},
    "head 2 depends on the other samples of a batch": {"head": lambda x: x[:, :4] - x.mean()},
    "block 2 depends on the other samples of a batch": {"block": lambda x: x / x.norm()},
    "block 2 depends on the other samples": {
        "block": lambda x: (x, x.argsort(0)), "head": lambda x: x[0][:, :4]
    },
    "head 2 gives (4,) in float32 for 1 samples": {
        "head": lambda x: x.squeeze()[..., :4]
    },
    "head 2 gives other values when it is called again": {"head": lambda x: torch.rand(len(x), 4)},
    "head 2 changes its input in place": {"head": lambda x: x.mul_(2)[:, :4]},
    "block 2 changes its input in place": {"block": lambda x: x.sub_(1)},
    "block 2, given (4, 6) in float32, raised ValueError: two (test_own_networks.py, line": {
        "block": raises
    },
    "block 2, given (4, 6) in float32, raised RuntimeError: mat1 and mat2": {
        "block": lambda x: x @ torch.ones(7, 2)
    },
}  # fmt: skip


@pytest.mark.parametrize("words", FAULTY)
def test_a_network_that_can_not_be_studied_is_told_on_a_few_samples(words):
    assert words in trial(**FAULTY[words])


@pytest.mark.parametrize("several", [False, True])
def test_a_good_network_is_left_alone(several):
    network, x = made(3, 7, several), inputs(4, False)
    before = network.state_dict()
    check_network(network, "made", x, 7)
    check_network(made(3, 7, several, one_input=False), "made", inputs(1, several), 7)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())


def test_float_noise_is_no_fault():
    torch.manual_seed(0)
    wide = nn.Linear(600, 600)

    class Net:
        blocks = [nn.Sequential(wide, nn.BatchNorm1d(600))]  # noqa: RUF012
        heads = [nn.Linear(600, 4)]  # noqa: RUF012

    check_network(own_network("net", Net()).eval(), "net", 100 * torch.rand(4, 600), 4)


class Shipped(nn.Module):
    """A network as someone's file has it, over three numbers a sample."""

    def __init__(self, classes=4, width=6, seed=1):
        super().__init__()
        torch.manual_seed(seed)
        self.blocks = nn.ModuleList([Widen(width), Deepen(width)])
        self.heads = nn.ModuleList([Sum(width, classes), Sum(width, classes)])


class Widen(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(3, width)

    def forward(self, x):
        return torch.relu(self.linear(x)), x > 0


class Deepen(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        return torch.relu(self.linear(x[0])), x[1]


class Sum(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.linear = nn.Linear(width, classes)

    def forward(self, x):
        values, mask = x
        return 5 * self.linear(values) * mask.sum(1, keepdim=True)


DATASET = DATASETS["digits"]._replace(
    name="arrays", names=tuple("abcd"), pools={"all": 40}, shape=(3,), dtype="float32"
)


def policy_of(folder, network, criterion="entropy", weights="w.safetensors") -> str:
    """A policy file for a network, and its weights beside it."""
    if weights != "none":
        save(own_network("net", network), folder / weights, {})
        digest = sha256(folder / weights)
    else:
        digest = digest_of(network.state_dict())
    options = {"width": 6}
    about = Identity("net.py:Shipped", weights, digest, options)
    origin = {"dataset": "arrays", "known": text_of(DATASET), "model": "net.py:Shipped"}
    path = folder / "policy.json"
    save_policy(path, Policy(criterion, (0.9,), network=about), provenance=origin)
    return str(path)


@pytest.mark.parametrize("weights", ["w.safetensors", "none"])
def test_a_policy_for_it_wants_it_handed_in(tmp_path, weights):
    network, x = Shipped(), torch.randn(40, 3)
    path = policy_of(tmp_path, network, weights=weights)
    with pytest.raises(OfframpError) as caught:
        Cascade.load(path)
    assert "Cascade.load(policy, network=Shipped(width=6))" in str(caught.value)
    assert documented(str(caught.value))
    fresh = Shipped(seed=2 if weights != "none" else 1)
    found = Cascade.load(path, network=fresh)(x)
    labels, exits = run_cascade(own_network("net", network).eval(), load_policy(path), x)
    assert torch.equal(found.label, labels) and torch.equal(found.exit, exits)
    assert len(set(exits.tolist())) == 2
    if weights == "none":
        with pytest.raises(OfframpError) as caught:
            Cascade.load(path, network=Shipped(seed=2))
        assert documented(str(caught.value))


@pytest.mark.parametrize("criterion", ["entropy", "agreement"])
def test_its_export_runs_by_itself(tmp_path, criterion):
    network, x = Shipped(), torch.randn(40, 3)
    path = policy_of(tmp_path, network, criterion)
    export(path, None, tmp_path / "export", Shipped(seed=3))
    labels, exits, _ = Runner(tmp_path / "export")(x.numpy())
    wanted = Cascade.load(path, network=network)(x)
    assert labels.tolist() == wanted.label.tolist() and exits.tolist() == wanted.exit.tolist()
    told = json.loads((tmp_path / "export/manifest.json").read_text())["stages"]
    assert [*told[0]["outputs"]][:2] == ["features_1", "features_2"]
    assert [*told[1]["inputs"]] == ["inputs_1", "inputs_2"]


def test_a_factory_with_weights_of_its_own_gives_the_same_each_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (
        "import torch\n"
        "def net(classes):\n"
        "    class Net:\n"
        "        blocks, heads = [torch.nn.Linear(3, 5)], [torch.nn.Linear(5, classes)]\n"
        "    return Net()\n"
    )
    (tmp_path / "net.py").write_text(text)
    split = Split(np.ones((6, 3), np.float32), np.zeros(6, int), np.arange(6))
    params = SimpleNamespace(dataset=text_of(DATASET), backend="eager")
    with pytest.raises(OfframpError) as caught:
        ready_network("net.py:net", None, params, split, CPU)
    assert documented(str(caught.value))
    (tmp_path / "net.py").write_text(
        text.replace("classes):", "classes):\n    torch.manual_seed(0)")
    )
    assert ready_network("net.py:net", None, params, split, CPU).identity.weights == "none"
