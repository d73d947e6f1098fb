"""The programs of a model: one for each graph that its hooks made of it."""

from __future__ import annotations

from typing import Any

from rwkvgraph.engine import Compiled, Engine
from rwkvgraph.graph import Graph
from rwkvgraph.hooks import Hooks
from rwkvgraph.op import Buffer
from rwkvgraph.splice import splice

KEPT_PROGRAMS = 8
"""Programs that are kept, besides the one without hooks."""
KEPT_SETS = 64
"""Sets of hooks of which is known what they make of the graph."""


class Programs:
    """Compiles a graph with hooks, and keeps what it compiled.

    A set of hooks that was used before costs microseconds. A new set whose functions build what another's
    built, on the same buffers, costs a splice: programs are told apart by their graphs.
    """

    def __init__(self, graph: Graph, output: Buffer, engine: Engine) -> None:
        self._graph = graph
        self._output = output
        self._engine = engine
        self._by_set: dict[Any, Compiled] = {}
        self._by_graph: dict[Any, Compiled] = {}

    def __len__(self) -> int:
        return len(self._by_graph)

    def get(self, hooks: Hooks | None) -> Compiled:
        """The program for a set of hooks, compiled if need be. Raises what compiling raises."""
        key = hooks.key() if hooks else ()
        program = self._by_set.get(key)
        if program is None:
            program = self._by_set[key] = self._compiled(hooks)
            self._forget()
        return program

    def _compiled(self, hooks: Hooks | None) -> Compiled:
        spliced = splice(self._graph, hooks)
        if self._engine.make_reachable(spliced):  # what was compiled before binds memory that is gone
            self._by_set.clear()
            self._by_graph.clear()
        signature = spliced.signature()
        if signature not in self._by_graph:
            self._by_graph[signature] = self._engine.compile(self._graph, spliced, self._output)
        return self._by_graph[signature]

    def _forget(self) -> None:
        """Drop what was made first, beyond what is kept; never what runs without hooks."""
        plain = self._by_set.get(())
        while len(self._by_set) > KEPT_SETS:
            del self._by_set[next(key for key in self._by_set if key)]
        hooked = [signature for signature, program in self._by_graph.items() if program is not plain]
        for signature in hooked[:-KEPT_PROGRAMS]:
            program = self._by_graph.pop(signature)
            self._by_set = {key: other for key, other in self._by_set.items() if other is not program}
