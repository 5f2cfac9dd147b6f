"""Exits on somebody's network: any torch module, cut after named submodules into blocks.

torch.fx traces it and takes it apart. What is here says where, gives every cut its head, and proves
that nothing else changed.
"""

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.split_module import split_module

from offramp import OfframpError
from offramp.networks.features import Features, count, take, tensors_of
from offramp.networks.multiexit import MultiExitNetwork, OwnNetwork
from offramp.networks.own.crossings import settle_crossings
from offramp.networks.own.tracing import SIZES, Given, Trace, facts_of, refused, traced

# Makes the head of an exit of the features there, which may be several, and the place of the named
# submodule's own output among them.
HeadMaker = Callable[[Features, int], nn.Module]
TOLERANCE = 1e-5
# Convolutions of batches of another size may sum in another order.
LOOSE = 1e-3


class SplitNetwork(OwnNetwork):
    """Someone's network cut into blocks, with heads on its side exits; its own output is the final
    exit. Its weights are ``trunk.`` and the network's own names, and ``exits.`` and a number."""

    def __init__(self, trunk: nn.Module, blocks: Sequence["Block"], heads: Sequence[nn.Module]):
        MultiExitNetwork.__init__(self)
        self.holder = nn.ModuleDict({"trunk": trunk, "exits": nn.ModuleList(heads)})
        # In tuples, so that the state dict holds every layer once.
        self.blocks = self.pieces = tuple(blocks)
        # The last block gives logits: the trunk is timed as it is, whatever its last layers are.
        self.heads = (*heads, nn.Identity())

    @property
    def trunk(self) -> nn.Module:
        """The network as it was."""
        return self.holder.get_submodule("trunk")

    def _apply(self, fn, recurse=True):
        """What moves the weights moves what blocks hold of them."""
        super()._apply(fn, recurse)
        for block in self.pieces:
            block.relink(self.trunk, fn)
        return self


class Block(nn.Module):
    """A piece of a network: ``takes`` its inputs from the features before it, by their places, and
    from tensors of the network that it holds, by name; ``gives`` of the features before it and of
    what it made, counted on from these, those that are wanted later."""

    piece: nn.Module

    def __init__(self, piece: nn.Module, takes: list[int | str], gives: list[int]):
        super().__init__()
        self.piece, self.takes, self.gives = piece, takes, gives
        # Places of features that the piece changes; it gets copies, since others look at them.
        self.changed: list[int] = []
        # By the names here, the places in the network; None for what tracing made constant.
        self.held: dict[str, str | None] = {}

    def forward(self, x: Features) -> Features:
        """Features to features, one tensor where only one is wanted later."""
        before = list(x) if isinstance(x, tuple) else [x]
        for place in self.changed:
            before[place] = before[place].clone()
        results = self.piece(
            *[getattr(self, name) if isinstance(name, str) else before[name] for name in self.takes]
        )
        after = tuple((*before, *results)[place] for place in self.gives)
        return after if len(after) > 1 else after[0]

    def hold(self, name: str, tensor: Tensor, place: str | None) -> None:
        """Hold a tensor of the network, or a constant."""
        self.held[name] = place
        if isinstance(tensor, nn.Parameter):
            self.register_parameter(name, tensor)
        else:
            self.register_buffer(name, tensor)

    def relink(self, trunk: nn.Module, fn: Callable[[Tensor], Tensor]) -> None:
        """Hold the network's tensors as they are now, after ``fn`` was applied to all."""
        for name, place in self.held.items():
            tensor = fn(getattr(self, name)) if place is None else _attribute(trunk, place)
            setattr(self, name, tensor)


