"""What a model asks of whatever runs it, and the engine that is numpy.

The engine of devices is in gpu/engine.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from rwkvgraph.compiler import simplify
from rwkvgraph.compiler.target import Target
from rwkvgraph.graph import Graph
from rwkvgraph.hook import Hooks
from rwkvgraph.interpret import Host, HostMemory, interpret, see
from rwkvgraph.op import Array, Buffer, TensorOp
from rwkvgraph.splice import splice
from rwkvgraph.view import Sizes, View, resolve, row_width, split_rows


class SlotMemory(Protocol):
    """The contents of a state's buffer, by slot."""

    def read_rows(self, start: int, stop: int) -> Array:
        """Slots `start` to `stop`, each flat."""

    def write_rows(self, start: int, rows: Array) -> None:
        """Replace slots from `start` on."""


class Compiled(Protocol):
    """A graph with its hooks, ready to run."""

    most_tokens: int
    most_outputs: int

    def run(self, inputs: Mapping[Buffer, Array], sizes: Sizes, owner: Any, state: Any) -> Array | None:
        """Run once; gives the output's rows, or None where there are none.

        `owner`: the State whose memory it is.
        """


class Engine(Protocol):
    """Holds a model's weights and runs compiled graphs."""

    target: Target

    def load(self, buffer: Buffer, pieces: Iterator[tuple[int, Array]]) -> None:
        """Fill a weight buffer from (first element, elements) pieces."""

    def state_memory(self, buffer: Buffer, sizes: Sizes) -> SlotMemory:
        """Memory for a part of a state, zeroed."""

    def compile(self, graph: Graph, hooks: Hooks | None, output: Buffer) -> Compiled:
        """Splice, lower and make ready to run."""


class HostSlots:
    """Memory of a state on numpy."""

    def __init__(self, buffer: Buffer, sizes: Sizes) -> None:
        rows, inner = split_rows(buffer.shape)
        self.memory = HostMemory(buffer.shape, buffer.dtype, sizes)
        self._rows = self.memory.flat.reshape(resolve(rows, sizes), row_width(buffer.shape))
        self._used = int(np.prod(inner))

    def read_rows(self, start: int, stop: int) -> Array:
        """Slots `start` to `stop`, each flat, copied."""
        return self._rows[start:stop, : self._used].copy()

    def write_rows(self, start: int, rows: Array) -> None:
        """Replace slots from `start` on."""
        self._rows[start : start + len(rows), : self._used] = rows


class HostEngine:
    """Runs the same spliced graph as a device would, on numpy: the meaning of every op, and no driver."""

    def __init__(self) -> None:
        self.target = Target.browser()
        self.host = Host()

    def load(self, buffer: Buffer, pieces: Iterator[tuple[int, Array]]) -> None:
        """Fill a weight buffer from (first element, elements) pieces."""
        memory = self.host.place(buffer, {})
        for start, values in pieces:
            memory.flat[start : start + values.size] = values.reshape(-1)

    def state_memory(self, buffer: Buffer, sizes: Sizes) -> HostSlots:
        """Memory for a part of a state, zeroed."""
        return HostSlots(buffer, sizes)

    def compile(self, graph: Graph, hooks: Hooks | None, output: Buffer) -> HostCompiled:
        """Splice and simplify: numpy runs the operations one by one."""
        return HostCompiled(self.host, simplify(splice(graph, hooks)).graph.ops, output)


class HostCompiled:
    """Operations to interpret."""

    most_tokens = most_outputs = 1 << 30

    def __init__(self, host: Host, ops: tuple[TensorOp, ...], output: Buffer) -> None:
        self._host = host
        self._ops = ops
        self._output = output

    def run(self, inputs: Mapping[Buffer, Array], sizes: Sizes, owner: Any, state: Any) -> Array | None:
        """Run once; gives the output's rows, or None where there are none."""
        with self._host.lock:
            for buffer, rows in inputs.items():
                self._host.place(buffer, sizes).write(rows)
            for buffer, memory in state.items():
                self._host.place_flat(buffer, memory.memory.flat)
            self._host.place(self._output, sizes)
            interpret(self._ops, self._host, sizes)
            if not resolve(self._output.shape[0], sizes):
                return None
            return see(self._host.flat(self._output), View.whole(self._output.shape), sizes).copy()
