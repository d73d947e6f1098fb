"""Matrix products that work out by themselves the rows they multiply: for a single token.

What a row of one token takes is little next to a dispatch of its own (NVIDIA H200: 7 µs of 60 a layer,
twice), so each workgroup of the product that reads it does it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rwkvgraph.compiler.domain import Domain, find_domain, matmul_domain
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
from rwkvgraph.compiler.phases import phases_of
from rwkvgraph.compiler.plan import Plan
from rwkvgraph.compiler.program import Amount, Grid, Inlined, Variant
from rwkvgraph.compiler.scope import Scope
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.writer import Writer
from rwkvgraph.op import DType, TensorOp
from rwkvgraph.ops.matmul import Matmul
from rwkvgraph.quant import BLOCK
from rwkvgraph.view import LANES, T
from rwkvgraph_codegen import Parts, Shape, Statement, assemble, hold, matmul_main, prepare, uses_subgroups


def lower_inlined(
    group: Group, before: Group, parts: Sequence[Part], plan: Plan, target: Target, shape: Shape
) -> Inlined | None:
    """The kernel for one token of a pass that does what the group before it did; None where it cannot.

    Nobody but the product may read what the group before leaves: all else that the product reads is there.
    """
    domain = find_domain(before.ops) if before.kind == "row" else None
    if domain is None or domain.rows is not T or domain.middle != 1 or domain.lanes != LANES:
        return None
    made = set(before.ops)
    if any(part.op.x.source not in made or not part.op.x.is_whole for part in parts):
        return None
    others = (op for op in group.ops if not isinstance(op, Matmul))
    if any(tensor.source in made for op in others for tensor in op.operands().values()):
        return None
    if any(tensor.dtype is DType.F16 for op in before.ops for tensor in op.updates().values()):
        return None
    return _lower(group, before, parts, plan, target, shape, domain)


def _lower(
    group: Group,
    before: Group,
    parts: Sequence[Part],
    plan: Plan,
    target: Target,
    shape: Shape,
    domain: Domain,
) -> Inlined | None:
    own = matmul_domain(parts[0].op)
    writer = Writer(group, plan.places, own, WORDS * len(parts), is_single=True, ahead=before.ops)
    size = writer.row_of("row", Amount(domain.inner), Amount(domain.count), Amount(), Amount())
    read = list(dict.fromkeys(part.op.x.source for part in parts if isinstance(part.op.x.source, TensorOp)))
    phases = phases_of(writer, before.ops, read, domain)
    statements: list[Statement] = [item for phase in phases for item in phase.statements]
    weights = [f"return {weight_of(writer, part)};" for part in parts]
    inputs = _inputs(writer, parts, domain)
    is_share = shape.family == "share"
    if not is_share and not inputs.is_alike:
        return None
    statements += inputs.statements
    finish = finish_of(writer, parts)
    subgroups = is_share or uses_subgroups(shape, target.subgroups)
    main = matmul_main(shape, subgroups, prepares=True)
    body = "\n".join(
        [
            part_of(len(parts)),
            *([COLUMNS_ONLY] if domain.inner % BLOCK else []),
            switch("fn weight(part: u32, index: u32) -> vec4<u32>", weights),
            prepare(phases, shape.threads, subgroups, size),
            inputs.text(size) if is_share else inputs.text_ahead(size),
            finish.text,
            main,
        ]
    )
    functions = tuple(writer.functions.values())
    kernel = Parts(
        writer.bindings(), functions, (*statements, *finish.statements), len(writer.table), LANES, subgroups
    )
    source = assemble(group.label, kernel, body, shape.threads, target.dialect)
    rows = Amount.of(parts[0].op.shape[0])
    if is_share:
        source = replace(source, engine=f"{main}\n")
        units = set_shares(writer, parts, target.resident - 1)  # the last workgroup does the row for others
        grid = Grid(Amount(units))
    else:
        units = set_units(writer, parts, shape)
        grid = Grid(Amount(units), 1, rows, shape.group_tokens, deep_first=True)
    table = ((rows, Amount(units), Amount(), Amount()), *writer.table)
    return Inlined(Variant(source, table, grid, 1), tuple(writer.buffers))


_PLACES = [f"    let first = here.at[part * {WORDS}u + 2u].w;", "    let i0 = 0u;", "    let i1 = 0u;"]


@dataclass(frozen=True)
class _Inputs:
    """What the columns of each part's input are made of: lines that load, and lines that go on from there.

    fields: (name, type) of what is loaded, of each part. wholes: lines that do both.
    """

    loads: list[str]
    values: list[str]
    wholes: list[str]
    fields: list[list[tuple[str, str]]]
    statements: list[Statement]

    @property
    def is_alike(self) -> bool:
        """Whether something is loaded, and the same for all parts."""
        return bool(self.fields[0]) and all(each == self.fields[0] for each in self.fields)

    def text(self, size: int) -> str:
        """The function `input` of a share. size: the place in the table of the row's."""
        places = [*_PLACES, f"    let n = f32(here.at[{size}].x);"]
        return switch("fn input(part: u32, base: u32, lane: u32) -> vec4<f32>", self.wholes, places)

    def text_ahead(self, size: int) -> str:
        """The functions `input_ahead` and `input` of others."""
        given = [f"    let {name} = loaded.{name};" for name, _ in self.fields[0]]
        given.append(f"    let n = f32(here.at[{size}].x);")
        fields = [f"    {name}: {kind}," for name, kind in self.fields[0]]
        return "\n".join(
            [
                "struct Loaded {",
                *fields,
                "}",
                switch("fn input_ahead(part: u32, lane: u32) -> Loaded", self.loads, _PLACES),
                switch(
                    "fn input(part: u32, lane: u32, loaded: Loaded) -> vec4<f32>",
                    self.values,
                    [*_PLACES, *given],
                ),
            ]
        )


def _inputs(writer: Writer, parts: Sequence[Part], domain: Domain) -> _Inputs:
    writer.forget_names()
    found = _Inputs([], [], [], [], [])
    for index, part in enumerate(parts):
        set_place(writer, index, part)
        writer.table[WORDS * index + 2] = (Amount(), Amount(), Amount(), Amount(writer.start_part()))
        scope = Scope(writer, "lane", domain=domain)
        assert isinstance(part.op.x.source, TensorOp), "the caller has looked"
        value = scope.value(part.op.x.source)
        held = hold(scope.statements)
        found.fields.append(held.fields)
        names = ", ".join(name for name, _ in held.fields)
        loads = [item.text() for item in (*held.common, *held.lanes)]
        found.loads.append("\n            ".join([*loads, f"return Loaded({names});"]))
        own = "columns_only(part, lane, {})" if domain.inner % BLOCK else "{}"
        rest = [item.text() for item in held.rest(scope.statements)]
        found.values.append("\n            ".join([*rest, f"return {own.format(held.name(value))};"]))
        every = [item.text() for item in scope.statements]
        found.wholes.append("\n            ".join([*every, f"return {own.format(value)};"]))
        found.statements.extend(scope.statements)
        writer.forget_names()
    return found
