"""Exits on somebody's network: any torch module, cut after named submodules into blocks.

torch.fx traces it and takes it apart. What is here says where, what crosses each cut (only tensors
whose first axis is the batch may, since samples leave there), and proves that nothing else changed.
"""

import difflib
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.split_module import split_module

from offramp import OfframpError
from offramp.networks.features import Features, take, tensors_of
from offramp.networks.multiexit import MultiExitNetwork, OwnNetwork
from offramp.networks.own.crossings import Facts, of_shapes, settle_crossings

# Makes the head of an exit of the features there, which may be several, and the place of the named
# submodule's own output among them.
HeadMaker = Callable[[Features, int], nn.Module]
# Of how many samples the batches are that show what depends on their number.
SIZES = (3, 2)
TOLERANCE = 1e-5
# Convolutions of batches of another size may sum in another order.
LOOSE = 1e-3


class SplitNetwork(OwnNetwork):
    """Someone's network cut into blocks, with heads on its side exits; its own output is the final
    exit. Its weights are ``trunk.`` and the network's own names, and ``exits.`` and a number."""

    def __init__(self, trunk: nn.Module, blocks: Sequence["Block"], heads: Sequence[nn.Module]):
        MultiExitNetwork.__init__(self)
        self.made = nn.ModuleDict({"trunk": trunk, "exits": nn.ModuleList(heads)})
        # In tuples, so that the state dict holds every layer once.
        self.blocks = self.pieces = tuple(blocks)
        # The last block gives logits: the trunk is timed as it is, whatever its last layers are.
        self.heads = (*heads, nn.Identity())

    @property
    def trunk(self) -> nn.Module:
        """The network as it was."""
        return self.made.get_submodule("trunk")

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
        made = self.piece(
            *[getattr(self, name) if isinstance(name, str) else before[name] for name in self.takes]
        )
        after = tuple((*before, *made)[place] for place in self.gives)
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
    some = torch.arange(SIZES[0]) % len(tensors_of(example)[0])
    inputs = [x[some] for x in tensors_of(example)]
    _check_names(network, exits)
    _check_runs(network, inputs)
    tracer, graph = _traced(network, exits, inputs)
    ends = [_end(tracer, name) for name in exits]
    _check_order(exits, ends, graph)
    parts = _parts(graph, [place for place, _ in ends])
    whole = fx.GraphModule(tracer.root, graph)
    facts = _facts(whole, inputs)
    own = settle_crossings(graph, parts, facts, [value for _, value in ends], exits, SIZES)
    whole.recompile()
    blocks, places = _blocks(whole, parts, own)
    with torch.no_grad():
        heads = _heads(blocks, places, exits, inputs, head)
        made = SplitNetwork(network, blocks, heads).eval()
        _check_same(made, exits, inputs)
    return made


class _Whole(nn.Module):
    """A network as the only child of a root, so that it is called with its own defaults, and its
    tensors have a path each."""

    def __init__(self, network: nn.Module, inputs: int):
        super().__init__()
        self.network, self.inputs = network, inputs

    def forward(self, x):
        return self.network(*(x[i] for i in range(self.inputs)))


