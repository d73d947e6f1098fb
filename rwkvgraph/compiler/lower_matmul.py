"""Matmul groups to passes: siblings side by side in the grid, each with the maps that follow it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rwkvgraph.compiler.domain import Strides, matmul_domain, split_parts
from rwkvgraph.compiler.fuse import Group
from rwkvgraph.compiler.matmul_parts import (
    COLUMNS_ONLY,
    WORDS,
    Part,
    finish_of,
    part_of,
    set_place,
    set_shares,
    set_units,
    switch,
    weight_of,
)
from rwkvgraph.compiler.plan import Plan
from rwkvgraph.compiler.program import LOOKED, TABLES, Amount, Grid, Pass, Region, Variant
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.tuning import kernels_for, tuning_for
from rwkvgraph.compiler.writer import Writer
from rwkvgraph.op import Buffer, DType
from rwkvgraph.ops.matmul import Matmul
from rwkvgraph.quant import BLOCK
from rwkvgraph.view import LANES, resolve
from rwkvgraph_codegen import Parts, Shape, Source, assemble, can_keep, matmul_main, uses_subgroups

NO_PREPARE = """\
fn prepare(thread: u32, subgroup: u32) {
}"""
"""What a share has to prepare where its input is there."""


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


def _region(part: Part) -> Region:
    """Where a part's weights lie."""
    view, source = part.weights.view, part.weights.source
    assert isinstance(source, Buffer), "weights live in buffers"
    return Region(source, view.offset // BLOCK, part.rows * (view.strides[0] // BLOCK))


def _bytes(parts: Sequence[Part]) -> int:
    """Of the matrices."""
    return sum(part.rows * resolve(part.weights.shape[1], {}) for part in parts) * DType.F16.bytes


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
