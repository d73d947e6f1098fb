"""The pass of a recurrence, with the per-head operations before and after it."""

from __future__ import annotations

from importlib import resources

from rwkvgraph.compiler.domain import Domain
from rwkvgraph.compiler.fuse import Group
from rwkvgraph.compiler.plan import Plan
from rwkvgraph.compiler.program import Amount
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.writer import HERE, Scope, Writer, wanted
from rwkvgraph.errors import CompileError
from rwkvgraph.op import Buffer, Row, Tensor, TensorOp
from rwkvgraph.ops.wkv7 import Wkv7
from rwkvgraph_codegen import Call, Head, Parts, Source, assemble, block, fill, head_text

OPERANDS = ("r", "w", "k", "v", "kk", "a")


def lower_wkv(group: Group, plan: Plan, domain: Domain, target: Target) -> tuple[Writer, Source, Amount]:
    """(the writer with buffers and table, the shader, workgroups in z) of a group with a recurrence."""
    writer = Writer(group, plan.places, domain)
    (op,) = (op for op in group.ops if isinstance(op, Wkv7))
    scope = writer.scope()
    before = {want.op for want in wanted(group.ops, [op])} - {op}
    inputs = {name: _operand(writer, scope, op, name) for name in OPERANDS}
    _stores(writer, scope, [item for item in group.ops if item in before])
    split = len(scope.statements)
    writer.give(op, "y")
    _stores(writer, scope, [item for item in group.ops if item not in before])
    head = _head(domain, target)
    if head.threads > target.limits.max_workgroup_invocations:
        raise CompileError(
            f"heads of {head.size} need {head.threads} threads a workgroup; the device allows "
            f"{target.limits.max_workgroup_invocations} (built at {op.where})"
        )
    holes = {**inputs, **_state(writer, op), **head_text(_buffer_name(writer, op.state), head, inputs)}
    holes["prologue"] = block(scope.statements[:split], 2)
    holes["epilogue"] = block(scope.statements[split:], 2)
    text = resources.files("rwkvgraph.ops").joinpath("wkv7.wgsl").read_text("utf-8")
    main = "\n".join([*_readers(writer, op), fill(text, **holes)])
    functions = tuple(writer.functions.values())
    statements = tuple(scope.statements)
    parts = Parts(writer.bindings(), functions, statements, len(writer.table), domain.lanes, target.subgroups)
    return (
        writer,
        assemble(group.label, parts, main, head.threads, target.dialect),
        Amount.of(op.starts.shape[0]),
    )


def _head(domain: Domain, target: Target) -> Head:
    """How a workgroup shares a head: on a GPU, as many threads a column as give 64 to 256 threads."""
    size, columns = domain.inner, domain.inner // domain.lanes
    wanted = (1,) if target.kind == "cpu" else (4, 2, 1)
    shares = next(
        shares for shares in wanted if shares == 1 or (size % shares == 0 and columns * shares <= 256)
    )
    hands_round = target.lanes >= 8 and size % 8 == 0 and columns * shares >= 8
    return Head(size, domain.lanes, shares, target.subgroups, hands_round)


def _operand(writer: Writer, scope: Scope, op: Wkv7, name: str) -> str:
    tensor = op.operands()[name]
    producer = writer.inside(tensor)
    if producer is not None:
        _sums(writer, scope, producer)
    return scope.operand(op, name, tensor)


def _stores(writer: Writer, scope: Scope, ops: list[TensorOp]) -> None:
    for item in ops:
        if item in writer.stored or (item.updates() and not isinstance(item, Wkv7)):
            _sums(writer, scope, item)
            first = len(scope.statements)
            scope.store(item)
            scope.guard_stores(first, "is_first")


def _sums(writer: Writer, scope: Scope, op: TensorOp) -> None:
    """Emit the reductions over the head that a value needs, before the value itself."""
    for want in wanted(writer.inside_ops(), [op]):
        if not isinstance(want.op, Row):
            continue
        for index, reduction in enumerate(want.op.reduce):
            name = writer.sum_name(want.op, HERE, reduction.name)
            if name not in scope.summed:
                scope.summed.add(name)
                value = scope.reduction(want.op, index)
                kind = "reduce_head" if reduction.combine == "+" else "reduce_head_max"
                scope.statements.append(Call(name, kind, ("thread", value)))


def _state(writer: Writer, op: Wkv7) -> dict[str, object]:
    """Where the state is: offset, elements from slot to slot and from row to row."""
    view = op.state.view
    row = writer.row_of(Amount(view.offset), Amount(view.strides[0]), Amount(view.strides[1]), Amount())
    return {"state": row}


def _readers(writer: Writer, op: Wkv7) -> list[str]:
    """The functions that read a slot's first token and a token's cursor."""
    texts = []
    for name, tensor, kind in (("starts", op.starts, "u32"), ("cursor", op.cursors, "vec4<u32>")):
        at = writer.row_of(Amount(tensor.view.offset), Amount(tensor.view.strides[0]), Amount(), Amount())
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
