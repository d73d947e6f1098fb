"""What a model asks of whatever runs it, and the engine that is numpy.

The engine of devices is in gpu/engine.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from rwkvgraph.compiler import simplify
from rwkvgraph.compiler.target import Target
from rwkvgraph.graph import Graph
from rwkvgraph.interpret import Host, HostMemory, interpret, see
from rwkvgraph.op import Array, Buffer, Role
from rwkvgraph.view import Sizes, View, resolve, row_width, split_rows

SlotMemory = Any
"""The contents of a state's buffer, by slot: whatever the engine that made it has."""


class Compiled(Protocol):
    """A graph with its hooks, ready to run."""

    most_tokens: int
    most_outputs: int

    def run(self, inputs: Mapping[Buffer, Array], sizes: Sizes, owner: Any, state: Any) -> Array | None:
        """Run once; gives the output's rows, or None where there are none.

        Inputs that are not given hold anything. `owner`: what the memory of the state belongs to.
        """

    def fetch(self, buffer: Buffer, rows: int) -> Array:
        """The first rows of another output after a run."""


class Engine(Protocol):
    """Holds a model's weights and runs compiled graphs."""

    target: Target
    most_bytes: int
    """Most bytes of a buffer that kernels can reach."""

    def load(self, buffer: Buffer, pieces: Iterator[tuple[int, Array]]) -> None:
        """Fill a weight buffer from (first element, elements) pieces."""

    def state_memories(self, buffers: Sequence[Buffer], sizes: Sizes) -> Mapping[Buffer, SlotMemory]:
        """Memory for the parts of a state, zeroed."""

    def read_slot(self, memories: Sequence[Any], slot: int) -> Array:
        """A slot in each of these memories, one after another, flat."""

    def write_slot(self, memories: Sequence[Any], slot: int, values: Array) -> None:
        """Replace a slot in each of these memories by its part of `values`, which `read_slot` would give."""

    def fill_slots(self, memories: Sequence[Any], values: Array) -> None:
        """As `write_slot`, every slot."""

    def copy_slot(self, source: Sequence[Any], slot: int, target: Sequence[Any], to: Sequence[int]) -> None:
        """Copy a slot of some memories to slots of memories of the same shapes, without the host."""

    def make_reachable(self, graph: Graph) -> bool:
        """Make ready for a graph that writes weights, or reads matrices by other operations than products.

        Gives whether programs have to be compiled anew.
        """

    def compile(self, graph: Graph, spliced: Graph, output: Buffer) -> Compiled:
        """Lower a graph, whose hooks have run (`spliced`), and make it ready to run."""


class HostSlots:
    """Memory of a state on numpy."""

    def __init__(self, buffer: Buffer, sizes: Sizes) -> None:
        rows, inner = split_rows(buffer.shape)
        self.memory = HostMemory(buffer.shape, buffer.dtype, sizes)
        self._rows = self.memory.flat.reshape(resolve(rows, sizes), row_width(buffer.shape))
        self.used = int(np.prod(inner))

    @property
    def rows(self) -> Array:
        """Every slot, flat, without padding: a view."""
        return self._rows[:, : self.used]


class HostEngine:
    """Runs the same spliced graph as a device would, on numpy: the meaning of every op, and no driver."""

    most_bytes = 1 << 62

    def __init__(self) -> None:
        self.target = Target.browser()
        self.host = Host()

    def __repr__(self) -> str:
        return "HostEngine(numpy)"

    def load(self, buffer: Buffer, pieces: Iterator[tuple[int, Array]]) -> None:
        """Fill a weight buffer from (first element, elements) pieces."""
        memory = self.host.place(buffer, {})
        for start, values in pieces:
            memory.flat[start : start + values.size] = values.reshape(-1)

    def state_memories(self, buffers: Sequence[Buffer], sizes: Sizes) -> dict[Buffer, HostSlots]:
        """Memory for the parts of a state, zeroed."""
        return {buffer: HostSlots(buffer, sizes) for buffer in buffers}

    def read_slot(self, memories: Sequence[HostSlots], slot: int) -> Array:
        """A slot in each of these memories, one after another, flat."""
        with self.host.lock:
            return np.concatenate([memory.rows[slot] for memory in memories])

    def write_slot(self, memories: Sequence[HostSlots], slot: int, values: Array) -> None:
        """Replace a slot in each of these memories by its part of `values`."""
        with self.host.lock:
            for memory, part in zip(memories, cut_parts(memories, values), strict=True):
                memory.rows[slot] = part

    def fill_slots(self, memories: Sequence[HostSlots], values: Array) -> None:
        """Replace every slot in each of these memories by its part of `values`."""
        with self.host.lock:
            for memory, part in zip(memories, cut_parts(memories, values), strict=True):
                memory.rows[:] = part

    def copy_slot(
        self, source: Sequence[HostSlots], slot: int, target: Sequence[HostSlots], to: Sequence[int]
    ) -> None:
        """Copy a slot of some memories to slots of memories of the same shapes."""
        with self.host.lock:
            for memory, other in zip(source, target, strict=True):
                other.rows[list(to)] = memory.rows[slot].copy()

    def make_reachable(self, graph: Graph) -> bool:
        """Arrays always are."""
        return False

    def compile(self, graph: Graph, spliced: Graph, output: Buffer) -> HostCompiled:
        """Simplify: numpy runs the operations one by one."""
        return HostCompiled(self.host, simplify(spliced).graph, output)


def cut_parts(memories: Sequence[Any], values: Array) -> Iterator[Array]:
    """A slot's flat values, cut into the parts that lie in each of these memories."""
    start = 0
    for memory in memories:
        yield values[start : start + memory.used]
        start += memory.used


class HostCompiled:
    """Operations to interpret."""

    most_tokens = most_outputs = 1 << 30

    def __init__(self, host: Host, graph: Graph, output: Buffer) -> None:
        self.graph = graph
        self._host = host
        self._output = output
        sources = {tensor.source for op in graph.ops for tensor in op.operands().values()}
        buffers = [item for item in sources if isinstance(item, Buffer)]
        self._inputs = [item for item in buffers if item.role is Role.INPUT]
        self._outputs = [item for item in buffers if item.role is Role.OUTPUT]

    def __str__(self) -> str:
        return f"{self.graph}\non numpy"

    def __repr__(self) -> str:
        return f"<{self.graph!r} on numpy>"

    def run(self, inputs: Mapping[Buffer, Array], sizes: Sizes, owner: Any, state: Any) -> Array | None:
        """Run once; gives the output's rows, or None where there are none."""
        with self._host.lock:
            for buffer in self._inputs:
                memory = self._host.place(buffer, sizes)
                if buffer in inputs:
                    memory.write(inputs[buffer])
            for buffer, memory in state.items():
                self._host.place_flat(buffer, memory.memory.flat)
            for buffer in self._outputs:
                self._host.place(buffer, sizes)
            interpret(self.graph.ops, self._host, sizes)
            if not resolve(self._output.shape[0], sizes):
                return None
            return see(self._host.flat(self._output), View.whole(self._output.shape), sizes).copy()

    def fetch(self, buffer: Buffer, rows: int) -> Array:
        """The first rows of another output after a run."""
        width = row_width(buffer.shape)
        return self._host.flat(buffer)[: rows * width].reshape(rows, width)