class _Tracer(fx.Tracer):
    """fx's tracer, which looks only into modules that an exit lies in, and notes what each exit
    gave: after which node, and as what. ``answers`` are those to the first decisions in its way."""

    def __init__(self, exits: Sequence[str], answers: Sequence[bool]):
        super().__init__()
        self.answers = iter(answers)
        self.names = {f"network.{name}" for name in exits}
        self.gave: dict[str, list[tuple[fx.Node, Any]]] = {name: [] for name in exits}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether no exit lies inside."""
        return not any(name.startswith(f"{module_qualified_name}.") for name in self.names)

    def call_module(self, m, forward, args, kwargs):
        """As fx does, with a note of what a named submodule gave."""
        value = super().call_module(m, forward, args, kwargs)
        for name in self.gave:
            if self.root.get_submodule(f"network.{name}") is m:
                last = next(iter(reversed(self.graph.nodes)))
                self.gave[name].append((last, self.create_arg(value)))
        return value

    def to_bool(self, obj: fx.Proxy) -> bool:
        """The next of the answers; without one, an end to the tracing."""
        for answer in self.answers:
            return answer
        self.asked = obj.node
        raise _Undecided("it decides by what it is given")


class _Undecided(Exception):
    """A decision met in tracing, which only a run can answer."""


def _check_names(network: nn.Module, exits: Sequence[str]) -> None:
    known = [name for name, _ in network.named_modules(remove_duplicate=False) if name]
    for name in exits:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            top = ", ".join(child for child, _ in network.named_children())
            hint = f"did you mean {near[0]}?" if near else f"it has {top or 'none'}"
            raise _refused(f"{name} is no submodule of {type(network).__name__}; {hint}")


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


def _traced(
    network: nn.Module, exits: Sequence[str], inputs: Sequence[Tensor]
) -> tuple[_Tracer, fx.Graph]:
    """The network's graph, with a placeholder per input, and what traced it."""
    answers: list[bool] = []
    while True:
        tracer = _Tracer(exits, answers)
        try:
            graph = tracer.trace(_Whole(network, len(inputs)))
            break
        # Whatever code of others makes of fx's stand-ins for tensors.
        except Exception as error:
            answer = _by_shapes(tracer, inputs) if isinstance(error, _Undecided) else None
            if answer is None:
                raise _refused(_where(error)) from None
            answers.append(answer)
    _take_apart(graph, len(inputs))
    return tracer, graph


def _by_shapes(tracer: _Tracer, inputs: Sequence[Tensor]) -> bool | None:
    """What was asked last, if shapes alone decide it, alike for every number of samples."""
    graph, asked = tracer.graph, tracer.asked
    graph.output(asked)
    facts = _facts(fx.GraphModule(tracer.root, graph), [tuple(inputs)])
    first, second = facts[asked]
    settled = of_shapes(asked, facts) and isinstance(first, bool) and first == second
    return first if settled else None


def _where(error: Exception) -> str:
    ours = {Path(fx.__file__).parent, Path(__file__).parent}
    frames = traceback.extract_tb(error.__traceback__)
    place = [frame for frame in frames if Path(frame.filename).parent not in ours][-1]
    why = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return (
        f"{place.filename}:{place.lineno}: `{place.line}` can't be traced ({why}); name only "
        f"submodules that lie outside of what `{place.name}` runs there, or write that line "
        "without a decision that depends on its input"
    )


def _take_apart(graph: fx.Graph, inputs: int) -> None:
    """Give a graph, which takes all inputs as one tuple, a placeholder for each."""
    [joined] = [node for node in graph.nodes if node.op == "placeholder"]
    with graph.inserting_after(joined):
        single = [graph.placeholder(f"input_{i}") for i in reversed(range(inputs))][::-1]
    for node in list(joined.users):
        node.replace_all_uses_with(single[node.args[1]])
        graph.erase_node(node)
    graph.erase_node(joined)


def _end(tracer: _Tracer, name: str) -> tuple[fx.Node, Any]:
    """After which node an exit lies, and what its submodule gave."""
    gave = tracer.gave[name]
    if not gave:
        raise _refused(
            f"{name} does not run in inference mode (nothing calls it); name one that does"
        )
    if len(gave) > 1:
        raise _refused(
            f"{name} runs {len(gave)} times in one pass, so it is no one place; name a submodule "
            "that runs once, before or after it"
        )
    return gave[0]


