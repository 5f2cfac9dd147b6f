"""What crosses a cut in a traced network: tensors with the batch as first axis, nothing else.

Samples leave between blocks, so a number of samples, or whatever was made of it, is another one
behind a cut. What is no such tensor is made anew there: from the shapes, which are fixed but for
the batch, or from the network's own tensors.
"""

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from offramp import OfframpError

# What is known of each node: its value for a batch of either size, tensors without their values.
Facts = dict[fx.Node, tuple[Any, Any]]
# What tells of a tensor without looking at its values.
ATTRIBUTES = {"shape", "ndim", "dtype", "device", "itemsize", "is_cuda", "layout"}
SEVERAL = (tuple, list, dict)
METHODS = {"size", "dim", "ndimension", "numel", "nelement", "is_floating_point", "stride"}


def of_shapes(node: fx.Node, facts: Facts) -> bool:
    """Whether a value that is no tensor comes from shapes, not from a tensor's values."""
    if node.op == "call_function" and node.target is getattr and node.args[1] in ATTRIBUTES:
        return True
    if node.op == "call_method" and node.target in METHODS:
        return True
    inputs = node.all_input_nodes
    functions = node.op in ("call_function", "call_method") and bool(inputs)
    return functions and all(
        not isinstance(facts[n][0], Tensor) and of_shapes(n, facts) for n in inputs
    )


class _Unsettled(Exception):
    """The node that can't be made anew."""


