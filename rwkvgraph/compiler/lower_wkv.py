"""The pass of a recurrence, with the per-head operations before and after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rwkvgraph.compiler.domain import Domain
from rwkvgraph.compiler.fuse import Group
from rwkvgraph.compiler.head_lanes import TokenLanes
from rwkvgraph.compiler.heads import check_head, head_for, single_head
from rwkvgraph.compiler.plan import Plan
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.variant import Amount, Grid
from rwkvgraph.compiler.wkv_main import Main, ask, assembled, buffer_name, fetched, indented, main_of
from rwkvgraph.compiler.writer import Writer
from rwkvgraph.ops.recurrence import Recurrence
from rwkvgraph_codegen import (
    Head,
    HeadRule,
    Load,
    ScanRule,
    Source,
    head_text,
    hold,
    scan_text,
)

SCAN_THREADS = 32
"""Lanes of channels in a workgroup: few, as a decode step of 4,096 channels has 1,024 lanes in all."""


def lower_wkv(
    group: Group,
    plan: Plan,
    domain: Domain,
    target: Target,
    most_threads: int = 0,
    is_each: bool = False,
) -> tuple[Writer, Source, Grid]:
    """(the writer with buffers and table, the shader, the grid) of a group with a recurrence.

    most_threads: of a workgroup, for runs of a single token. is_each: for runs of one in each slot.
    """
    writer = Writer(group, plan.places, domain, is_single=bool(most_threads))
    op = group.recurrence
    assert op is not None, "of kind wkv"
    slots = Amount.of(op.starts.shape[0])
    if isinstance(op.rule, ScanRule):
        threads, subgroups = min(SCAN_THREADS, target.lanes or SCAN_THREADS), False
        if most_threads and target.resident:
            threads = most_threads
        main = _scan(writer, op, op.rule, threads)
        grid = Grid(Amount(domain.count), threads, slots)
    else:
        head = head_for(domain, target)
        if most_threads or is_each:
            head = single_head(head, target, most_threads)
        threads, subgroups = head.threads, head.is_subgroup or head.swaps
        main = _heads(writer, op, op.rule, head, target, "group.z" if is_each else "0u")
        grid = Grid(Amount(domain.middle), 1, slots)
    return writer, assembled(writer, group, main, threads, target, subgroups), grid


def has_heads(group: Group) -> bool:
    """Whether the recurrence of a group has a matrix a head."""
    return group.recurrence is not None and isinstance(group.recurrence.rule, HeadRule)


def _heads(
    writer: Writer, op: Recurrence, rule: HeadRule, head: Head, target: Target, only: str = "0u"
) -> Main:
    """The kernel of a recurrence with a matrix a head. only: the token of a workgroup that has one."""
    lanes = TokenLanes(writer, head.lane_names, head.shares)
    inputs, split = lanes.before(op)
    lanes.give(op, [f"y{q}" for q in range(len(head.lane_names))] if head.is_subgroup else ["y"])
    lanes.after(op)
    check_head(op, head, lanes.sums, target)
    held = hold(lanes.statements if head.is_single else [])
    inputs = {name: [held.name(variable) for variable in values] for name, values in inputs.items()}
    text = head_text(buffer_name(writer, op.state), head, rule, inputs, lanes.sums)
    if head.is_subgroup:
        return main_of(writer, op, lanes.statements, split, "head_subgroup.wgsl", text)
    if head.is_single:
        text["only"] = only
        text["fetch"] = indented(1, [item.text() for item in (*held.common, *held.lanes)])
        here, split = held.rest(lanes.statements), len(held.rest(lanes.statements[:split]))
        made = main_of(writer, op, here, split, "head_single.wgsl", text, depth=1)
        return replace(made, statements=tuple(lanes.statements))
    # Of the prologue alone: when the epilogue runs, what was asked for ahead is the next token's.
    ahead = fetched(lanes.statements[:split]) if target.kind == "gpu" else []
    later = fetched(lanes.statements[split:]) if target.kind == "gpu" else []
    later = [load for load in later if not load.binding.writable]
    text |= {
        "fetch_later": indented(2, [f"let later_{load.name} = {load.value()};" for load in later]),
        "fetch": indented(1, _fetch_first(ahead)),
        "fetch_next": indented(2, _fetch_next(ahead, head.shares)),
    }
    return main_of(writer, op, lanes.statements, split, "head.wgsl", text, ahead, later=later)


def _scan(writer: Writer, op: Recurrence, rule: ScanRule, threads: int) -> Main:
    lanes = TokenLanes(writer, ["i2"], 1)
    inputs, split = lanes.before(op)
    lanes.give(op, ["y"])
    lanes.after(op)
    text = scan_text(buffer_name(writer, op.state), writer.domain.lanes, rule, inputs)
    return main_of(writer, op, lanes.statements, split, "scan.wgsl", {**text, "threads": threads})


def _fetch_first(loads: Sequence[Load]) -> list[str]:
    """The lines that ask for the values of a share's first token."""
    lines = ask(loads, "opening", first=True)
    return ["let opening = min(start + share, end - 1u);", *lines] if loads else []


def _fetch_next(loads: Sequence[Load], shares: int) -> list[str]:
    """The lines that ask for the values of a share's next token; at the end for the last one's again."""
    lines = ask(loads, "following")
    return [f"let following = min(i0 + {shares}u, end - 1u);", *lines] if loads else []
