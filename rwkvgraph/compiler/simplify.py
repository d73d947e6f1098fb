"""Rewrites of operations that leave the meaning alone: a list of small functions, run to a fixed point."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rwkvgraph.graph import Graph
from rwkvgraph.op import Tensor, TensorOp, in_layer, replace_operands, tape
from rwkvgraph.ops.elementwise import Affine, Identity, affine

Rule = Callable[[TensorOp], Tensor | None]


def drop_identity(op: TensorOp) -> Tensor | None:
    """identity(x) -> x, where x is a whole result"""
    match op:
        case Identity(x=Tensor(source=TensorOp()) as x) if x.is_whole:
            return x
    return None


def affine_of_affine(op: TensorOp) -> Tensor | None:
    """affine(affine(x, a, b), c, d) -> affine(x, a * c, b * c + d), x a result: buffers change between"""
    match op:
        case Affine(x=Tensor(source=Affine(x=Tensor(source=TensorOp())) as inner)) if op.x.is_whole:
            return affine(inner.x, inner.scale * op.scale, inner.shift * op.scale + op.shift)
    return None


def drop_affine(op: TensorOp) -> Tensor | None:
    """affine(x, 1, 0) -> x, where x is a whole result"""
    match op:
        case Affine(x=Tensor(source=TensorOp()) as x, scale=1.0, shift=0.0) if x.is_whole:
            return x
    return None


RULES: tuple[Rule, ...] = (drop_identity, drop_affine, affine_of_affine)


@dataclass(frozen=True)
class Simplified:
    """A graph, and how often each rule fired."""

    graph: Graph
    fired: tuple[tuple[str, int], ...]

    def __repr__(self) -> str:
        return f"Simplified({self.graph!r})"

    def __str__(self) -> str:
        footer = ", ".join(f"{name} ×{count}" for name, count in self.fired) or "no rule fired"
        return f"{self.graph}\n\n{footer}"


def simplify(graph: Graph) -> Simplified:
    """Apply the rules until none fires, and drop operations that nothing needs.

    An operation that was folded into another stays where its own result is needed too.
    """
    fired: Counter[str] = Counter()
    while True:
        graph, count = _rewrite(graph, fired)
        live = graph.live()
        fired["dead"] += len(graph.ops) - len(live.ops)
        graph = live
        if not count:
            return Simplified(graph, tuple((name, count) for name, count in fired.items() if count))


def _rewrite(graph: Graph, fired: Counter[str]) -> tuple[Graph, int]:
    now: dict[int, Tensor] = {}
    count = 0

    def current(tensor: Tensor) -> Tensor:
        new = now.get(id(tensor.source))
        return Tensor(new.source, tensor.view, tensor.dtype) if new is not None else tensor

    with tape() as items:
        for op in graph.ops:
            new = replace_operands(op, current)
            by, result = _apply(new)
            if result is not None:
                fired[by] += 1
                count += 1
                now[id(op)] = result
            elif new is not op:
                now[id(op)] = new.result
    return Graph(tuple(items), _still_spliced(graph, items, now)), count


def _apply(op: TensorOp) -> tuple[str, Tensor | None]:
    """(name of the first rule that fires, what it makes of the operation), built where the operation was."""
    for rule in RULES:
        with in_layer(op.layer):
            result = rule(op)
        if result is not None:
            if isinstance(result.source, TensorOp) and result.source is not op.operands()["x"].source:
                object.__setattr__(result.source, "where", op.where)
            return rule.__name__.replace("_", "-"), result
    return "", None


def _still_spliced(graph: Graph, items: Sequence[TensorOp], now: Mapping[int, Tensor]) -> frozenset[int]:
    """The operations of the new tape that hooks added, or that took the place of one that they did."""
    wanted = set(graph.spliced) | {id(now[old].source) for old in graph.spliced if old in now}
    return frozenset(id(op) for op in items if id(op) in wanted)
