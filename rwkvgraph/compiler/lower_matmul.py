"""Matmul groups to passes: siblings side by side in the grid, each with the maps that follow it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rwkvgraph.compiler.domain import Strides, matmul_domain, split_parts
from rwkvgraph.compiler.fuse import Group
from rwkvgraph.compiler.plan import Plan
from rwkvgraph.compiler.program import TABLES, Amount, Grid, Pass, Region, Variant
from rwkvgraph.compiler.scope import Scope
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.tuning import kernels_for, tuning_for
from rwkvgraph.compiler.writer import Writer
from rwkvgraph.op import Buffer, DType, Tensor, TensorOp
from rwkvgraph.ops.matmul import Matmul
from rwkvgraph.quant import BLOCK
from rwkvgraph.view import LANES, resolve
from rwkvgraph_codegen import (
    Parts,
    Shape,
    Source,
    Statement,
    assemble,
    can_keep,
    hold,
    matmul_main,
    uses_subgroups,
)

WORDS = 3
"""Rows of the uniform's table that each part takes: its shape, its weights' place, its input's place."""


NO_PREPARE = """\
fn prepare(thread: u32, subgroup: u32) {
}"""
"""What a share has to prepare where its input is there."""

QUAD_BLOCKS = 16
"""What four rows cost a workgroup of a relay besides their blocks of columns, in such blocks."""


@dataclass(frozen=True)
class Part:
    """Some rows of one matrix, side by side with others in a pass. `first`: its first row in the result."""

    op: Matmul
    weights: Tensor
    first: int
    after: tuple[TensorOp, ...]

    @property
    def rows(self) -> int:
        """Rows of the matrix in this part."""
        return resolve(self.weights.shape[0], {})


def lower_matmul(group: Group, plan: Plan, target: Target) -> list[tuple[Pass, list[Part]]]:
    """The passes of a matmul group, with their parts: one, unless there are more than a pass can bind."""
    passes = []
    for parts in _chunks(_parts(group), _others(group, plan), target.limits.max_storage_buffers):
        passes.append((_lower(group, parts, plan, target), parts))
    return passes


def _parts(group: Group) -> list[Part]:
    parts: list[Part] = []
    for op, after in split_parts(group.ops).items():
        assert isinstance(op, Matmul), "split_parts gives matmuls"
        first = 0
        for weights in op.w.parts:
            parts.append(Part(op, weights, first, tuple(after)))
            first += resolve(weights.shape[0], {})
    return parts


def _chunks(parts: list[Part], others: int, limit: int) -> list[list[Part]]:
    """Parts that fit one pass together: their weights take what the `others` buffers leave of the limit."""
    room = max(1, limit - others)
    chunks: list[list[Part]] = []
    bound: set[object] = set()
    for part in parts:
        if not chunks or len(bound | {part.weights.source}) > room:
            chunks.append([])
            bound = set()
        chunks[-1].append(part)
        bound.add(part.weights.source)
    return chunks


def _others(group: Group, plan: Plan) -> int:
    """How many buffers a group touches besides its matrices.

    Inputs, results that stay, what maps read and write.
    """
    inside = set(group.ops)
    touched: set[object] = {plan.places[op].slot for op in group.ops if op in plan.places}
    for op in group.ops:
        tensors = [op.x] if isinstance(op, Matmul) else op.operands().values()
        for tensor in tensors:
            if isinstance(tensor.source, Buffer):
                touched.add(tensor.source)
            elif tensor.source not in inside:
                touched.add(plan.places[tensor.source].slot)
    return len(touched)


def _lower(group: Group, parts: Sequence[Part], plan: Plan, target: Target) -> Pass:
    writer = Writer(group, plan.places, matmul_domain(parts[0].op), reserved=WORDS * len(parts))
    texts = _readers(writer, parts)
    finish = finish_of(writer, parts)
    rows = Amount.of(parts[0].op.shape[0])
    variants = []
    tuning = tuning_for(target)
    tables = writer.binding(TABLES).name if target.looks else ""

    def source_of(shape: Shape) -> Source:
        subgroups = uses_subgroups(shape, target.subgroups)
        keeps = can_keep(shape, subgroups) and finish.ahead is not None
        looks = bool(tables) and shape.family == "split" and shape.tokens == 1
        main = matmul_main(shape, subgroups, keeps=keeps, looks=looks)
        ahead = [look_ahead(tables, shape.threads, keeps)] if looks else []
        nothing = [NO_PREPARE] if shape.family == "share" else []
        end = finish.ahead if keeps and finish.ahead else finish.text
        body = "\n".join([part_of(len(parts)), *texts, end, *ahead, *nothing, main])
        functions = tuple(writer.functions.values())
        kernel = Parts(writer.bindings(), functions, finish.statements, len(writer.table), LANES, subgroups)
        source = assemble(group.label, kernel, body, shape.threads, target.dialect)
        engine = f"{main}\n" if shape.family == "share" else ""
        return replace(source, engine=engine, looks_ahead=looks)

    for shape, most_tokens in kernels_for(target, [part.rows for part in parts]):
        units = set_units(writer, parts, shape)
        size = (rows, Amount(units), Amount(), Amount())
        source = source_of(shape)
        # Workgroups with the same rows side by side: what one has read of them, the cache has for the others.
        grid = Grid(Amount(units + source.looks_ahead), 1, rows, shape.group_tokens, deep_first=True)
        variants.append(Variant(source, (size, *writer.table), grid, most_tokens))
    leg = None
    if target.resident and _bytes(parts) < tuning.leg_bytes:
        units = set_shares(writer, parts, target.resident)
        size = (rows, Amount(units), Amount(), Amount())
        leg = Variant(source_of(tuning.share), (size, *writer.table), Grid(Amount(units)), 1)
    return Pass(group, tuple(variants), tuple(writer.buffers), rows, leg, tuple(map(_region, parts)))


