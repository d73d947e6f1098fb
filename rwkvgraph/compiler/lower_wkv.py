"""The pass of a recurrence, with the per-head operations before and after it."""

from __future__ import annotations

from importlib import resources

from rwkvgraph.compiler.domain import Domain
from rwkvgraph.compiler.fuse import Group
from rwkvgraph.compiler.plan import Plan
from rwkvgraph.compiler.program import Amount
from rwkvgraph.compiler.scope import Scope, wanted
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.writer import HERE, Writer
from rwkvgraph.errors import CompileError
from rwkvgraph.op import Buffer, Reduction, Row, Tensor, TensorOp
from rwkvgraph.ops.wkv7 import Wkv7
from rwkvgraph.view import LANES
from rwkvgraph_codegen import Call, Head, Parts, Source, Statement, assemble, block, fill, head_text

MOST_THREADS = 256
"""Threads of a head's workgroup: what every WebGPU device allows."""
MOST_ROWS = 32
"""Rows of a head that a thread holds on a software adapter.

llvmpipe's compile time grows faster than their number.
"""

OPERANDS = ("r", "w", "k", "v", "kk", "a")


def lower_wkv(group: Group, plan: Plan, domain: Domain, target: Target) -> tuple[Writer, Source, Amount]:
    """(the writer with buffers and table, the shader, workgroups in z) of a group with a recurrence."""
    writer = Writer(group, plan.places, domain)
    (op,) = (op for op in group.ops if isinstance(op, Wkv7))
    head = _head(domain, target)
    limits = target.limits
    if head.threads > limits.max_workgroup_invocations or head.memory > limits.max_workgroup_storage:
        raise CompileError(
            f"heads of {head.size} need {head.threads} threads and {head.memory} bytes a workgroup; the "
            f"device allows {limits.max_workgroup_invocations} and {limits.max_workgroup_storage} "
            f"(built at {op.where})"
        )
    lanes = _Lanes(writer, head)
    before = {want.op for want in wanted(group.ops, [op])} - {op}
    inputs = {name: lanes.operand(op, name) for name in OPERANDS}
    lanes.store([item for item in group.ops if item in before])
    split = len(lanes.statements)
    lanes.give(op, "y")
    lanes.store([item for item in group.ops if item not in before])
    holes = {**_state(writer, op), **head_text(_buffer_name(writer, op.state), head, inputs)}
    holes["prologue"] = block(lanes.statements[:split], 2)
    holes["epilogue"] = block(lanes.statements[split:], 2)
    file = "wkv7_subgroup.wgsl" if head.is_subgroup else "wkv7.wgsl"
    text = resources.files("rwkvgraph.ops").joinpath(file).read_text("utf-8")
    main = "\n".join([*_readers(writer, op), fill(text, **holes)])
    functions = tuple(writer.functions.values())
    statements = tuple(lanes.statements)
    parts = Parts(writer.bindings(), functions, statements, len(writer.table), domain.lanes, target.subgroups)
    return (
        writer,
        assemble(group.label, parts, main, head.threads, target.dialect),
        Amount.of(op.starts.shape[0]),
    )


def _head(domain: Domain, target: Target) -> Head:
    """How a workgroup shares a head: on a GPU by up to four threads a column, on llvmpipe in one subgroup."""
    size, columns = domain.inner, domain.inner // domain.lanes
    if target.lanes == 8 and domain.lanes == LANES and size in (32, 64):
        return Head(size, LANES, 1, True, is_subgroup=True)
    possible = [n for n in (1, 2, 4, 8) if size % n == 0 and (n == 1 or columns * n <= MOST_THREADS)]
    if target.kind == "cpu":
        shares = next((n for n in possible if size // n <= MOST_ROWS), possible[-1])
    else:
        shares = max(n for n in possible if n <= 4)
    return Head(size, domain.lanes, shares, target.subgroups)


class _Lanes:
    """The statements of a head's workgroup: one scope for each lane that a thread has, taking turns."""

    def __init__(self, writer: Writer, head: Head) -> None:
        self.statements: list[Statement] = []
        self._writer = writer
        self._head = head
        self._scopes = [Scope(writer, name, self.statements) for name in head.lane_names]
        self._summed: set[str] = set()

    def operand(self, op: Wkv7, name: str) -> list[str]:
        """The variables with an operand's value, a lane each."""
        tensor = op.operands()[name]
        producer = self._writer.inside(tensor)
        if producer is not None:
            self._sum(producer)
        return [scope.operand(op, name, tensor) for scope in self._scopes]

    def give(self, op: TensorOp, name: str) -> None:
        """Let the value of an op be variables that the kernel's own text sets: `y`, or `y0`, `y1`, …"""
        for index, scope in enumerate(self._scopes):
            scope.give(op, f"{name}{index}" if self._head.is_subgroup else name)

    def store(self, ops: list[TensorOp]) -> None:
        """Write what the operations leave behind, after the reductions that need it; once for a column."""
        for item in ops:
            if item in self._writer.stored or (item.updates() and not isinstance(item, Wkv7)):
                self._sum(item)
                first = len(self.statements)
                for scope in self._scopes:
                    scope.store(item)
                if self._head.shares > 1:
                    self._scopes[0].guard_stores(first, "is_first")

    def _sum(self, op: TensorOp) -> None:
        """Emit the reductions over the head that a value needs, before the value itself."""
        for want in wanted(self._writer.inside_ops(), [op]):
            if not isinstance(want.op, Row):
                continue
            for index, reduction in enumerate(want.op.reduce):
                name = self._writer.sum_name(want.op, HERE, reduction.name)
                if name not in self._summed:
                    self._summed.add(name)
                    self._reduce(name, [scope.reduction(want.op, index) for scope in self._scopes], reduction)

    def _reduce(self, name: str, values: list[str], reduction: Reduction) -> None:
        joined = values[0]
        for value in values[1:]:
            joined = f"{joined} + {value}" if reduction.combine == "+" else f"max({joined}, {value})"
        kind = "reduce_head" if reduction.combine == "+" else "reduce_head_max"
        self.statements.append(Call(name, kind, ("thread", joined)))


def _state(writer: Writer, op: Wkv7) -> dict[str, object]:
    """Where the state is: offset, elements from slot to slot and from row to row."""
    view = op.state.view
    steps = Amount(view.strides[0]), Amount(view.strides[1])
    row = writer.row_of("state", Amount(view.offset), *steps, Amount())
    return {"state": row}


def _readers(writer: Writer, op: Wkv7) -> list[str]:
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