def split(
    network: nn.Module, exits: Sequence[str], example: Features, head: HeadMaker
) -> SplitNetwork:
    """The network, cut after the submodules called ``exits``, with a head at each; for inference.

    ``example`` is a small batch of its input, on the network's device; if it is a tuple, the
    network takes as many arguments. Block k ends where the k-th named submodule has
    answered, the last block with the network's own output. Features are what later blocks want of
    everything before: a tensor, or a tuple if there are more.

    Raises OfframpError that names the place where the network can't be cut, and what crosses it.
    """
    network.eval()
    rows = torch.arange(max(SIZES)) % count(example)
    inputs = [x[rows] for x in tensors_of(example)]
    _check_names(network, exits)
    _check_runs(network, inputs)
    trace = traced(network, exits, inputs)
    given = [_given_once(trace, name) for name in exits]
    ends = [exit_.end for exit_ in given]
    _check_order(exits, ends, trace.graph)
    parts = _parts(trace.graph, ends)
    whole = fx.GraphModule(trace.root, trace.graph)
    facts, values = facts_of(whole, inputs), [exit_.value for exit_ in given]
    outputs = settle_crossings(trace.graph, parts, facts, values, exits)
    whole.recompile()
    blocks, places = _blocks(whole, parts, outputs)
    with torch.no_grad():
        heads = _heads(blocks, places, exits, inputs, head)
        cut = SplitNetwork(network, blocks, heads).eval()
        _check_same(cut, exits, inputs)
    return cut


def _check_names(network: nn.Module, exits: Sequence[str]) -> None:
    names = [name for name, _ in network.named_modules(remove_duplicate=False) if name]
    for name in exits:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            top = ", ".join(child for child, _ in network.named_children())
            hint = f"did you mean {near[0]}?" if near else f"it has {top or 'none'}"
            raise refused(f"{name} is no submodule of {type(network).__name__}; {hint}")


