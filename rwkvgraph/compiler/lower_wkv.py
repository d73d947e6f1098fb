"""The pass of a recurrence, with the per-head operations before and after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rwkvgraph.compiler.domain import Domain
from rwkvgraph.compiler.fuse import Group
from rwkvgraph.compiler.head_lanes import TokenLanes
from rwkvgraph.compiler.plan import Plan
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.tuning import tuning_for
from rwkvgraph.compiler.variant import Amount, Grid
from rwkvgraph.compiler.writer import HERE, Writer, place_in
from rwkvgraph.errors import CompileError
from rwkvgraph.op import Buffer, Tensor
from rwkvgraph.ops.recurrence import Recurrence
from rwkvgraph.view import LANES
from rwkvgraph_codegen import (
    Head,
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
    prelude,
    scan_text,
)

MOST_THREADS = 256
"""Threads of a head's workgroup: what every WebGPU device allows."""
MOST_ROWS = 32
"""Rows of a head that a thread holds on a software adapter.

llvmpipe's compile time grows faster than their number.
"""

USUAL_SUMS = 3
"""Reductions over a head that a token takes: an l2 norm, and the two of a layer norm."""

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
        head = _head(domain, target)
        if most_threads or is_each:
            head = _single_head(head, target, most_threads)
        threads, subgroups = head.threads, head.is_subgroup or head.swaps
        main = _heads(writer, op, op.rule, head, target, "group.z" if is_each else "0u")
        grid = Grid(Amount(domain.middle), 1, slots)
    functions, statements = tuple(writer.functions.values()), tuple(main.statements)
    parts = Parts(writer.bindings(), functions, statements, len(writer.table), domain.lanes, subgroups)
    return writer, assemble(group.label, parts, main.text, threads, target.dialect), grid


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
    _check_head(op, head, lanes.sums, target)
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
    text |= {
        "fetch": _lines(1, _fetch_first(ahead)),
        "fetch_next": _lines(2, _fetch_next(ahead, head.shares)),
    }
    return _main(writer, op, lanes.statements, split, "head.wgsl", text, ahead)


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
) -> _Main:
    """A template filled, with the functions before it; statements from `split` on come after the step.

    ahead: loads whose values were asked for a token before. depth: of the template's holes for them.
    """
    arrived: dict[Statement, str] = {item: f"let {item.name} = next_{item.name};" for item in ahead}
    here = [arrived.get(item) or item.text() for item in statements]
    holes = {**text, **_state(writer, op)}
    holes |= {"prologue": _lines(depth, here[:split]), "epilogue": _lines(depth, here[split:])}
    return _Main("\n".join([*_readers(writer, op), fill(prelude(file), **holes)]), tuple(statements))


def _check_head(op: Recurrence, head: Head, sums: int, target: Target) -> None:
    """Raise CompileError for heads that a workgroup of the device cannot hold."""
    limits = target.limits
    memory = head.memory(sums)
    if head.threads > limits.max_workgroup_invocations or memory > limits.max_workgroup_storage:
        raise CompileError(
            f"heads of {head.size} need {head.threads} threads and {memory} bytes a workgroup; the "
            f"device allows {limits.max_workgroup_invocations} and {limits.max_workgroup_storage} "
            f"(built at {op.where})"
        )


def _head(domain: Domain, target: Target) -> Head:
    """How a workgroup shares a head: on a GPU by up to four threads a column, on llvmpipe in one subgroup.

    Eight threads a column take as many tokens at a time, and longer: 32 heads of a prompt of 1,024 tokens
    1,011 instead of 930 µs, those of 32 slots with 32 each 247 instead of 138 (NVIDIA H200).
    """
    size, columns = domain.inner, domain.inner // domain.lanes
    if target.lanes == 8 and domain.lanes == LANES and size in (32, 64):
        return Head(size, LANES, 1, True, is_subgroup=True)
    possible = [n for n in (1, 2, 4, 8) if size % n == 0 and (n == 1 or columns * n <= MOST_THREADS)]
    if target.kind == "cpu":
        shares = next((n for n in possible if size // n <= MOST_ROWS), possible[-1])
    else:
        heads = [Head(size, domain.lanes, n, target.subgroups) for n in possible if n <= 4]
        return [head for head in heads if _fits(head, target)][-1]
    return Head(size, domain.lanes, shares, target.subgroups)


def _single_head(head: Head, target: Target, threads: int) -> Head:
    """How a workgroup shares a head for a single token; of so many threads by more: few rows each.

    Of several slots with a token each, four threads a column are as fast as 16 where slots are 8, and faster
    where they are more: 55 instead of 93 µs for 32 heads of 128 slots (NVIDIA H200; by the kernel for many
    tokens: 68).
    """
    if head.is_subgroup:
        return head
    shares = min(threads // head.columns, tuning_for(target).single_shares)
    single = replace(head, is_single=True)
    if target.lanes < 32 or shares < 8 or head.size % shares:
        return single
    wider = replace(single, shares=shares, is_wide=True)
    return wider if wider.swaps and _fits(wider, target) else single


def _fits(head: Head, target: Target) -> bool:
    """Whether a workgroup's memory holds a head with the reductions that RWKV-7 has; one share always may."""
    return head.shares == 1 or head.memory(USUAL_SUMS) <= target.limits.max_workgroup_storage


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
