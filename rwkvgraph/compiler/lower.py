"""Groups to passes: the last stage that thinks. What comes out is text and numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from importlib import resources

from rwkvgraph.compiler.domain import Domain, find_domain
from rwkvgraph.compiler.fuse import Group
from rwkvgraph.compiler.lower_matmul import lower_matmul
from rwkvgraph.compiler.plan import Plan, Slot
from rwkvgraph.compiler.program import Amount, Grid, Pass, Variant
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.tuning import tuning_for
from rwkvgraph.compiler.writer import HERE, Scope, Want, Writer, wanted
from rwkvgraph.errors import CompileError
from rwkvgraph.op import Buffer, Row, TensorOp
from rwkvgraph.ops.wkv7 import Wkv7
from rwkvgraph_codegen import (
    Call,
    Parts,
    Phase,
    Source,
    Store,
    Sum,
    assemble,
    block,
    fill,
    map_kernel,
    row_kernel,
)
from rwkvgraph_codegen.kernel import MAP_THREADS


def lower(group: Group, plan: Plan, target: Target) -> list[Pass]:
    """The passes that run a group: one, or several for a matrix in more parts than a pass can bind.

    Raises CompileError where the pass would break one of the target's limits.
    """
    match group.kind:
        case "matmul":
            passes = lower_matmul(group, plan, target)
        case "row":
            passes = [_lower_row(group, plan, target)]
        case "wkv":
            passes = [_lower_wkv(group, plan, target)]
        case _:
            passes = [_lower_map(group, plan, target)]
    for step in passes:
        if len(step.buffers) > target.limits.max_storage_buffers:
            raise CompileError(
                f"pass {step.label} binds {len(step.buffers)} buffers; the device binds "
                f"{target.limits.max_storage_buffers} (first built at {group.ops[0].where})"
            )
    return passes


def layer_of(group: Group) -> int | None:
    """The layer a group's pass is counted in: that of its last operation."""
    return group.ops[-1].layer


def size_row(domain: Domain) -> tuple[Amount, Amount, Amount, Amount]:
    """The first row of every uniform: rows, middle, inner elements, lanes of a row."""
    return Amount.of(domain.rows), Amount(domain.middle), Amount(domain.inner), Amount(domain.count)


def _domain(group: Group) -> Domain:
    domain = find_domain(group.ops)
    if domain is None:
        raise CompileError(f"pass {group.label} has no common domain (first built at {group.ops[0].where})")
    return domain


def _lower_map(group: Group, plan: Plan, target: Target) -> Pass:
    domain = _domain(group)
    writer = Writer(group, plan.places, domain)
    scope = _stores(writer, group.ops)
    source = map_kernel(group.label, _parts(writer), scope.statements, target.dialect)
    items = Amount.of(domain.rows).times(domain.middle * domain.count)
    return _pass(group, writer, source, Grid(items, MAP_THREADS), domain)


def _lower_row(group: Group, plan: Plan, target: Target) -> Pass:
    domain = _domain(group)
    writer = Writer(group, plan.places, domain)
    threads = tuning_for(target).row_threads
    phases = _phases(writer, group)
    scope = _stores(writer, group.ops)
    parts = _parts(writer, subgroups=target.subgroups)
    source = row_kernel(group.label, parts, phases, scope.statements, threads, target.dialect)
    return _pass(group, writer, source, Grid(Amount.of(domain.rows).times(domain.middle)), domain)


def _phases(writer: Writer, group: Group) -> list[Phase]:
    """The reductions of a group in as few loops as their dependencies allow, four of one kind a loop."""
    level: dict[Want, int] = {}
    waiting: dict[tuple[int, str], list[tuple[Row, int, str]]] = defaultdict(list)
    for want in wanted(group.ops, _roots(writer, group.ops)):
        below = [level[other] for other in _inputs(want, level)]
        depth = max(below, default=0)
        if isinstance(want.op, Row):
            for index, reduction in enumerate(want.op.reduce):
                depth += 1
                waiting[depth, reduction.combine].append((want.op, index, want.row))
        level[want] = depth
    phases: list[Phase] = []
    for _, items in sorted(waiting.items(), key=lambda entry: entry[0]):
        for start in range(0, len(items), 4):
            phases.append(_phase(writer, items[start : start + 4]))
    return phases


def _phase(writer: Writer, items: Sequence[tuple[Row, int, str]]) -> Phase:
    scope = writer.scope()
    sums = []
    for op, index, row in items:
        value = scope.reduction(op, index, row)
        name = writer.sum_name(op, row, op.reduce[index].name)
        sums.append(Sum(name, value, op.reduce[index].combine))
    return Phase(tuple(scope.statements), tuple(sums))


def _inputs(want: Want, known: dict[Want, int]) -> list[Want]:
    sources = {tensor.source for tensor in want.op.operands().values()}
    return [other for other in known if other.op in sources]