LOOKED = 192
"""Rows of tables that are looked at ahead: those of some five kernels."""


def look_ahead(tables: str, threads: int, keeps: bool) -> str:
    """The function that brings the tables of the kernels behind this one into the cache that all share."""
    kept = ", keep(part, 0u, 0u)" if keeps else ""
    return f"""\
fn look_ahead(part: u32, thread: u32) {{
    var seen = 0u;
    for (var at = thread * 2u; at < {LOOKED}u; at += {2 * threads}u) {{
        seen ^= {tables}[(here.size.z + at) * 4u]; // memory gives 32 bytes
    }}
    if seen == 0x9e3779b9u && here.size.x == 0u {{
        finish(part, 0u, 0u, vec4<f32>(0.0){kept}); // never, but who compiles this cannot know
    }}
}}"""


def set_units(writer: Writer, parts: Sequence[Part], shape: Shape) -> int:
    """Write where each part's workgroups start, and in how many teams they are; gives their number."""
    teams = [shape.teams_for(_columns(part)) for part in parts]
    rows = [shape.group_rows * count for count in teams]
    units = [-(-part.rows // each) for part, each in zip(parts, rows, strict=True)]
    return _set_starts(writer, units, teams)


def _set_starts(writer: Writer, units: Sequence[int], words: Sequence[int]) -> int:
    """Write each part's first workgroup, of so many, and the word that says how they share; gives the sum."""
    first = 0
    for index, (count, word) in enumerate(zip(units, words, strict=True)):
        at, source = WORDS * index, WORDS * index + 2
        writer.table[at] = (Amount(first), *writer.table[at][1:])
        writer.table[source] = (*writer.table[source][:2], Amount(word), writer.table[source][3])
        first += count
    return first


def _columns(part: Part) -> int:
    return resolve(part.op.x.shape[1], {})


def _region(part: Part) -> Region:
    """Where a part's weights lie."""
    view, source = part.weights.view, part.weights.source
    assert isinstance(source, Buffer), "weights live in buffers"
    return Region(source, view.offset // BLOCK, part.rows * (view.strides[0] // BLOCK))


def _bytes(parts: Sequence[Part]) -> int:
    """Of the matrices."""
    return sum(part.rows * resolve(part.weights.shape[1], {}) for part in parts) * DType.F16.bytes


def set_shares(writer: Writer, parts: Sequence[Part], workgroups: int) -> int:
    """Write which workgroups each part has, of as many as run at once; gives their number.

    Each has at least one, and the next goes to the part whose workgroups have the most to do.
    """
    quads = [-(-part.rows // LANES) for part in parts]
    work = [-(-_columns(part) // BLOCK) + QUAD_BLOCKS for part in parts]
    shares = [1] * len(parts)
    for _ in range(workgroups - len(parts)):
        index = max(range(len(parts)), key=lambda at: -(-quads[at] // shares[at]) * work[at])
        if shares[index] < quads[index]:
            shares[index] += 1
    return _set_starts(writer, shares, shares)


def _readers(writer: Writer, parts: Sequence[Part]) -> list[str]:
    """The functions `weight` and `input`, and the parts' rows of the table."""
    weights, inputs = [], []
    ragged = False
    for index, part in enumerate(parts):
        x = part.op.x
        binding, place = writer.locate(x, Strides(x.view.offset, x.view.strides[0], 0, 1))
        weights.append(weight_of(writer, part))
        inputs.append(binding.name)
        ragged |= resolve(x.shape[1], {}) % BLOCK != 0
        set_place(writer, index, part)
        writer.table[WORDS * index + 2] = place
    lane = "{b}[base + lane]"
    if ragged:
        lane = "columns_only(part, lane, {b}[base + lane])"
    readers = [
        switch("fn weight(part: u32, index: u32) -> vec4<u32>", [f"return {block};" for block in weights]),
        switch(
            "fn input(part: u32, base: u32, lane: u32) -> vec4<f32>",
            [f"return {lane.format(b=name)};" for name in inputs],
        ),
    ]
    return [COLUMNS_ONLY, *readers] if ragged else readers


def weight_of(writer: Writer, part: Part) -> str:
    """The expression for a block of a part's weights by its number."""
    assert isinstance(part.weights.source, Buffer), "weights live in buffers"
    return writer.binding(part.weights.source).block("index")


def set_place(writer: Writer, index: int, part: Part) -> None:
    """Write the size of a part's matrix, and where it lies."""
    view, columns = part.weights.view, resolve(part.op.x.shape[1], {})
    size = (Amount(), Amount(part.rows), Amount(-(-columns // BLOCK)), Amount(columns))
    spot = (view.offset // BLOCK, view.strides[0] // BLOCK, part.first // LANES, 0)
    writer.table[WORDS * index] = size
    writer.table[WORDS * index + 1] = (Amount(spot[0]), Amount(spot[1]), Amount(spot[2]), Amount(spot[3]))


COLUMNS_ONLY = """\
// A row of the input may end inside a block of weights: what lies behind it belongs to others.
fn columns_only(part: u32, lane: u32, value: vec4<f32>) -> vec4<f32> {
    let inside = lane * 4u + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(here.at[part * 3u].w);
    return select(vec4<f32>(0.0), value, inside);
}"""


def switch(head: str, cases: Sequence[str], before: Sequence[str] = ()) -> str:
    """A function with one statement a part; parts with the same statement share it.

    `before`: its first lines.
    """
    if len(set(cases)) == 1:
        text = cases[0].replace("\n            ", "\n    ")
        return "\n".join([f"{head} {{", *before, f"    {text}", "}"])
    lines = [f"{head} {{", *before, "    switch part {"]
    for text in dict.fromkeys(cases):
        labels = [f"{index}u" for index, case in enumerate(cases) if case == text]
        if text == cases[-1]:
            labels = [*labels, "default"]
        lines.append(f"        case {', '.join(labels)}: {{\n            {text}\n        }}")
    return "\n".join([*lines, "    }", "}"])


def part_of(count: int) -> str:
    """The function that finds the part a workgroup belongs to, by the parts' first workgroups."""
    steps = [f"    part += u32(unit >= here.at[{WORDS * index}].x);" for index in range(1, count)]
    return "\n".join(
        ["fn part_of(unit: u32) -> u32 {", "    var part = 0u;", *steps, "    return part;", "}"]
    )


@dataclass(frozen=True)
class Finish:
    """The function that maps and stores four rows of one token's result, and its statements.

    ahead: that function, given what another one loads before there is a result; None where parts load
    different things, or nothing.
    """

    text: str
    ahead: str | None
    statements: tuple[Statement, ...]


def finish_of(writer: Writer, parts: Sequence[Part]) -> Finish:
    """How a product's results are finished.

    Parts followed by the same operations share a case: what differs between them is in their rows of the
    table.
    """
    cases, loads, rests = [], [], []
    statements: list[Statement] = []
    fields: list[list[tuple[str, str]]] = []
    for index, part in enumerate(parts):
        place = writer.table[WORDS * index + 1]
        writer.table[WORDS * index + 1] = (*place[:3], Amount(writer.start_part()))
        scope = Scope(writer)
        scope.give(part.op, "value")
        domain = matmul_domain(part.op)
        for op in (part.op, *part.after):
            if op in writer.stored or op.updates():
                scope.store(op, domain)
        statements += scope.statements
        cases.append("\n            ".join(statement.text() for statement in scope.statements))
        held = hold(scope.statements)
        fields.append(held.fields)
        names = ", ".join(name for name, _ in held.fields)
        ahead = [*(item.text() for item in (*held.common, *held.lanes)), f"return Kept({names});"]
        loads.append("\n            ".join(ahead))
        rests.append("\n            ".join(statement.text() for statement in held.rest(scope.statements)))
        writer.forget_names()
    head = "fn finish(part: u32, i0: u32, i2: u32, value: vec4<f32>"
    lines = ["    let i1 = 0u;", f"    let first = here.at[part * {WORDS}u + 1u].w;"]
    text = switch(f"{head})", cases, lines)
    if not fields[0] or any(each != fields[0] for each in fields):
        return Finish(text, None, tuple(statements))
    given = [f"    let {name} = kept.{name};" for name, _ in fields[0]]
    members = [f"    {name}: {kind}," for name, kind in fields[0]]
    keep = switch("fn keep(part: u32, i0: u32, i2: u32) -> Kept", loads, lines)
    rest = switch(f"{head}, kept: Kept)", rests, [*lines, *given])
    both = "\n".join(["struct Kept {", *members, "}", keep, rest])
    return Finish(text, both, tuple(statements))
