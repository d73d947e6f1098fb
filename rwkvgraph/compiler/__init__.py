"""From a graph to a program: stages, each a function from value to value."""

from __future__ import annotations

from rwkvgraph.compiler.fuse import Fused as Fused
from rwkvgraph.compiler.fuse import Group as Group
from rwkvgraph.compiler.fuse import fuse as fuse
from rwkvgraph.compiler.lower import lower as lower
from rwkvgraph.compiler.plan import Plan as Plan
from rwkvgraph.compiler.plan import plan as plan
from rwkvgraph.compiler.program import Pass as Pass
from rwkvgraph.compiler.program import Program as Program
from rwkvgraph.compiler.simplify import simplify as simplify
from rwkvgraph.compiler.target import Limits as Limits
from rwkvgraph.compiler.target import Target as Target
from rwkvgraph.dump import Dump as Dump
from rwkvgraph.dump import dump_from_environment as dump_from_environment
from rwkvgraph.graph import Graph
from rwkvgraph.hooks import Hooks
from rwkvgraph.splice import splice
from rwkvgraph_codegen import NAGA as NAGA
from rwkvgraph_codegen import TINT as TINT


def compile(
    graph: Graph,
    hooks: Hooks | None,
    target: Target,
    dump: Dump | None = None,
    spliced: Graph | None = None,
) -> Program:
    """Turn a model's graph and its hooks into a program that serves every batch shape on one kind of device.

    spliced: the graph with its hooks, where they have run already; they are called once a compilation.
    Raises what splicing raises (HookError, ShapeError), and CompileError for what the target cannot run.
    """
    dump = dump or dump_from_environment()
    graph = dump("00-build", graph)  # the tape, with hook sites
    graph = dump("10-splice", spliced or splice(graph, hooks))  # hooks have run; sites are gone
    graph = dump("20-simplify", simplify(graph)).graph  # rules applied, dead operations dropped
    fused = dump("30-fuse", fuse(graph, target.limits))
    slots = dump("40-plan", plan(fused.groups))
    passes = tuple(step for group in fused.groups for step in lower(group, slots, target))
    return dump("60-program", Program(passes, slots))
