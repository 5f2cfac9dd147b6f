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

from offramp.networks.own.tracing import SIZES, Facts, Values, of_shapes, refused

SEVERAL = (tuple, list, dict)


class _Unsettled(Exception):
    """The node that can't be made anew."""


class _Cuts:
    """A graph being prepared: state, since each mending looks at the ones before."""

    def __init__(self, graph: fx.Graph, parts: dict[fx.Node, int], facts: Facts):
        self.graph, self.parts, self.facts = graph, parts, facts
        # The exits' own outputs, in order.
        self.outputs: list[fx.Node] = []
        # What was computed again, by node and part, and taken out, by node and key.
        self.copies: dict[tuple[fx.Node, int], fx.Node] = {}
        self.items: dict[tuple[fx.Node, Any], fx.Node] = {}
        # Which node each part begins with.
        self.begins: dict[int, fx.Node] = {}
        for node, k in parts.items():
            if node.op not in ("placeholder", "get_attr"):
                self.begins.setdefault(k, node)

    def batch_first(self, node: fx.Node) -> bool:
        """Whether it is a tensor whose first axis is the batch."""
        larger, smaller = self.facts[node]
        if not all(isinstance(value, Tensor) and value.ndim for value in (larger, smaller)):
            return False
        return (len(larger), len(smaller)) == SIZES and larger.shape[1:] == smaller.shape[1:]

    def in_part(self, node: fx.Node, k: int) -> Any:
        """What stands for a node's value in part k, which comes after its own."""
        if node.op == "get_attr":
            return node
        return self.made_anew(node, self.facts[node], k)

    def made_anew(self, node: fx.Node, values: Values, k: int) -> Any:
        """The same, of these ``values`` of the node."""
        larger, smaller = values
        if isinstance(larger, Tensor):
            return node if self.batch_first(node) else self.copied(node, k)
        alike = type(larger) is type(smaller)
        if alike and isinstance(larger, tuple | list) and len(larger) == len(smaller):
            items = [self.item_anew(node, values, i, k) for i in range(len(larger))]
            return type(larger)(*items) if hasattr(larger, "_fields") else tuple(items)
        if alike and isinstance(larger, dict) and larger.keys() == smaller.keys():
            return {key: self.item_anew(node, values, key, k) for key in larger}
        return self.plain(node, values, k)

    def item_anew(self, node: fx.Node, values: Values, key: Any, k: int) -> Any:
        """The same, of an entry of what the node gives."""
        return self.made_anew(self.item(node, key), values.entry(key), k)

    def plain(self, node: fx.Node, values: Values, k: int) -> Any:
        """A number, a device or the like, which shapes alone may decide."""
        larger, smaller = values
        if not of_shapes(node, self.facts):
            raise _Unsettled(node)
        if isinstance(larger, torch.device):
            return self.new("call_function", getattr, (self.outputs[k - 1], "device"), k, values)
        if larger == smaller and isinstance(larger, int | float | str | None | torch.dtype):
            return larger
        n, m = SIZES
        numbers = isinstance(larger, int) and isinstance(smaller, int)
        if numbers and larger * m == smaller * n and larger % n == 0:  # a multiple of the batch
            size = self.new("call_method", "size", (self.outputs[k - 1], 0), k, Values(n, m))
            return self.new("call_function", operator.mul, (size, larger // n), k, values)
        raise _Unsettled(node)

    def copied(self, node: fx.Node, k: int) -> fx.Node:
        """A tensor that owes nothing to the samples, computed in part k again."""
        if node.op == "placeholder":
            raise _Unsettled(node)
        key = (node, k)
        if key not in self.copies:
            again: dict[fx.Node, Any] = {}
            for source in node.all_input_nodes:
                again[source] = self.in_part(source, k)
                if isinstance(again[source], fx.Node) and self.batch_first(again[source]):
                    raise _Unsettled(node)
            args = fx.node.map_arg(node.args, again.__getitem__)
            kwargs = fx.node.map_arg(node.kwargs, again.__getitem__)
            self.copies[key] = self.new(node.op, node.target, args, k, self.facts[node], kwargs)
        return self.copies[key]

    def item(self, node: fx.Node, key: Any) -> fx.Node:
        """An entry of what a node gives, taken out where it is given."""
        for user in node.users:
            if user.target is operator.getitem and user.args == (node, key):
                return user
        if (node, key) not in self.items:
            with self.graph.inserting_after(node):
                item = self.graph.call_function(operator.getitem, (node, key))
            self.items[node, key] = self.note(item, self.parts[node], self.facts[node].entry(key))
        return self.items[node, key]

    def new(self, op, target, args, k: int, values: Values, kwargs=None) -> fx.Node:
        """A node at the beginning of part k."""
        with self.graph.inserting_before(self.begins[k]):
            node = self.graph.create_node(op, target, args, kwargs or {})
        return self.note(node, k, values)

    def note(self, node: fx.Node, k: int, values: Values) -> fx.Node:
        """The node, with what is known of it."""
        self.parts[node], self.facts[node] = k, values
        return node


def settle_crossings(
    graph: fx.Graph,
    parts: dict[fx.Node, int],
    facts: Facts,
    gave: Sequence[Any],
    exits: Sequence[str],
) -> list[fx.Node]:
    """Change a graph so that only tensors whose first axis is the batch cross from part to part;
    return those that are the exits' own outputs.

    ``parts`` and ``facts`` are of every node, and are kept up; ``gave`` is what each of the
    ``exits`` gave. Raises OfframpError that names a cut, and what crosses it and can be neither
    passed on nor made anew.
    """
    cuts = _Cuts(graph, parts, facts)
    for name, value in zip(exits, gave, strict=True):
        cuts.outputs.append(_own_output(cuts, name, value))
    for node in graph.nodes:
        # What takes an entry out of several goes where they are made.
        if node.target is operator.getitem and isinstance(facts[node.args[0]].larger, SEVERAL):
            parts[node] = parts[node.args[0]]
    for node in list(graph.nodes):
        k = parts[node]

        def settled(source: fx.Node, k: int = k) -> Any:
            return source if parts[source] == k else cuts.in_part(source, k)

        try:
            node.args = fx.node.map_arg(node.args, settled)
            node.kwargs = fx.node.map_arg(node.kwargs, settled)
        except _Unsettled as unsettled:
            source = unsettled.args[0]
            raise refused(
                f"{exits[parts[source]]}: {_in_words(facts[source])} crosses the cut there "
                f"({_origin(source)} makes it, {_origin(node)} wants it); only tensors whose "
                "first axis is the batch can, since samples leave there; cut elsewhere"
            ) from None
    graph.eliminate_dead_code()
    _check_used(graph, parts, cuts.outputs, exits)
    return cuts.outputs


def _check_used(
    graph: fx.Graph, parts: dict[fx.Node, int], outputs: Sequence[fx.Node], exits: Sequence[str]
) -> None:
    final, alive = graph.output_node().args[0], set(graph.nodes)
    for k, (name, node) in enumerate(zip(exits, outputs, strict=True)):
        if node is final or not isinstance(final, fx.Node) or parts[final] <= k:
            raise refused(
                f"nothing runs after {name}: the network's own output is the last exit, without "
                "being named; leave it out"
            )
        if node not in alive or not any(parts[user] > k for user in node.users):
            raise refused(f"what {name} gives goes nowhere in inference mode; cut elsewhere")


def _own_output(cuts: _Cuts, name: str, value: Any) -> fx.Node:
    """The first tensor that a named submodule gave."""
    while not isinstance(value, fx.Node) or not isinstance(cuts.facts[value].larger, Tensor):
        entries = cuts.facts[value].larger if isinstance(value, fx.Node) else value
        if not isinstance(entries, SEVERAL) or not entries:
            raise refused(f"{name} gives no tensor but {type(entries).__name__}; cut elsewhere")
        key = next(iter(entries)) if isinstance(entries, dict) else 0
        value = cuts.item(value, key) if isinstance(value, fx.Node) else value[key]
    if not cuts.batch_first(value):
        raise refused(
            f"{name} gives {_in_words(cuts.facts[value])}; the first axis of an exit's features "
            "has to be the batch; cut elsewhere"
        )
    return value


def _in_words(values: Values) -> str:
    """What a node gives, in words."""
    larger, smaller = values
    if not isinstance(larger, Tensor):
        return f"a value of type {type(larger).__name__}"
    axes = [
        str(n) if n == m else "N" if (n, m) == SIZES else f"{n} or {m}"
        for n, m in zip(larger.shape, smaller.shape, strict=False)
    ]
    return f"a tensor of shape ({', '.join(axes)})"


def _origin(node: fx.Node) -> str:
    """Where a node comes from, by the network's own names."""
    if node.op == "call_module":
        return str(node.target).removeprefix("network.")
    what = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "?")
    stack = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    inside = (stack[-1] if stack else "").removeprefix("network").lstrip(".")
    return f"{what} in {inside or 'the network itself'}"
