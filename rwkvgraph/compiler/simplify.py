"""Rewrites of operations that leave the meaning alone: a list of small functions, run to a fixed point."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from rwkvgraph.graph import Graph
from rwkvgraph.op import Tensor, TensorOp, replace_operands, tape
from rwkvgraph.ops.elementwise import Affine, Identity, affine

Rule = Callable[[TensorOp], Tensor | None]


def drop_identity(op: TensorOp) -> Tensor | None:
    """identity(x) -> x, where x is a whole result"""
    match op:
        case Identity(x=Tensor(source=TensorOp()) as x) if x.is_whole:
            return x
    return None


def affine_of_affine(op: TensorOp) -> Tensor | None:
    """affine(affine(x, a, b), c, d) -> affine(x, a * c, b * c + d), where x is a result: buffers may change between"""
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

    spliced = set(graph.spliced)
    with tape() as items:
        for op in graph.ops:
            new = replace_operands(op, current)
            for rule in RULES:
                result = rule(new)
                if result is not None:
                    fired[rule.__name__.replace("_", "-")] += 1
                    count += 1
                    now[id(op)] = result
                    break
            else:
                if new is not op:
                    now[id(op)] = new.result
            if id(op) in spliced:
                spliced.add(id(new))
    return Graph(tuple(items), frozenset(spliced)), count