@torch.no_grad()
def _check_runs(network: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Raise OfframpError where the network, as it is, does not map a batch to logits."""
    for size in SIZES:
        shapes = " and ".join(str((size, *x.shape[1:])) for x in inputs)
        try:
            logits = network(*(x[:size].clone() for x in inputs))
        # Whatever code of others raises.
        except Exception as error:
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise OfframpError(
                f"model.name: {type(network).__name__} can't take a batch of shape {shapes}: {why}"
            ) from None
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != size:
            shape = f" of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else ""
            raise OfframpError(
                f"model.name: {type(network).__name__} gives a {type(logits).__name__}{shape} for "
                f"a batch of shape {shapes}, want logits (samples, classes) as one tensor; wrap it "
                "in a module that gives those"
            )


def _given_once(trace: Trace, name: str) -> Given:
    """What an exit's submodule gave in its only run."""
    gave = trace.gave[name]
    if not gave:
        raise refused(
            f"{name} does not run in inference mode (nothing calls it); name one that does"
        )
    if len(gave) > 1:
        raise refused(
            f"{name} runs {len(gave)} times in one pass, so it is no one place; name a submodule "
            "that runs once, before or after it"
        )
    return gave[0]


def _check_order(exits: Sequence[str], ends: Sequence[fx.Node], graph: fx.Graph) -> None:
    position = {node: i for i, node in enumerate(graph.nodes)}
    places = [position[node] for node in ends]
    for earlier, later in zip(range(len(exits)), range(1, len(exits)), strict=False):
        if places[earlier] == places[later]:
            raise refused(
                f"{exits[earlier]} and {exits[later]} end at the same place; name one of them"
            )
    order = sorted(range(len(exits)), key=places.__getitem__)
    if order != list(range(len(exits))):
        listed = ", ".join(exits[i] for i in order)
        raise refused(f"want the order in which they run: [{listed}]")


def _parts(graph: fx.Graph, ends: Sequence[fx.Node]) -> dict[fx.Node, int]:
    """To which block, from 0, each node belongs: by the order in which the network runs."""
    parts, k = {}, 0
    for node in graph.nodes:
        parts[node] = k
        k += node in ends
    return parts


def _blocks(
    whole: fx.GraphModule, parts: dict[fx.Node, int], outputs: Sequence[fx.Node]
) -> tuple[list[Block], list[int]]:
    """The blocks, and the place of each side exit's own output, one of ``outputs``, among its
    features."""
    cut = split_module(
        whole, whole, parts.__getitem__, keep_original_node_name=True, tuple_return=True
    )
    calls = [_node_called(cut, f"submod_{k}") for k in range(len(outputs) + 1)]
    last = cut.graph.output_node().args[0]
    before = [node for node in cut.graph.nodes if node.op == "placeholder"]
    names = {node: node.name for node in before}
    blocks, places = [], []
    for k, call in enumerate(calls):
        piece: Any = cut.get_submodule(call.target)
        results = sorted(call.users, key=lambda user: user.args[1])
        names |= dict(
            zip(results, [n.name for n in piece.graph.output_node().args[0]], strict=True)
        )
        later = {node for after in calls[k + 1 :] for node in after.args} | {last}
        have = [*before, *results]
        after = [node for node in have if node in later]
        takes = [n.name if n.op == "get_attr" else before.index(n) for n in call.args]
        blocks.append(Block(piece, takes, [have.index(node) for node in after]))
        for node in call.args:
            if node.op == "get_attr":
                _hold(blocks[-1], node, whole)
        if k < len(outputs):
            places.append([names[node] for node in after].index(outputs[k].name))
        before = after
    return blocks, places


def _node_called(cut: fx.GraphModule, name: str) -> Any:
    return next(node for node in cut.graph.nodes if node.target == name)


def _hold(block: Block, node: Any, whole: fx.GraphModule) -> None:
    inside = node.target.startswith("network.")
    place = node.target.removeprefix("network.") if inside else None
    block.hold(node.name, _attribute(whole, node.target), place)


def _attribute(module: nn.Module, place: str) -> Tensor:
    *outer, name = place.split(".")
    return getattr(module.get_submodule(".".join(outer)), name)


def _heads(
    blocks: Sequence[Block],
    places: Sequence[int],
    exits: Sequence[str],
    inputs: Sequence[Tensor],
    head: HeadMaker,
) -> list[nn.Module]:
    """A head for each side exit. On the way every block is made to leave its features as they are,
    and every head is seen to."""
    x, heads = _features(inputs), []
    for k, block in enumerate(blocks):
        block.changed = _changed(block, x)
        x = block(x)
        if k < len(exits):
            heads.append(head(x, places[k]).to(tensors_of(x)[0].device).eval())
            if _changed(heads[k], x):
                raise OfframpError(
                    f"model.head: the head after {exits[k]} changes the features in place, which "
                    "the next block needs as they are; take its inplace=True out"
                )
    return heads


def _changed(part: nn.Module, x: Features) -> list[int]:
    """The places of the features that a part changes in place, seen on copies of them."""
    copies = [t.clone() for t in tensors_of(x)]
    versions = [t._version for t in copies]
    part(_features(copies))
    return [i for i, t in enumerate(copies) if t._version != versions[i]]


def _check_same(cut: SplitNetwork, exits: Sequence[str], inputs: Sequence[Tensor]) -> None:
    """Raise OfframpError where the blocks don't give what the network gives, all samples together,
    or when one leaves after the first block."""
    trunk = cut.trunk
    uncut = trunk(*(t.clone() for t in inputs))
    for leaving, tolerance in ((0, TOLERANCE), (1, LOOSE)):
        x = _features(inputs)
        for k, block in enumerate(cut.blocks):
            x = block(x)
            if k == 0:
                x = take(x, slice(leaving, None))
        apart = (x - uncut[leaving:]).abs().max().item()
        if apart > tolerance * max(1.0, uncut.abs().max().item()):
            again = trunk(*(t.clone() for t in inputs))
            why = (
                "the network itself answers differently each time, in inference mode too"
                if not torch.equal(again, uncut)
                else "in-place operations on what crosses a cut, or numbers of samples that were "
                "made constant, could be why"
            )
            raise refused(
                f"cut after {', '.join(exits)}, the network's own logits differ by {apart:.3g} "
                f"from what they were ({'one sample left' if leaving else 'all samples'}); {why}; "
                "cut elsewhere"
            )


def _features(tensors: Sequence[Tensor]) -> Features:
    return tuple(tensors) if len(tensors) > 1 else tensors[0]
