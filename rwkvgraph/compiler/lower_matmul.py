"""Matmul groups to passes: siblings side by side in the grid, each with the maps that follow it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rwkvgraph.compiler.domain import Strides, matmul_domain, split_parts
from rwkvgraph.compiler.fuse import Group
from rwkvgraph.compiler.matmul_parts import (
    COLUMNS_ONLY,
    WORDS,
    Finish,
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
from rwkvgraph.compiler.program import LOOK_WORD, LOOKED, TABLES, Amount, Grid, Pass, Region, Row, Variant
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
    product = _Product(group.label, parts, writer, texts, finish_of(writer, parts), target)
    leg = product.leg() if target.resident and _bytes(parts) < tuning_for(target).leg_bytes else None
    # Behind the leg, which has no use for them; where there is no room, nobody looks.
    has_room = len(writer.buffers) < target.limits.max_storage_buffers
    tables = writer.binding(TABLES).name if target.looks and has_room else ""
    kernels = kernels_for(target, [part.rows for part in parts])
    variants = tuple(product.variant(shape, most_tokens, tables) for shape, most_tokens in kernels)
    return Pass(group, variants, tuple(writer.buffers), product.tokens, leg, tuple(map(_region, parts)))


@dataclass(frozen=True)
class _Product:
    """What all kernels of a pass are made of. texts: how they read weights and inputs."""

    label: str
    parts: Sequence[Part]
    writer: Writer
    texts: Sequence[str]
    finish: Finish
    target: Target

    @property
    def tokens(self) -> Amount:
        """Of a run."""
        return Amount.of(self.parts[0].op.shape[0])

    def variant(self, shape: Shape, most_tokens: int | None, tables: str) -> Variant:
        """A kernel of a dispatch. tables: the name of the tables' binding, where there is one."""
        units = set_units(self.writer, self.parts, shape)
        looks = bool(tables) and shape.family == "split" and shape.tokens == 1
        source = self._source(shape, tables if looks else "")
        # Workgroups with the same rows side by side: what one has read of them, the cache has for the others.
        grid = Grid(Amount(units + looks), 1, self.tokens, shape.group_tokens, deep_first=True)
        return Variant(source, self._table(units), grid, most_tokens)

    def leg(self) -> Variant:
        """The kernel of a relay."""
        units = set_shares(self.writer, self.parts, self.target.resident)
        source = self._source(tuning_for(self.target).share, "")
        return Variant(source, self._table(units), Grid(Amount(units)), 1)

    def _table(self, units: int) -> tuple[Row, ...]:
        return (self.tokens, Amount(units), Amount(), Amount()), *self.writer.table

    def _source(self, shape: Shape, tables: str) -> Source:
        is_share = shape.family == "share"
        subgroups = uses_subgroups(shape, self.target.subgroups)
        kept = self.finish.ahead if can_keep(shape, subgroups) else None
        main = matmul_main(shape, subgroups, keeps=bool(kept), looks=bool(tables))
        extra = [look_ahead(tables, shape.threads, bool(kept))] if tables else [NO_PREPARE] * is_share
        body = "\n".join([part_of(len(self.parts)), *self.texts, kept or self.finish.text, *extra, main])
        functions, statements = tuple(self.writer.functions.values()), self.finish.statements
        places = len(self.writer.table)
        kernel = Parts(self.writer.bindings(), functions, statements, places, LANES, subgroups)
        source = assemble(self.label, kernel, body, shape.threads, self.target.dialect)
        return replace(source, engine=f"{main}\n" if is_share else "", looks_ahead=bool(tables))


def look_ahead(tables: str, threads: int, keeps: bool) -> str:
    """The function that brings the tables of the kernels behind this one into the cache that all share."""
    kept = ", keep(part, 0u, 0u)" if keeps else ""
    return f"""\
fn look_ahead(part: u32, thread: u32) {{
    var seen = 0u;
    for (var at = thread * 2u; at < {LOOKED}u; at += {2 * threads}u) {{
        seen ^= {tables}[(here.size.{"xyzw"[LOOK_WORD]} + at) * 4u]; // memory gives 32 bytes
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
