"""Somebody's network as a graph: traced by torch.fx, with what each exit gave and what every node
gives for batches of two sizes, which shows what depends on the number of samples."""

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from offramp import OfframpError
from offramp.networks.features import Features, take

# Of how many samples the two batches are.
SIZES = (3, 2)
# What tells of a tensor without looking at its values.
ATTRIBUTES = {"shape", "ndim", "dtype", "device", "itemsize", "is_cuda", "layout"}
METHODS = {"size", "dim", "ndimension", "numel", "nelement", "is_floating_point", "stride"}


class Values(NamedTuple):
    """What a node gives for the larger and the smaller batch; tensors without their values."""

    larger: Any
    smaller: Any

    def entry(self, key: Any) -> "Values":
        """The same of an entry, where a node gives several."""
        return Values(self.larger[key], self.smaller[key])


# What is known of each node.
Facts = dict[fx.Node, Values]


class Given(NamedTuple):
    """What a named submodule gave: a ``value`` of nodes, complete after the node ``end``."""

    end: fx.Node
    value: Any


class Trace(NamedTuple):
    """A network's ``graph``, with a placeholder per input, the ``root`` of the tensors and modules
    in it, and what each exit gave, as often as it ran."""

    root: nn.Module
    graph: fx.Graph
    gave: dict[str, list[Given]]


def refused(reason: str) -> OfframpError:
    """That a network can't be cut so."""
    return OfframpError(f"model.exits: {reason}")


def traced(network: nn.Module, exits: Sequence[str], inputs: Sequence[Tensor]) -> Trace:
    """The network's trace, in which only modules that an exit lies in are looked into.

    Raises OfframpError that names the line which can't be traced.
    """
    decisions: list[bool] = []
    while True:
        tracer = _Tracer(exits, decisions)
        try:
            graph = tracer.trace(_Whole(network, len(inputs)))
            break
        # Whatever code of others makes of fx's stand-ins for tensors.
        except Exception as error:
            decision = _by_shapes(tracer, inputs) if isinstance(error, _Undecided) else None
            if decision is None:
                raise refused(_not_traceable(error)) from None
            decisions.append(decision)
    _take_apart(graph, len(inputs))
    return Trace(tracer.root, graph, tracer.gave)


def facts_of(whole: fx.GraphModule, inputs: Sequence[Features]) -> Facts:
    """What each node gives for the last samples of the inputs, as many as each of the SIZES."""
    larger, smaller = _Noting(whole), _Noting(whole)
    with torch.no_grad():
        for run, size in zip((larger, smaller), SIZES, strict=True):
            run.run(*(take(x, torch.arange(-size, 0)) for x in inputs))  # copies
    return {node: Values(value, smaller.noted[node]) for node, value in larger.noted.items()}


def of_shapes(node: fx.Node, facts: Facts) -> bool:
    """Whether a value that is no tensor comes from shapes, not from a tensor's values."""
    if node.op == "call_function" and node.target is getattr and node.args[1] in ATTRIBUTES:
        return True
    if node.op == "call_method" and node.target in METHODS:
        return True
    sources = node.all_input_nodes
    computed = node.op in ("call_function", "call_method") and bool(sources)
    return computed and all(
        not isinstance(facts[source].larger, Tensor) and of_shapes(source, facts)
        for source in sources
    )


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
    gave. ``decisions`` are the answers to the first decisions in its way."""

    def __init__(self, exits: Sequence[str], decisions: Sequence[bool]):
        super().__init__()
        self.decisions = iter(decisions)
        self.paths = {f"network.{name}" for name in exits}
        self.gave: dict[str, list[Given]] = {name: [] for name in exits}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether no exit lies inside."""
        return not any(path.startswith(f"{module_qualified_name}.") for path in self.paths)

    def call_module(self, m, forward, args, kwargs):
        """As fx does, with a note of what a named submodule gave."""
        value = super().call_module(m, forward, args, kwargs)
        for name in self.gave:
            if self.root.get_submodule(f"network.{name}") is m:
                end = next(iter(reversed(self.graph.nodes)))
                self.gave[name].append(Given(end, self.create_arg(value)))
        return value

    def to_bool(self, obj: fx.Proxy) -> bool:
        """The next of the decisions; without one, an end to the tracing."""
        decision = next(self.decisions, None)
        if decision is None:
            self.undecided = obj.node
            raise _Undecided("it decides by what it is given")
        return decision


class _Undecided(Exception):
    """A decision met in tracing, which only a run can answer."""


def _by_shapes(tracer: _Tracer, inputs: Sequence[Tensor]) -> bool | None:
    """What was undecided last, if shapes alone decide it, alike for every number of samples."""
    graph, node = tracer.graph, tracer.undecided
    graph.output(node)
    facts = facts_of(fx.GraphModule(tracer.root, graph), [tuple(inputs)])
    larger, smaller = facts[node]
    settled = of_shapes(node, facts) and isinstance(larger, bool) and larger == smaller
    return larger if settled else None


def _not_traceable(error: Exception) -> str:
    """The line that raised it, and the way out."""
    ours = {Path(fx.__file__).parent, Path(__file__).parent}
    frames = traceback.extract_tb(error.__traceback__)
    line = [frame for frame in frames if Path(frame.filename).parent not in ours][-1]
    why = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return (
        f"{line.filename}:{line.lineno}: `{line.line}` can't be traced ({why}); name only "
        f"submodules that lie outside of what `{line.name}` runs there, or write that line "
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


class _Noting(fx.Interpreter):
    """Runs a graph and notes what each node gives."""

    def __init__(self, whole: fx.GraphModule):
        super().__init__(whole)
        self.noted: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.noted[n] = fx.node.map_aggregate(
            value, lambda v: v.to("meta") if isinstance(v, Tensor) else v
        )
        return value
