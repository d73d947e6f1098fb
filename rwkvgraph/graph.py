"""A graph: the tape of operations and hook sites, and the edges that its order implies."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rwkvgraph.op import Buffer, Tensor, TensorOp, overlap
from rwkvgraph.show import fold_layers, op_lines
from rwkvgraph.view import Dim

if TYPE_CHECKING:
    import networkx as nx

    from rwkvgraph.hook import Site

Edge = tuple[int, int, str]
"""(earlier, later, why): positions among the operations; why is data, read after write, write after read or
write after write."""


@dataclass(frozen=True, eq=False)
class Graph:
    """Operations and hook sites in program order. `str` is the dump; `edges()` the networkx graph."""

    items: tuple[TensorOp | Site, ...]
    spliced: frozenset[int] = frozenset()
    """`id`s of the operations that hooks added."""

    @cached_property
    def ops(self) -> tuple[TensorOp, ...]:
        """The operations alone, in program order."""
        return tuple(item for item in self.items if isinstance(item, TensorOp))

    def sites(self) -> tuple[Site, ...]:
        """The hook sites, in program order."""
        return tuple(item for item in self.items if not isinstance(item, TensorOp))

    @cached_property
    def dependencies(self) -> tuple[Edge, ...]:
        """Every edge, in order of the later operation."""
        position = {id(op): index for index, op in enumerate(self.ops)}
        hazards = _Hazards()
        found: list[Edge] = []
        for index, op in enumerate(self.ops):
            for tensor in op.operands().values():
                if isinstance(tensor.source, TensorOp):
                    found.append((position[id(tensor.source)], index, "data"))
            found.extend(hazards.edges_of(index, op))
        return tuple(dict.fromkeys(found))

    @cached_property
    def last_rows(self) -> dict[TensorOp, frozenset[Dim]]:
        """The symbolic axes whose last row each operation needs, itself or through its operands.

        Where such an axis is empty (a run without output rows), the operation does not run.
        """
        found: dict[TensorOp, frozenset[Dim]] = {}
        for op in self.ops:
            dims: set[Dim] = set()
            for tensor in op.operands().values():
                dims |= {tensor.view.from_last} if tensor.view.from_last else set()
                dims |= found.get(tensor.source, set()) if isinstance(tensor.source, TensorOp) else set()
            found[op] = frozenset(dims)
        return found

    def signature(self) -> tuple[Any, ...]:
        """What tells this graph from others: equal where the same operations stand on the same memory.

        Two compilations of graphs with equal signatures give programs that do the same.
        """
        at: dict[object, object] = {op: index for index, op in enumerate(self.ops)}
        return tuple(
            (
                op.settings(),
                op.layer,
                *((at.get(tensor.source, tensor.source), tensor.view) for tensor in op.operands().values()),
            )
            for op in self.ops
        )

    def edges(self) -> nx.MultiDiGraph[int]:
        """The graph for networkx: a node an operation, by position, an edge a dependency with its `why`."""
        import networkx as nx  # 0.3 s to import, and only pictures and tests ask for it

        graph: nx.MultiDiGraph[int] = nx.MultiDiGraph()
        for index, op in enumerate(self.ops):
            graph.add_node(index, op=op, label=op.name, shape=str(op.shape), layer=op.layer)
        for earlier, later, why in self.dependencies:
            graph.add_edge(earlier, later, why=why)
        return graph

    def live(self, results: tuple[Tensor, ...] = ()) -> Graph:
        """Without the operations that neither write nor feed one that does, nor make one of `results`."""
        wanted = {id(tensor.source) for tensor in results}
        kept: list[Any] = []
        for item in reversed(self.items):
            if isinstance(item, TensorOp):
                if not item.updates() and id(item) not in wanted:
                    continue
                wanted |= {id(tensor.source) for tensor in item.operands().values()}
            kept.append(item)
        return Graph(tuple(reversed(kept)), self.spliced)

    def dot(self) -> str:
        """A picture for graphviz: operations as nodes, edges coloured by reason."""
        lines = ["digraph rwkvgraph {", '  node [shape=box, fontname="monospace"];']
        lines += [f'  n{index} [label="%{index} {op!r}"];' for index, op in enumerate(self.ops)]
        lines += [f'  n{a} -> n{b} [color="{_COLOURS[why]}"];' for a, b, why in self.dependencies]
        return "\n".join([*lines, "}"])

    def __str__(self) -> str:
        return self.text()

    def text(self, full: bool = False) -> str:
        """One line an operation, hook sites indented; equal layers folded unless `full`."""
        return fold_layers(op_lines(self.items, self.spliced), full)

    def __repr__(self) -> str:
        return f"Graph({len(self.ops)} ops, {len(self.sites())} sites)"


_COLOURS = {
    "data": "black",
    "read after write": "blue",
    "write after read": "red",
    "write after write": "purple",
}


class _Hazards:
    """Reads and writes of every buffer so far, to find what must stay in order."""

    def __init__(self) -> None:
        self._reads: dict[Buffer, list[tuple[int, Tensor]]] = defaultdict(list)
        self._writes: dict[Buffer, list[tuple[int, Tensor]]] = defaultdict(list)
        self._written: set[Buffer] = set()

    def edges_of(self, index: int, op: TensorOp) -> list[Edge]:
        updates = {id(tensor) for tensor in op.updates().values()}
        edges: list[Edge] = []
        for tensor in op.operands().values():
            if not isinstance(tensor.source, Buffer):
                continue
            if id(tensor) in updates:
                edges += self._against(self._writes, index, tensor, "write after write")
                edges += self._against(self._reads, index, tensor, "write after read")
            else:
                edges += self._against(self._writes, index, tensor, "read after write")
        for tensor in op.operands().values():
            if isinstance(tensor.source, Buffer):
                log = self._writes if id(tensor) in updates else self._reads
                log[tensor.source].append((index, tensor))
        return [edge for edge in edges if edge[0] != index]

    def _against(
        self, log: dict[Buffer, list[tuple[int, Tensor]]], index: int, tensor: Tensor, why: str
    ) -> list[Edge]:
        assert isinstance(tensor.source, Buffer)
        return [(at, index, why) for at, other in log[tensor.source] if overlap(other, tensor)]
