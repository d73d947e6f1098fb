"""Matrix products that work out by themselves the rows they multiply: for a single token.

What a row of one token takes is little next to a dispatch of its own (NVIDIA H200: 7 µs of 60 a layer,
twice), so each workgroup of the product that reads it does it again.
"""

from __future__ import annotations

from collections.abc import Sequence

from rwkvgraph.compiler.domain import Domain, find_domain, matmul_domain
from rwkvgraph.compiler.fuse import Group
from rwkvgraph.compiler.matmul_parts import (
    COLUMNS_ONLY,
    WORDS,
    Cases,
    Part,
    finish_of,
    set_place,
    switch,
    weight_of,
)
from rwkvgraph.compiler.phases import phases_of
from rwkvgraph.compiler.plan import Plan
from rwkvgraph.compiler.product import Product
from rwkvgraph.compiler.program import Inlined
from rwkvgraph.compiler.scope import Scope
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.variant import Amount
from rwkvgraph.compiler.writer import Writer
from rwkvgraph.op import DType, TensorOp
from rwkvgraph.ops.matmul import Matmul
from rwkvgraph.quant import BLOCK
from rwkvgraph.view import LANES, T
from rwkvgraph_codegen import Shape, Statement, prepare, uses_subgroups


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
    if not is_share and not inputs.can_part:
        return None
    has_subgroups = is_share or uses_subgroups(shape, target.subgroups)
    texts = [
        *([COLUMNS_ONLY] if domain.inner % BLOCK else []),
        switch("fn weight(part: u32, index: u32) -> vec4<u32>", weights),
        prepare(phases, shape.threads, has_subgroups, size, -(-domain.count // shape.threads)),
        _input(inputs, size, is_share, domain.inner % BLOCK != 0),
    ]
    statements += inputs.statements
    finish = finish_of(writer, parts)
    product = Product(group.label, parts, writer, target, finish, texts, statements, prepares=True)
    # In a relay the last workgroup does the row for others.
    variant = product.leg(target.resident - 1) if is_share else product.variant(shape, 1)
    return Inlined(variant, tuple(writer.buffers))


def _input(inputs: Cases, size: int, is_share: bool, is_ragged: bool) -> str:
    """The function `input`, with `input_ahead` but for shares. size: the place in the table of the row's.

    is_ragged: whether a row may end inside a block; what is asked for behind it is loaded from its last lane.
    """
    places = [f"    let first = here.at[part * {WORDS}u + 2u].w;", "    let i0 = 0u;", "    let i1 = 0u;"]
    places += ["    let lane = last_lane(part, at);"] if is_ragged else []
    asked = "at" if is_ragged else "lane"
    elements = [f"    let n = f32(here.at[{size}].x);"]
    if is_share:
        return inputs.whole(f"fn input(part: u32, base: u32, {asked}: u32) -> vec4<f32>", places, elements)
    ahead = f"fn input_ahead(part: u32, {asked}: u32)"
    rest = f"fn input(part: u32, {asked}: u32, loaded: Loaded) -> vec4<f32>"
    return inputs.halves(ahead, rest, "loaded", places, elements)


def _inputs(writer: Writer, parts: Sequence[Part], domain: Domain) -> Cases:
    """What the columns of each part's input are made of."""
    writer.forget_names()
    found = Cases("Loaded")
    own = "columns_only(part, at, {})" if domain.inner % BLOCK else "{}"
    for index, part in enumerate(parts):
        set_place(writer, index, part)
        writer.table[WORDS * index + 2] = (Amount(), Amount(), Amount(), Amount(writer.start_part()))
        scope = Scope(writer, "lane", domain=domain)
        assert isinstance(part.op.x.source, TensorOp), "the caller has looked"
        value = scope.value(part.op.x.source)
        found.add(scope.statements, value, own)
        writer.forget_names()
    return found
