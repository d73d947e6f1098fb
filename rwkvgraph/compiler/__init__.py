"""From a graph to a program: stages, each a function from value to value."""

from __future__ import annotations

from dataclasses import dataclass

from rwkvgraph.compiler.fuse import Fused as Fused
from rwkvgraph.compiler.fuse import Group as Group
from rwkvgraph.compiler.fuse import fuse as fuse
from rwkvgraph.compiler.invariants import check_build as check_build
from rwkvgraph.compiler.invariants import check_fuse as check_fuse
from rwkvgraph.compiler.invariants import check_plan as check_plan
from rwkvgraph.compiler.invariants import check_program as check_program
from rwkvgraph.compiler.invariants import check_simplify as check_simplify
from rwkvgraph.compiler.invariants import check_splice as check_splice
from rwkvgraph.compiler.invariants import level_from_environment as level_from_environment
from rwkvgraph.compiler.join import join as join
from rwkvgraph.compiler.lower import lower as lower
from rwkvgraph.compiler.plan import Plan as Plan
from rwkvgraph.compiler.plan import plan as plan
from rwkvgraph.compiler.plan import plan_for as plan_for
from rwkvgraph.compiler.program import Pass as Pass
from rwkvgraph.compiler.program import Program as Program
from rwkvgraph.compiler.simplify import Simplified as Simplified
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


@dataclass(frozen=True, eq=False)
class Compilation:
    """What every stage of one compilation made. `str` of each is its dump."""

    build: Graph
    splice: Graph
    simplify: Simplified
    fuse: Fused
    plan: Plan
    program: Program

    def __repr__(self) -> str:
        return f"Compilation({self.build!r} to {self.program!r})"


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
    RWKVGRAPH_CHECK=1 holds every stage to its rules: CheckError names the first that broke one.
    """
    return compile_stages(graph, hooks, target, dump, spliced).program


def compile_stages(
    graph: Graph,
    hooks: Hooks | None,
    target: Target,
    dump: Dump | None = None,
    spliced: Graph | None = None,
) -> Compilation:
    """As `compile`, with what every stage made."""
    dump, checked = dump or dump_from_environment(), level_from_environment() > 0
    build = dump("00-build", graph)  # the tape, with hook sites
    if checked:
        check_build(build)
    joined = dump("10-splice", spliced or splice(build, hooks))  # hooks have run; sites are gone
    if checked:
        check_splice(build, joined)
    simple = dump("20-simplify", simplify(joined))  # rules applied, dead operations dropped
    if checked:
        check_simplify(joined, simple.graph)
    fused = dump("30-fuse", fuse(simple.graph, target.limits))
    if checked:
        check_fuse(simple.graph, fused)
    slots = dump("40-plan", plan_for(fused.groups, target))
    if checked:
        check_plan(fused.groups, slots)
    pairs = zip((None, *fused.groups), fused.groups, strict=False)
    passes = tuple(step for before, group in pairs for step in lower(group, slots, target, before))
    program = dump("60-program", Program(passes, slots, join(passes, target)))
    if checked:
        check_program(fused, program, target.limits)
    return Compilation(build, joined, simple, fused, slots, program)
