"""Exits on somebody's network: cut at named submodules, equal to the uncut, or a clear error."""

import copy

import pytest
import torch
import torchvision
from conftest import documented
from torch import nn

from offramp import OfframpError
from offramp.networks.own.heads import Convolution, Pooled, head_for
from offramp.networks.own.splitting import SplitNetwork, split

CLASSES = 5


def pooled(features, place):
    return head_for(features, place, CLASSES, "pooled")


def images(count=8, size=32):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def cut(network, *exits, example=None, head=pooled) -> SplitNetwork:
    return split(network, exits, images() if example is None else example, head)


def survivors(network: SplitNetwork, x, leaving=1):
    """The final logits of those who stay, where ``leaving`` samples leave at every exit."""
    for block in network.blocks[:-1]:
        x = block(x)
        x = tuple(t[leaving:] for t in x) if isinstance(x, tuple) else x[leaving:]
    return network.blocks[-1](x)


def widest_gap(network: SplitNetwork, whole: nn.Module, x) -> float:
    """The largest difference from the uncut network, in batches of 1, 3 and 8; as samples leave it
    is as small."""
    gone = len(network.blocks) - 1
    with torch.no_grad():
        apart = [network(x[:n])[-1] - whole(x[:n]) for n in (1, 3, 8)]
        left = survivors(network, x) - whole(x)[gone:]
    assert left.abs().max() < 1e-5
    return max(a.abs().max().item() for a in apart)