def _roots(writer: Writer, ops: Sequence[TensorOp]) -> list[TensorOp]:
    return [op for op in ops if op in writer.stored or op.updates()]


def _stores(writer: Writer, ops: Sequence[TensorOp]) -> Scope:
    scope = writer.scope()
    for op in _roots(writer, ops):
        scope.store(op)
    return scope


def _lower_wkv(group: Group, plan: Plan, target: Target) -> Pass:
    domain = _domain(group)
    writer = Writer(group, plan.places, domain)
    (op,) = (op for op in group.ops if isinstance(op, Wkv7))
    before = {want.op for want in wanted(group.ops, [op])} - {op}
    scope = writer.scope()
    sums: list[str] = []
    inputs = {name: _head_operand(writer, scope, op, name) for name in ("r", "w", "k", "v", "kk", "a")}
    for item in _roots(writer, [item for item in group.ops if item in before]):
        scope.store(item)
    split = len(scope.statements)
    writer.give(op, "y")
    if op in writer.stored:
        scope.store(op)
    for item in (item for item in group.ops if item is not op and item not in before):
        _with_sums(writer, scope, item)
        if item in writer.stored or item.updates():
            scope.store(item)
    del sums
    holes = _wkv_holes(writer, op, domain)
    body = fill(
        resources.files("rwkvgraph.ops").joinpath("wkv7.wgsl").read_text("utf-8"),
        size=domain.inner,
        prologue=block(scope.statements[:split], 2),
        epilogue=block(scope.statements[split:], 2),
        **inputs,
        **{key: value for key, value in holes.items() if key in ("state", "state_buffer")},
    )
    parts = _parts(writer)
    parts = Parts(parts.bindings, parts.functions, tuple(scope.statements), parts.places, 1)
    main = "\n".join([str(holes["starts"]), str(holes["cursor"]), body])
    source = assemble(group.label, parts, main, domain.inner, target.dialect)
    slots = op.starts.shape[0]
    return _pass(group, writer, source, Grid(Amount(domain.middle), 1, Amount.of(slots)), domain)


def _wkv_holes(writer: Writer, op: Wkv7, domain: Domain) -> dict[str, object]:
    assert isinstance(op.state.source, Buffer) and isinstance(op.starts.source, Buffer)
    batch = writer.binding(op.starts.source)
    view = op.starts.view
    starts = writer.row_of(Amount(view.offset), Amount(view.strides[0]), Amount(), Amount())
    cursors = writer.row_of(
        Amount(op.cursors.view.offset), Amount(op.cursors.view.strides[0]), Amount(), Amount()
    )
    state = writer.row_of(
        Amount(op.state.view.offset),
        Amount(op.state.view.strides[0]),
        Amount(op.state.view.strides[1]),
        Amount(),
    )
    first = f"let e = here.at[{cursors}].x + i * here.at[{cursors}].y;"
    words = ", ".join(f"{batch.name}[e + {index}u]" for index in range(4))
    return {
        "state": state,
        "state_buffer": writer.binding(op.state.source).name,
        "starts": f"fn load_starts(i: u32) -> u32 {{\n"
        f"    return {batch.name}[here.at[{starts}].x + i * here.at[{starts}].y];\n}}",
        "cursor": f"fn load_cursor(i: u32) -> vec4<u32> {{\n    {first}\n    return vec4<u32>({words});\n}}",
    }


def _head_operand(writer: Writer, scope: Scope, op: Wkv7, name: str) -> str:
    tensor = op.operands()[name]
    producer = writer.inside(tensor)
    if producer is not None:
        _with_sums(writer, scope, producer)
    return scope.operand(op, name, tensor)


def _with_sums(writer: Writer, scope: Scope, op: TensorOp) -> None:
    """Emit the reductions over the head that a value needs, before the value itself."""
    for want in wanted(list(writer.inside_ops()), [op]):
        if not isinstance(want.op, Row):
            continue
        for index, reduction in enumerate(want.op.reduce):
            name = writer.sum_name(want.op, HERE, reduction.name)
            if name not in scope.summed:
                scope.summed.add(name)
                value = scope.reduction(want.op, index)
                kind = "reduce_head" if reduction.combine == "+" else "reduce_head_max"
                scope.statements.append(Call(name, kind, ("thread", value)))


def _parts(writer: Writer, subgroups: bool = False) -> Parts:
    functions = tuple(writer.functions.values())
    return Parts(writer.bindings(), functions, (), max(1, len(writer.table)), writer.domain.lanes, subgroups)


def _pass(group: Group, writer: Writer, source: Source, grid: Grid, domain: Domain) -> Pass:
    variant = Variant(source, (size_row(domain), *writer.table), grid)
    return Pass(group.label, layer_of(group), (variant,), tuple(writer.buffers), Amount.of(domain.rows))


__all__ = ["Slot", "Store", "layer_of", "lower", "size_row"]
