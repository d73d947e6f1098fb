"""Recurrences whose heads are shared by workgroups: kernels that step, and one that finishes the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rwkvgraph.compiler.domain import Domain
from rwkvgraph.compiler.head_lanes import TokenLanes
from rwkvgraph.compiler.heads import parts_of_head
from rwkvgraph.compiler.plan import Plan
from rwkvgraph.compiler.program import Pass
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.variant import Amount, Grid
from rwkvgraph.compiler.wkv_main import Main, ask, assembled, buffer_name, fetched, indented, main_of
from rwkvgraph.compiler.writer import Writer
from rwkvgraph.ops.recurrence import Recurrence
from rwkvgraph_codegen import (
    PARTS,
    REST,
    HeadPart,
    HeadRule,
    Load,
    Source,
    fill,
    part_text,
    prelude,
    rest_text,
)


@dataclass(frozen=True)
class Parted:
    """The kernels of a recurrence whose heads are shared by workgroups.

    steps: those that go through the tokens, with the most workgroups each is for. rest: the one that does
    what follows, of all tokens at once. along, across: their grids.
    """

    writer: Writer
    steps: tuple[tuple[Source, int], ...]
    along: Grid
    rest: Source
    across: Grid


def lower_parts(item: Pass, plan: Plan, domain: Domain, target: Target) -> Parted | None:
    """The kernels by which workgroups share the heads of a pass.

    None where that cannot be: heads that cannot be divided, memory that is read and written, as the two
    kernels do that at different times, a buffer too many.
    """
    group, op, slot = item.group, item.group.recurrence, plan.between.get(item.group)
    if slot is None or len(item.buffers) >= target.limits.max_storage_buffers:
        return None
    assert op is not None and isinstance(op.rule, HeadRule), "only those have a slot"
    parts = parts_of_head(op, domain, target)
    writer = Writer(group, plan.places, domain, bound=item.buffers, between=slot)
    handed = writer.binding(slot).name
    mains = [_part(writer, op, op.rule, part, handed) for part, _ in parts]
    rest = _rest(writer, op, parts[0][0], handed)
    statements = [one for main in (*mains, rest) for one in main.statements]
    if any(isinstance(one, Load) and one.binding.writable for one in statements):
        return None
    # Only now, when the table is whole: all of these kernels have the same.
    steps = [
        (assembled(writer, group, main, part.threads, target, subgroups=True, apart=True), most)
        for main, (part, most) in zip(mains, parts, strict=True)
    ]
    after = assembled(writer, group, rest, REST * parts[0][0].columns, target, subgroups=True)
    along = Grid(Amount(domain.middle * PARTS), 1, Amount.of(op.starts.shape[0]))
    across = Grid(Amount(domain.middle), 1, Amount.of(domain.rows), REST)
    return Parted(writer, tuple(steps), along, after, across)


def _part(writer: Writer, op: Recurrence, rule: HeadRule, part: HeadPart, handed: str) -> Main:
    """The kernel that goes through the tokens for a part of a head's columns."""
    writer.forget_names()
    lanes = TokenLanes(writer, ["i2"], part.tokens)
    text = part_text(buffer_name(writer, op.state), part, rule, lanes.operands(op))
    ahead = fetched(lanes.statements)
    text |= _fetch_by_turns(writer, ahead)
    text["handed"] = handed
    here = lanes.statements
    return main_of(writer, op, here, len(here), "head_part.wgsl", text, ahead, depth=4)


def _rest(writer: Writer, op: Recurrence, part: HeadPart, handed: str) -> Main:
    """The kernel that finishes the tokens."""
    writer.forget_names()
    lanes = TokenLanes(writer, ["i2"], REST)
    lanes.give(op, ["y"])
    lanes.rest()
    text = rest_text(part, handed)
    text["rest"] = indented(1, [item.text() for item in lanes.statements])
    return Main(fill(prelude("head_rest.wgsl"), **text), tuple(lanes.statements))


def _fetch_by_turns(writer: Writer, loads: Sequence[Load]) -> dict[str, object]:
    """The lines that ask for the values of a thread's first token, and, while others prepare, of its next.

    What is the same for all tokens is asked for once.
    """
    moving = [load for load in loads if writer.table[int(load.at)][1] != Amount()]
    first, then = ask(loads, "opening", first=True), ask(moving, "following")
    return {"fetch": indented(1, first), "fetch_next": indented(4, then)}