class _Cuts:
    """A graph being prepared: state, since each mending looks at the ones before."""

    def __init__(
        self, graph: fx.Graph, parts: dict[fx.Node, int], facts: Facts, sizes: tuple[int, int]
    ):
        self.graph, self.parts, self.facts, self.sizes = graph, parts, facts, sizes
        self.own: list[fx.Node] = []
        self.made: dict[tuple[fx.Node, int], fx.Node] = {}
        self.items: dict[tuple[fx.Node, Any], fx.Node] = {}
        self.first: dict[int, fx.Node] = {}
        for node, k in parts.items():
            if node.op not in ("placeholder", "get_attr"):
                self.first.setdefault(k, node)

    def batch_first(self, node: fx.Node) -> bool:
        """Whether it is a tensor whose first axis is the batch."""
        a, b = self.facts[node]
        if not (isinstance(a, Tensor) and isinstance(b, Tensor) and a.ndim and b.ndim):
            return False
        return (len(a), len(b)) == self.sizes and a.shape[1:] == b.shape[1:]

    def in_part(self, node: fx.Node, k: int) -> Any:
        """What stands for a node's value in part k, which comes after its own."""
        if node.op == "get_attr":
            return node
        return self.made_anew(node, *self.facts[node], k)

    def made_anew(self, node: fx.Node, a: Any, b: Any, k: int) -> Any:
        """The same, of the value ``a``, ``b`` of the node."""
        if isinstance(a, Tensor):
            return node if self.batch_first(node) else self.copied(node, k)
        if isinstance(a, tuple | list) and type(a) is type(b) and len(a) == len(b):
            pairs = zip(a, b, strict=True)
            items = [self.made_anew(self.item(node, i), *ab, k) for i, ab in enumerate(pairs)]
            return type(a)(*items) if hasattr(a, "_fields") else tuple(items)
        if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
            return {key: self.made_anew(self.item(node, key), a[key], b[key], k) for key in a}
        return self.plain(node, a, b, k)

    def plain(self, node: fx.Node, a: Any, b: Any, k: int) -> Any:
        """A number, a device or the like, which shapes alone may decide."""
        if not of_shapes(node, self.facts):
            raise _Unsettled(node)
        if isinstance(a, torch.device):
            return self.new("call_function", getattr, (self.own[k - 1], "device"), k, a, b)
        if a == b and isinstance(a, int | float | str | None | torch.dtype):
            return a
        n, m = self.sizes
        if isinstance(a, int) and isinstance(b, int) and a * m == b * n and a % n == 0:
            rows = self.new("call_method", "size", (self.own[k - 1], 0), k, n, m)
            return self.new("call_function", operator.mul, (rows, a // n), k, a, b)
        raise _Unsettled(node)

    def copied(self, node: fx.Node, k: int) -> fx.Node:
        """A tensor that owes nothing to the samples, computed in part k again."""
        if node.op == "placeholder":
            raise _Unsettled(node)
        key = (node, k)
        if key not in self.made:
            again: dict[fx.Node, Any] = {}
            for n in node.all_input_nodes:
                again[n] = self.in_part(n, k)
                if isinstance(again[n], fx.Node) and self.batch_first(again[n]):
                    raise _Unsettled(node)
            args = fx.node.map_arg(node.args, again.__getitem__)
            kwargs = fx.node.map_arg(node.kwargs, again.__getitem__)
            self.made[key] = self.new(node.op, node.target, args, k, *self.facts[node], kwargs)
        return self.made[key]

    def item(self, node: fx.Node, key: Any) -> fx.Node:
        """An entry of what a node gives, taken out where it is given."""
        for user in node.users:
            if user.target is operator.getitem and user.args == (node, key):
                return user
        if (node, key) not in self.items:
            with self.graph.inserting_after(node):
                taken = self.graph.call_function(operator.getitem, (node, key))
            self.note(taken, self.parts[node], *(fact[key] for fact in self.facts[node]))
            self.items[node, key] = taken
        return self.items[node, key]

    def new(self, op, target, args, k: int, a: Any, b: Any, kwargs=None) -> fx.Node:
        """A node at the beginning of part k."""
        with self.graph.inserting_before(self.first[k]):
            node = self.graph.create_node(op, target, args, kwargs or {})
        return self.note(node, k, a, b)

    def note(self, node: fx.Node, k: int, a: Any, b: Any) -> fx.Node:
        self.parts[node], self.facts[node] = k, (a, b)
        return node


def settle_crossings(
    graph: fx.Graph,
    parts: dict[fx.Node, int],
    facts: Facts,
    gave: Sequence[Any],
    exits: Sequence[str],
    sizes: tuple[int, int],
) -> list[fx.Node]:
    """Change a graph so that only tensors whose first axis is the batch cross from part to part;
    return those that are the exits' own outputs.

    ``parts`` and ``facts`` are of every node, and are kept up; ``gave`` is what each of the
    ``exits`` gave; ``sizes`` are those of the batches behind the facts. Raises OfframpError that
    names a cut, and what crosses it and can be neither passed on nor made anew.
    """
    cuts = _Cuts(graph, parts, facts, sizes)
    for name, value in zip(exits, gave, strict=True):
        cuts.own.append(_own_output(cuts, name, value))
    for node in graph.nodes:
        # What takes an entry out of several goes where they are made.
        if node.target is operator.getitem and isinstance(
            facts[node.args[0]][0], tuple | list | dict
        ):
            parts[node] = parts[node.args[0]]
    for node in list(graph.nodes):
        k = parts[node]

        def settled(n: fx.Node, k: int = k) -> Any:
            return n if parts[n] == k else cuts.in_part(n, k)

        try:
            node.args = fx.node.map_arg(node.args, settled)
            node.kwargs = fx.node.map_arg(node.kwargs, settled)
        except _Unsettled as unsettled:
            source = unsettled.args[0]
            raise OfframpError(
                f"model.exits: {exits[parts[source]]}: {_told(source, facts, sizes)} crosses the "
                f"cut there ({_place(source)} makes it, {_place(node)} wants it); only tensors "
                "whose first axis is the batch can, since samples leave there; cut elsewhere"
            ) from None
    graph.eliminate_dead_code()
    _check_used(graph, parts, cuts.own, exits)
    return cuts.own


def _check_used(
    graph: fx.Graph, parts: dict[fx.Node, int], own: Sequence[fx.Node], exits: Sequence[str]
) -> None:
    final, alive = graph.output_node().args[0], set(graph.nodes)
    for k, (name, node) in enumerate(zip(exits, own, strict=True)):
        if node is final or not isinstance(final, fx.Node) or parts[final] <= k:
            raise OfframpError(
                f"model.exits: nothing runs after {name}: the network's own output is the last "
                "exit, without being named; leave it out"
            )
        if node not in alive or not any(parts[user] > k for user in node.users):
            raise OfframpError(
                f"model.exits: what {name} gives goes nowhere in inference mode; cut elsewhere"
            )


def _own_output(cuts: _Cuts, name: str, value: Any) -> fx.Node:
    """The first tensor that a named submodule gave."""
    while not isinstance(value, fx.Node) or not isinstance(cuts.facts[value][0], Tensor):
        entries = cuts.facts[value][0] if isinstance(value, fx.Node) else value
        if not isinstance(entries, SEVERAL) or not entries:
            kind = type(entries).__name__
            raise OfframpError(f"model.exits: {name} gives no tensor but {kind}; cut elsewhere")
        key = next(iter(entries)) if isinstance(entries, dict) else 0
        value = cuts.item(value, key) if isinstance(value, fx.Node) else value[key]
    if not cuts.batch_first(value):
        shape = _told(value, cuts.facts, cuts.sizes)
        raise OfframpError(
            f"model.exits: {name} gives {shape}; the first axis of an exit's features has to be "
            "the batch; cut elsewhere"
        )
    return value


def _told(node: fx.Node, facts: Facts, sizes: tuple[int, int]) -> str:
    """What a node gives, in words."""
    a, b = facts[node]
    if not isinstance(a, Tensor):
        return f"a value of type {type(a).__name__}"
    axes = [
        str(x) if x == y else "N" if (x, y) == sizes else f"{x} or {y}"
        for x, y in zip(a.shape, b.shape, strict=False)
    ]
    return f"a tensor of shape ({', '.join(axes)})"


def _place(node: fx.Node) -> str:
    """Where a node comes from, by the network's own names."""
    if node.op == "call_module":
        return str(node.target).removeprefix("network.")
    what = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "?")
    stack = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    inside = (stack[-1] if stack else "").removeprefix("network").lstrip(".")
    return f"{what} in {inside or 'the network itself'}"