def _check_order(exits: Sequence[str], ends: Sequence[tuple[fx.Node, Any]], graph: fx.Graph):
    position = {node: i for i, node in enumerate(graph.nodes)}
    places = [position[node] for node, _ in ends]
    for earlier, later in zip(range(len(exits)), range(1, len(exits)), strict=False):
        if places[earlier] == places[later]:
            raise _refused(
                f"{exits[earlier]} and {exits[later]} end at the same place; name one of them"
            )
    order = sorted(range(len(exits)), key=places.__getitem__)
    if order != list(range(len(exits))):
        listed = ", ".join(exits[i] for i in order)
        raise _refused(f"want the order in which they run: [{listed}]")


def _parts(graph: fx.Graph, ends: Sequence[fx.Node]) -> dict[fx.Node, int]:
    """To which block, from 0, each node belongs: by the order in which the network runs."""
    parts, k = {}, 0
    for node in graph.nodes:
        parts[node] = k
        k += node in ends
    return parts


def _facts(whole: fx.GraphModule, inputs: Sequence[Features]) -> Facts:
    """What each node gives for a batch of each of the SIZES, tensors without their values."""
    runs = [_Noting(whole), _Noting(whole)]
    with torch.no_grad():
        for run, size in zip(runs, SIZES, strict=True):
            run.run(*(_last(x, size) for x in inputs))
    return {node: (runs[0].noted[node], runs[1].noted[node]) for node in runs[0].noted}


def _last(x: Features, samples: int) -> Features:
    """A copy of the last few samples."""
    return take(x, torch.arange(-samples, 0))


class _Noting(fx.Interpreter):
    def __init__(self, whole: fx.GraphModule):
        super().__init__(whole)
        self.noted: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.noted[n] = fx.node.map_aggregate(
            value, lambda v: v.to("meta") if isinstance(v, Tensor) else v
        )
        return value


def _blocks(
    whole: fx.GraphModule, parts: dict[fx.Node, int], own: Sequence[fx.Node]
) -> tuple[list[Block], list[int]]:
    """The blocks, and the place of each side exit's own output among its features."""
    made = split_module(
        whole, whole, parts.__getitem__, keep_original_node_name=True, tuple_return=True
    )
    calls = [_call(made, f"submod_{k}") for k in range(len(own) + 1)]
    last = made.graph.output_node().args[0]
    before = [node for node in made.graph.nodes if node.op == "placeholder"]
    names = {node: node.name for node in before}
    blocks, places = [], []
    for k, call in enumerate(calls):
        piece: Any = made.get_submodule(call.target)
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
        if k < len(own):
            places.append([names[node] for node in after].index(own[k].name))
        before = after
    return blocks, places


def _call(made: fx.GraphModule, name: str) -> Any:
    return next(node for node in made.graph.nodes if node.target == name)


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


def _check_same(made: SplitNetwork, exits: Sequence[str], inputs: Sequence[Tensor]) -> None:
    """Raise OfframpError where the blocks don't give what the network gives, all samples together,
    or when one leaves after the first block."""
    trunk = made.trunk
    want = trunk(*(t.clone() for t in inputs))
    for leaving, tolerance in ((0, TOLERANCE), (1, LOOSE)):
        x = _features(inputs)
        for k, block in enumerate(made.blocks):
            x = block(x)
            if k == 0:
                x = take(x, slice(leaving, None))
        apart = (x - want[leaving:]).abs().max().item()
        if apart > tolerance * max(1.0, want.abs().max().item()):
            again = trunk(*(t.clone() for t in inputs))
            why = (
                "the network itself answers differently each time, in inference mode too"
                if not torch.equal(again, want)
                else "in-place operations on what crosses a cut, or numbers of samples that were "
                "made constant, could be why"
            )
            raise _refused(
                f"cut after {', '.join(exits)}, the network's own logits differ by {apart:.3g} "
                f"from what they were ({'one sample left' if leaving else 'all samples'}); {why}; "
                "cut elsewhere"
            )


def _features(tensors: Sequence[Tensor]) -> Features:
    return tuple(tensors) if len(tensors) > 1 else tensors[0]


def _refused(what: str) -> OfframpError:
    return OfframpError(f"model.exits: {what}")
