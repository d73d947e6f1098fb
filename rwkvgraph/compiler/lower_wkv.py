"""The pass of a recurrence, with the per-head operations before and after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rwkvgraph.compiler.domain import Domain
from rwkvgraph.compiler.fuse import Group
from rwkvgraph.compiler.head_lanes import TokenLanes
from rwkvgraph.compiler.heads import check_head, head_for, part_of_head, single_head
from rwkvgraph.compiler.plan import Plan
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.variant import Amount, Grid
from rwkvgraph.compiler.writer import HERE, Writer, place_in
from rwkvgraph.op import Buffer, Tensor
from rwkvgraph.ops.recurrence import Recurrence
from rwkvgraph_codegen import (
    PARTS,
    REST,
    Head,
    HeadPart,
    HeadRule,
    Load,
    Parts,
    ScanRule,
    Source,
    Statement,
    assemble,
    fill,
    head_text,
    hold,
    part_text,
    prelude,
    rest_text,
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
    op = _recurrence(group)
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
    functions, statements = tuple(writer.functions.values()), tuple(main.statements)
    parts = Parts(writer.bindings(), functions, statements, len(writer.table), domain.lanes, subgroups)
    return writer, assemble(group.label, parts, main.text, threads, target.dialect), grid


def lower_parts(
    group: Group, plan: Plan, domain: Domain, target: Target
) -> tuple[Writer, tuple[Source, Source], tuple[Grid, Grid]] | None:
    """(the writer, two shaders, their grids) of a recurrence whose heads are shared by workgroups.

    The first of them goes through the tokens, the second does what follows, of all tokens at once. None
    where that cannot be: heads that cannot be divided, memory that is read and written, as the two kernels do
    that at different times, a buffer too many.
    """
    op = _recurrence(group)
    slot, part = plan.between.get(group), part_of_head(op, domain, target)
    if slot is None or part is None:
        return None
    writer = Writer(group, plan.places, domain, between=slot)
    assert isinstance(op.rule, HeadRule), "only those have a slot"
    whole = _heads(writer, op, op.rule, head_for(domain, target), target)  # binds all that others bind first
    if any(isinstance(item, Load) and item.binding.writable for item in whole.statements):
        return None
    handed = writer.binding(slot).name
    if len(writer.buffers) > target.limits.max_storage_buffers:
        return None
    header = target.dialect.subgroup_header
    steps = _part(writer, op, op.rule, part, handed), part.threads, header + target.dialect.apart
    rest = _rest(writer, op, part, handed), REST * part.columns, header
    first, then = (_assembled(writer, group, *kernel, target) for kernel in (steps, rest))
    along = Grid(Amount(domain.middle * PARTS), 1, Amount.of(op.starts.shape[0]))
    across = Grid(Amount(domain.middle), 1, Amount.of(domain.rows), REST)
    return writer, (first, then), (along, across)


def _assembled(
    writer: Writer, group: Group, main: _Main, threads: int, header: str, target: Target
) -> Source:
    """A kernel that calls subgroup functions. header: what its module begins with."""
    functions, places = tuple(writer.functions.values()), len(writer.table)
    parts = Parts(writer.bindings(), functions, main.statements, places, writer.domain.lanes, True, header)
    return assemble(group.label, parts, main.text, threads, target.dialect)


def has_heads(group: Group) -> bool:
    """Whether the recurrence of a group has a matrix a head."""
    return isinstance(_recurrence(group).rule, HeadRule)


def _recurrence(group: Group) -> Recurrence:
    (op,) = (op for op in group.ops if isinstance(op, Recurrence))
    return op


@dataclass(frozen=True)
class _Main:
    """The text of an entry point, and the statements in it."""

    text: str
    statements: tuple[Statement, ...]


def _heads(
    writer: Writer, op: Recurrence, rule: HeadRule, head: Head, target: Target, only: str = "0u"
) -> _Main:
    """The kernel of a recurrence with a matrix a head. only: the token of a workgroup that has one."""
    lanes = TokenLanes(writer, head.lane_names, head.shares)
    inputs, split = lanes.before(op)
    lanes.give(op, [f"y{q}" for q in range(len(head.lane_names))] if head.is_subgroup else ["y"])
    lanes.after(op)
    check_head(op, head, lanes.sums, target)
    held = hold(lanes.statements if head.is_single else [])
    inputs = {name: [held.name(variable) for variable in values] for name, values in inputs.items()}
    text = head_text(_buffer_name(writer, op.state), head, rule, inputs, lanes.sums)
    if head.is_subgroup:
        return _main(writer, op, lanes.statements, split, "head_subgroup.wgsl", text)
    if head.is_single:
        text["only"] = only
        text["fetch"] = _lines(1, [item.text() for item in (*held.common, *held.lanes)])
        here, split = held.rest(lanes.statements), len(held.rest(lanes.statements[:split]))
        made = _main(writer, op, here, split, "head_single.wgsl", text, depth=1)
        return replace(made, statements=tuple(lanes.statements))
    # Of the prologue alone: when the epilogue runs, what was asked for ahead is the next token's.
    ahead = _fetched(lanes.statements[:split]) if target.kind == "gpu" else []
    later = _fetched(lanes.statements[split:]) if target.kind == "gpu" else []
    later = [load for load in later if not load.binding.writable]
    text |= {
        "fetch_later": _lines(2, [f"let later_{load.name} = {load.value()};" for load in later]),
        "fetch": _lines(1, _fetch_first(ahead)),
        "fetch_next": _lines(2, _fetch_next(ahead, head.shares)),
    }
    return _main(writer, op, lanes.statements, split, "head.wgsl", text, ahead, later=later)


def _part(writer: Writer, op: Recurrence, rule: HeadRule, part: HeadPart, handed: str) -> _Main:
    """The kernel that goes through the tokens for a part of a head's columns."""
    writer.forget_names()
    lanes = TokenLanes(writer, ["i2"], part.tokens)
    text = part_text(_buffer_name(writer, op.state), part, rule, lanes.operands(op))
    ahead = _fetched(lanes.statements)
    text |= _fetch_by_turns(writer, ahead)
    text["handed"] = handed
    return _main(writer, op, lanes.statements, len(lanes.statements), "head_part.wgsl", text, ahead, depth=4)


