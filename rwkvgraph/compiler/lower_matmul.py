"""Matmul groups to passes: siblings side by side in the grid, each with the maps that follow it."""

from __future__ import annotations

from collections.abc import Sequence

from rwkvgraph.compiler.domain import Strides, matmul_domain, split_parts
from rwkvgraph.compiler.fuse import Group
from rwkvgraph.compiler.matmul_parts import (
    COLUMNS_ONLY,
    WORDS,
    Part,
    finish_of,
    set_place,
    switch,
    weight_of,
)
from rwkvgraph.compiler.plan import Plan
from rwkvgraph.compiler.product import Product
from rwkvgraph.compiler.program import Pass, Region
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.tuning import fitted, kernels_for, tuning_for
from rwkvgraph.compiler.variant import TABLES, Variant
from rwkvgraph.compiler.writer import Writer
from rwkvgraph.op import Buffer, DType
from rwkvgraph.ops.matmul import Matmul
from rwkvgraph.quant import BLOCK
from rwkvgraph.view import resolve
from rwkvgraph_codegen import MOST_HANDED


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
    product = Product(group.label, parts, writer, target, finish_of(writer, parts), texts)
    has_leg = target.resident and _bytes(parts) < tuning_for(target).leg_bytes
    leg = product.leg(target.resident) if has_leg else None
    # Behind the leg, which has no use for them; where there is no room, nobody looks.
    has_room = len(writer.buffers) < target.limits.max_storage_buffers
    tables = writer.binding(TABLES).name if target.looks and has_room else ""
    can_split = len(writer.buffers) + 2 <= target.limits.max_storage_buffers
    can_split &= target.limits.most_bytes >= MOST_HANDED
    in_one = len({part.weights.source for part in parts}) == 1
    kernels = kernels_for(target, [part.rows for part in parts], can_split, in_one)
    columns = max(part.columns for part in parts)
    # Those that split columns last: they bind what the others have no use for.
    made: dict[int, Variant] = {}
    for at in sorted(range(len(kernels)), key=lambda at: kernels[at][0].splits > 1):
        shape, most_tokens = kernels[at]
        made[at] = product.variant(fitted(shape, columns, target), most_tokens, tables)
    variants = tuple(made[at] for at in range(len(kernels)))
    return Pass(group, variants, tuple(writer.buffers), product.tokens, leg, tuple(map(_region, parts)))


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
        lane = "columns_only(part, lane, {b}[base + last_lane(part, lane)])"
    readers = [
        switch("fn weight(part: u32, index: u32) -> vec4<u32>", [f"return {block};" for block in weights]),
        switch(
            "fn input(part: u32, base: u32, lane: u32) -> vec4<f32>",
            [f"return {lane.format(b=name)};" for name in inputs],
        ),
    ]
    return [COLUMNS_ONLY, *readers] if ragged else readers