# One of a kind each, with cuts between stages, inside of them, and inside of residual branches.
TORCHVISION = {
    "resnet18": ["layer1", "layer2.0.bn2", "layer3"],
    "resnet50": ["layer1", "layer2.1", "layer4.0.bn2"],
    "mobilenet_v2": ["features.3", "features.7", "features.14"],
    "mobilenet_v3_small": ["features.2", "features.5", "features.9.block.1"],
    "efficientnet_b0": ["features.2", "features.4", "features.6"],
    "densenet121": ["features.denseblock1", "features.denseblock2.denselayer4", "features.norm5"],
    "googlenet": ["inception3b", "inception4a.branch2", "inception4e"],
    "squeezenet1_1": ["features.4", "features.7.expand1x1", "features.10"],
    "shufflenet_v2_x1_0": ["stage2", "stage3.1", "conv5"],
    "vgg11_bn": ["features.1", "features.14", "classifier.0"],
    "convnext_tiny": ["features.1", "features.3", "features.5.4"],
    "vit_b_16": [f"encoder.layers.encoder_layer_{i}" for i in ("2", "5.self_attention", "8")],
    "regnet_y_400mf": [f"trunk_output.block{k}" for k in (1, 2, 3)],
    "swin_t": ["features.1", "features.3", "features.5.2.mlp"],
}
OPTIONS = {
    "googlenet": {"init_weights": False},
    "vgg11_bn": {"init_weights": False},
    "vit_b_16": {"image_size": 32},
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_a_network_of_torchvision_is_the_same_when_it_is_cut(name):
    make = getattr(torchvision.models, name)
    whole = make(num_classes=CLASSES, **OPTIONS.get(name, {})).eval()
    x = images(size=32 if name in ("vit_b_16", "vgg11_bn") else 64)
    network = cut(copy.deepcopy(whole), *TORCHVISION[name], example=x)
    assert len(network.blocks) == len(network.heads) == 4
    gap = widest_gap(network, whole, x)
    print(f"{name}: largest difference {gap:.2g}")
    assert gap <= 1e-5
    assert [z.shape for z in network(x)] == [(8, CLASSES)] * 4


class Net(nn.Module):
    """A network of a few layers, whose forward is given; every cut below is after ``a``."""

    def __init__(self, run):
        super().__init__()
        self.run = run
        self.a, self.b = nn.Conv2d(3, 4, 3, stride=4), nn.Conv2d(4, 4, 3)
        self.fc = nn.Linear(4, CLASSES)
        self.relu = nn.ReLU(inplace=True)
        self.unused = nn.Linear(1, 1)
        self.scale = nn.Parameter(torch.rand(1, 4, 1, 1))
        self.register_buffer("shift", torch.rand(1, 4, 1, 1))

    def head(self, x):
        return self.fc(x.mean((2, 3)))

    def forward(self, x):
        return self.run(self, x)


def counted(net, x):
    n, c = x.shape[0], x.shape[1] + 1
    y = net.a(x)
    side = y.size(2)
    y = y.reshape(n * c, -1).reshape(n, c, side, side)
    return net.head(net.b(y))


def counted_later(net, x):
    n, height = x.size(0), x.shape[2] // 4
    rows, double = n * height, (n, 2 * n)
    y = net.b(net.a(x))
    y = y.permute(0, 2, 3, 1)[:, : height - 2].reshape(rows - 2 * n, -1, 4)
    return net.fc(y.reshape(double[1] // 2, -1, 4).mean(1))


def with_positions(net, x):
    here = torch.arange(x.dim(), device=x.device)[None, :, None, None] * net.scale
    y = net.a(x)
    return net.head(net.b(y + here.to(y.dtype).to(y.device) + net.shift))


def with_entries(net, x):
    low, high = net.a(x).chunk(2, 1)
    both = {"low": low, "rest": [high, x.shape]}
    y = net.b(torch.cat([both["rest"][0], both["low"]], 1))
    return net.head(y * net.scale)


def changing(net, x):
    y = net.a(x)
    return net.head(net.b(net.relu(y))) + net.head(y)


def with_asserts(net, x):
    torch._assert(x.shape[2] == 32, "want 32")
    assert x.shape[1] == 3, "want RGB"
    y = net.a(x) if x.ndim == 4 else x
    assert net.scale.shape[1] == 4 and y.dim() == x.dim() and y.size(1) == 4 and not y.size(2) < 2
    return net.head(net.b(y)) if y.is_floating_point() else None


def with_defaults(net, x, scale=2, extra=None):
    y = net.a(x)
    return net.head(net.b(y * scale if extra is None else extra))


@pytest.mark.parametrize(
    "run",
    [counted, counted_later, with_positions, with_entries, changing, with_asserts, with_defaults],
    ids=lambda run: run.__name__,
)
def test_what_is_no_tensor_of_the_batch_is_made_anew_behind_a_cut(run):
    whole = Net(run).eval()
    network = cut(copy.deepcopy(whole), "a")
    assert widest_gap(network, whole, images()) <= 1e-5


def test_what_is_wanted_past_a_cut_goes_along_in_a_tuple():
    whole = Net(lambda net, x: net.head(net.b(net.a(x))) + x.mean((1, 2, 3))[:, None]).eval()
    network = cut(copy.deepcopy(whole), "a", "b")
    features = network.blocks[1](network.blocks[0](images()))
    assert isinstance(features, tuple) and len(features) == 2
    assert widest_gap(network, whole, images()) <= 1e-5
    # The head looks at what the named submodule gave.
    own = whole.b(whole.a(images()))
    assert torch.equal(network.heads[1](features), network.holder["exits"][1].head(own))


def test_features_are_as_they_were_when_the_next_block_has_run():
    network = cut(Net(changing), "a")
    with torch.no_grad():
        features = network.blocks[0](images())
        before = features.clone()
        network.blocks[1](features)
    assert torch.equal(features, before) and (before < 0).any()


class States(nn.Module):
    """An encoder over token ids, whose layers take and give states and a mask."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(20, 8), nn.Parameter(torch.rand(1, 6, 8))
        self.first, self.second = Layer(), Layer()
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, ids, mask=None):
        mask = ids.ne(0) if mask is None else mask
        states = self.first((self.words(ids) + self.places, mask))
        states, mask = self.second(states)
        return self.fc(states[:, 0])


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, both):
        x, mask = both
        if not mask.any():  # never traced, since no exit lies inside
            return both
        return x + self.attend(x, x, x, key_padding_mask=~mask)[0], mask


def test_an_encoder_over_tokens_is_cut_between_its_layers():
    ids = torch.randint(1, 20, (8, 6), generator=torch.Generator().manual_seed(3))
    ids[:, 4:] = 0
    whole = States().eval()
    network = cut(copy.deepcopy(whole), "first", example=ids)
    features = network.blocks[0](ids)
    assert [t.shape for t in features] == [(8, 6, 8), (8, 6)]
    assert widest_gap(network, whole, ids) <= 1e-5
    # The network's second argument may be an input as well.
    two = (ids, ids.ne(0))
    assert torch.allclose(cut(copy.deepcopy(whole), "first", example=two)(two)[-1], whole(*two))


def test_the_weights_keep_their_names_and_stand_once():
    whole = Net(with_positions)
    network = cut(whole, "a")
    names = set(network.state_dict())
    assert names == {f"trunk.{name}" for name in whole.state_dict()} | {
        "exits.0.fc.weight",
        "exits.0.fc.bias",
    }
    in_blocks = {id(p) for block in network.blocks for p in block.parameters()}
    used = {id(p) for name, p in whole.named_parameters() if "unused" not in name}
    assert in_blocks == used


def test_blocks_hold_what_was_loaded_moved_or_converted():
    whole, other = Net(with_positions).eval(), Net(with_positions).eval()
    network = cut(whole, "a").to(memory_format=torch.channels_last)
    network.trunk.load_state_dict(other.state_dict())
    assert torch.allclose(network(images())[-1], other(images()))
    network.double()
    want = other.double()(images().double())
    assert torch.allclose(network(images().double())[-1], want, atol=1e-12)
    copied = copy.deepcopy(network)
    assert torch.equal(copied(images().double())[-1], network(images().double())[-1])


def test_heads_are_made_for_the_features_there():
    assert isinstance(head_for(images(), 0, 7, "pooled"), Pooled)
    for shape in [(4, 8, 8), (8, 8, 4), (9, 4), (4,), (4, 2, 8, 8)]:
        head, x = Pooled(shape, 7), torch.rand(2, *shape)
        channels = next(axis for axis, n in enumerate(shape, 1) if n == 4)
        others = [axis for axis in range(1, len(shape) + 1) if axis != channels]
        assert torch.allclose(head(x), head.fc(x.mean(others) if others else x))
    for shape in [(4, 8, 8), (8, 8, 4)]:
        assert Convolution(shape, 7)(torch.rand(2, *shape)).shape == (2, 7)
    made = head_for((torch.rand(2, 3), torch.rand(2, 4, 5)), 1, 7, lambda shape, n: nn.Linear(1, 1))
    assert isinstance(made, nn.Linear)
    with pytest.raises(OfframpError) as error:
        Convolution((9, 4), 7)
    assert documented(str(error.value))
    with pytest.raises(OfframpError) as error:
        head_for(torch.ones(2, 3, dtype=torch.int64), 0, 7, "pooled")
    assert documented(str(error.value))


def twice(net, x):
    return net.head(net.b(net.relu(net.a(x))).relu() + net.relu(net.a(x))[:, :, 2:, 2:])


def deciding(net, x):
    y = net.a(x)
    return net.head(net.b(y) if y.sum() > 0 else y)


def deciding_by_number(net, x):
    y = net.a(x)
    return net.head(net.b(y) if x.dim() > 3 and x.shape[0] > 2 else y)


def counting(net, x):
    y = net.a(x)
    for _ in range(x.shape[1]):
        y = y + 1
    return net.head(y)


def by_value(net, x):
    largest = x.amax().item()
    return net.head(net.b(net.a(x) + largest))


def of_all_samples(net, x):
    mean = x.mean(0)
    return net.head(net.b(net.a(x) + mean.mean()))


def random(net, x):
    return net.head(net.b(nn.functional.dropout(net.a(x))))


def aliased(net, x):
    """A change in place that another tensor in the same memory sees, on the cut's other side."""
    y = net.a(x)
    seen = y[:, 1:]
    y = net.unused(y)
    net.relu(y)
    return net.head(net.b(torch.cat([seen, y[:, :1]], 1)))


class Constant(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def nested(*layers):
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(CLASSES))


def sequence_first(x):
    return x.flatten(2).permute(2, 0, 1)


def back(x):
    return x.mean(0)


def past_it(net, x):
    net.b(net.a(x))
    return net.head(net.relu(x[:, [0] * 4]))


def without_logits(net, x):
    return {"out": net.head(net.a(x))}


FAULTS = {
    "no submodule": (Net(changing), ["aa"]),
    "no submodule, nothing near": (Net(changing), ["layer17"]),
    "out of order": (Net(with_positions), ["b", "a"]),
    "never runs": (Net(changing), ["unused"]),
    "runs twice": (Net(twice), ["a"]),
    "one place": (nested(nn.Sequential(nn.Identity())), ["0.0", "0"]),
    "the last": (Net(with_positions), ["a", "fc"]),
    "goes nowhere": (Net(past_it), ["a"]),
    "a decision": (Net(deciding), ["a"]),
    "a decision by the number of samples": (Net(deciding_by_number), ["a"]),
    "a loop": (Net(counting), ["a"]),
    "a value": (Net(by_value), ["a"]),
    "of all samples": (Net(of_all_samples), ["a"]),
    "the batch is not first": (
        nn.Sequential(Constant(sequence_first), Constant(back), nn.Linear(3, CLASSES)), ["0"],
    ),
    "no tensor": (Net(lambda net, x: net.head(net.a(x + net.unused(x)))), ["unused"]),
    "random": (Net(random), ["a"]),
    "in shared memory": (Net(aliased), ["unused"]),
    "no logits": (Net(without_logits), ["a"]),
    "another input": (nn.Sequential(nn.Linear(4, 4)), ["0"]),
}  # fmt: skip
FAULTS["no tensor"][0].unused = Constant(lambda x: 1.0)
FAULTS["in shared memory"][0].unused = nn.Identity()


@pytest.mark.parametrize("name", FAULTS)
def test_a_network_that_can_not_be_cut_says_where_and_why(name):
    network, exits = FAULTS[name]
    with pytest.raises(OfframpError) as error:
        cut(network, *exits)
    message = str(error.value)
    print(message)
    assert "\n" not in message
    assert documented(message)


def test_a_head_that_changes_the_features_is_refused():
    def head(features, place):
        return nn.Sequential(nn.ReLU(inplace=True), pooled(features, place))

    with pytest.raises(OfframpError) as error:
        cut(Net(with_positions), "a", head=head)
    assert documented(str(error.value))