def _rest(writer: Writer, op: Recurrence, part: HeadPart, handed: str) -> _Main:
    """The kernel that finishes the tokens."""
    writer.forget_names()
    lanes = TokenLanes(writer, ["i2"], REST)
    lanes.give(op, ["y"])
    lanes.rest()
    text = rest_text(part, handed)
    text["rest"] = _lines(1, [item.text() for item in lanes.statements])
    return _Main(fill(prelude("head_rest.wgsl"), **text), tuple(lanes.statements))


def _scan(writer: Writer, op: Recurrence, rule: ScanRule, threads: int) -> _Main:
    lanes = TokenLanes(writer, ["i2"], 1)
    inputs, split = lanes.before(op)
    lanes.give(op, ["y"])
    lanes.after(op)
    text = scan_text(_buffer_name(writer, op.state), writer.domain.lanes, rule, inputs)
    return _main(writer, op, lanes.statements, split, "scan.wgsl", {**text, "threads": threads})


def _fetched(statements: Sequence[Statement]) -> list[Load]:
    """The loads of a token's own rows: they can be under way while the token before is worked on.

    On a GPU, where the tokens of a head follow each other and nothing else hides how long memory takes.
    """
    return [item for item in statements if isinstance(item, Load) and item.row == HERE]


def _fetch_first(loads: Sequence[Load]) -> list[str]:
    """The lines that ask for the values of a share's first token."""
    lines = [f"var next_{load.name} = {load.value('opening')};" for load in loads]
    return ["let opening = min(start + share, end - 1u);", *lines] if loads else []


def _fetch_next(loads: Sequence[Load], shares: int) -> list[str]:
    """The lines that ask for the values of a share's next token; at the end for the last one's again."""
    return [
        f"let following = min(i0 + {shares}u, end - 1u);",
        *(f"next_{load.name} = {load.value('following')};" for load in loads),
    ] if loads else []  # fmt: skip


def _fetch_by_turns(writer: Writer, loads: Sequence[Load]) -> dict[str, object]:
    """The lines that ask for the values of a thread's first token, and, while others prepare, of its next.

    What is the same for all tokens is asked for once.
    """
    moving = [load for load in loads if writer.table[int(load.at)][1] != Amount()]
    first = [f"var next_{load.name} = {load.value('opening')};" for load in loads]
    then = [f"next_{load.name} = {load.value('following')};" for load in moving]
    return {"fetch": _lines(1, first), "fetch_next": _lines(4, then)}


def _lines(depth: int, lines: Sequence[str]) -> str:
    return "\n".join("    " * depth + line for line in lines)


def _main(
    writer: Writer,
    op: Recurrence,
    statements: list[Statement],
    split: int,
    file: str,
    text: dict[str, object],
    ahead: Sequence[Load] = (),
    depth: int = 2,
    later: Sequence[Load] = (),
) -> _Main:
    """A template filled, with the functions before it; statements from `split` on come after the step.

    ahead: loads whose values were asked for a token before. depth: of the template's holes for them. later:
    loads whose values were asked for before the step.
    """
    arrived: dict[Statement, str] = {item: f"let {item.name} = next_{item.name};" for item in ahead}
    arrived |= {item: f"let {item.name} = later_{item.name};" for item in later}
    here = [arrived.get(item) or item.text() for item in statements]
    holes = {**text, **_state(writer, op)}
    holes |= {"prologue": _lines(depth, here[:split]), "epilogue": _lines(depth, here[split:])}
    return _Main("\n".join([*_readers(writer, op), fill(prelude(file), **holes)]), tuple(statements))


def _state(writer: Writer, op: Recurrence) -> dict[str, object]:
    """Where the state is: offset, elements from slot to slot and from row to row."""
    view = op.state.view
    steps = Amount(view.strides[0]), Amount(view.strides[1])
    assert isinstance(op.state.source, Buffer), "states are buffers"
    row = writer.row_of("state", place_in(op.state.source, view.offset), *steps, Amount())
    return {"state": row}


def _readers(writer: Writer, op: Recurrence) -> list[str]:
    """The functions that read a slot's first token and a token's cursor."""
    texts = []
    for name, tensor, kind in (("starts", op.starts, "u32"), ("cursor", op.cursors, "vec4<u32>")):
        step = Amount(tensor.view.strides[0])
        at = writer.row_of(tensor.view, Amount(tensor.view.offset), step, Amount(), Amount())
        texts.append(_reader(f"load_{name}", _buffer_name(writer, tensor), at, kind))
    return texts


def _reader(name: str, buffer: str, at: int, kind: str) -> str:
    place = f"let e = here.at[{at}].x + i * here.at[{at}].y;"
    words = [f"{buffer}[e + {index}u]" for index in range(4)]
    value = f"{buffer}[e]" if kind == "u32" else f"{kind}({', '.join(words)})"
    return f"fn {name}(i: u32) -> {kind} {{\n    {place}\n    return {value};\n}}"


def _buffer_name(writer: Writer, tensor: Tensor) -> str:
    assert isinstance(tensor.source, Buffer), "cursors come from the batch"
    return writer.binding(tensor.source).name
