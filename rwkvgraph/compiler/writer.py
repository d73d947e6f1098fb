"""Turning operations into statements: what is loaded, called and stored at one place of a kernel's domain."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rwkvgraph.compiler.domain import Domain, Strides, strides_of
from rwkvgraph.compiler.fuse import Group
from rwkvgraph.compiler.plan import Place, Slot
from rwkvgraph.compiler.program import Amount
from rwkvgraph.compiler.program import Row as TableRow
from rwkvgraph.op import BEFORE, Buffer, DType, Map, Row, Tensor, TensorOp
from rwkvgraph.view import row_width
from rwkvgraph_codegen import Binding, Call, Function, Load, Statement, Store, number

HERE = "i0"
ABOVE = f"({BEFORE})"
"""The rows a value can be wanted in: the kernel's own, or the one before."""


@dataclass(frozen=True)
class Want:
    """A value of the group, in one of the two rows."""

    op: TensorOp
    row: str


class Writer:
    """Builds one kernel's bindings, uniform table, functions and statements for a group of operations."""

    def __init__(
        self, group: Group, places: dict[TensorOp, Place], domain: Domain, reserved: int = 0
    ) -> None:
        self.domain = domain
        self.functions: dict[str, Function] = {}
        self.table: list[TableRow] = [_ROW_OF_ZEROS] * reserved
        self.buffers: list[Buffer | Slot] = []
        self.stored = _stored(group, places)
        self._rows: dict[object, int] = {}
        self._base: int | None = None
        self._places = places
        self._ops = group.ops
        self._inside = set(group.ops)
        self._written: set[Buffer | Slot] = {places[op].slot for op in self.stored}
        self._written |= {_buffer(tensor) for op in group.ops for tensor in op.updates().values()}
        self._sums: dict[tuple[TensorOp, str, str], str] = {}
        self._given: dict[Want, str] = {}
        self._count = 0

    def give(self, op: TensorOp, name: str) -> None:
        """Let the value of an op be a variable that the kernel's own text sets."""
        self._given[Want(op, HERE)] = name

    def scope(self, lane: str = "i2", statements: list[Statement] | None = None) -> Scope:
        """A new straight line of statements for a lane; values of other scopes are not visible in it.

        statements: those of another scope, to take turns with it.
        """
        return Scope(self, lane, [] if statements is None else statements)

    def binding(self, source: Buffer | Slot) -> Binding:
        """The binding of a buffer, made when first asked for."""
        if source not in self.buffers:
            self.buffers.append(source)
        dtype = source.dtype if isinstance(source, Buffer) else DType.F32
        wide = self.domain.lanes > 1
        is_texture = isinstance(source, Buffer) and source.is_texture
        return Binding(self.buffers.index(source) + 1, dtype.value, source in self._written, wide, is_texture)

    def bindings(self) -> tuple[Binding, ...]:
        """Every binding, in order."""
        return tuple(self.binding(buffer) for buffer in self.buffers)

    def row_of(self, key: object, *amounts: Amount) -> int:
        """The place in the uniform's table of a row with these four numbers.

        Made when first asked for by `key`. By key, not by value: numbers that happen to agree in one layer
        must not change its text.
        """
        if key not in self._rows:
            self._rows[key] = len(self.table)
            self.table.append((amounts[0], amounts[1], amounts[2], amounts[3]))
        return self._rows[key]

    def place(
        self, tensor: Tensor, op: TensorOp, name: str, domain: Domain | None = None
    ) -> tuple[Binding, str, bool]:
        """(binding, place in the table, whether one element serves a whole row) of an operand."""
        strides = strides_of(tensor, op, name, domain or self.domain)
        binding, row = self.locate(tensor, strides)
        return (
            binding,
            self.spot(self.row_of((tensor.source, tensor.view, strides), *row)),
            strides.inner == 0,
        )

    def locate(self, tensor: Tensor, strides: Strides) -> tuple[Binding, TableRow]:
        """The binding of a tensor, and the table's row for reaching it by these strides."""
        source = tensor.source
        if isinstance(source, Buffer):
            offset = _with_last(Amount(strides.offset), tensor, row_width(source.shape))
            steps = (strides.row, strides.middle, strides.inner)
            return self.binding(source), _table_row(offset, *steps)
        home, width = self._places[source], row_width(source.shape)
        rows, rest = divmod(strides.offset, width)
        offset = _with_last(Amount(home.column + rest + rows * home.stride), tensor, home.stride)
        scaled = [_rescale(step, width, home.stride) for step in (strides.row, strides.middle, strides.inner)]
        return self.binding(home.slot), _table_row(offset, *scaled)

    def function(
        self, name: str, parameters: Sequence[tuple[str, str]], returns: str, expression: str
    ) -> str:
        """The name under which a function is in the kernel; another one of the same name gets a number."""
        base, count = name, 0
        while True:
            function = Function(name, tuple(parameters), returns, expression)
            if self.functions.setdefault(name, function) == function:
                return name
            count += 1
            name = f"{base}_{count}"

    def forget_names(self) -> None:
        """Let variable names start over: what follows is another block."""
        self._count = 0

    def fresh(self) -> str:
        """A new variable name."""
        self._count += 1
        return f"v{self._count - 1}"

    def numbers(self, op: TensorOp) -> tuple[str, ...]:
        """The op's parameters, as expressions that read them from the uniform."""
        values = list(op.parameters().values())
        words: list[str] = []
        for start in range(0, len(values), 4):
            four = [_float_word(value) for value in values[start : start + 4]]
            four += [Amount()] * (4 - len(four))
            row = self.row_of((op, start), *four)
            words += [number(self.spot(row), index) for index in range(len(values[start : start + 4]))]
        return tuple(words)

    def start_part(self) -> int:
        """Begin the rows of a part: from here on places are said relative to `first`, the part's first row.

        So the parts of a kernel that differ only in places have equal text, and share it. Gives the row.
        """
        self._base = len(self.table)
        self._rows.clear()
        return self._base

    def spot(self, row: int) -> str:
        """A row of the table as the expression that kernels use for it."""
        return str(row) if self._base is None else f"first + {row - self._base}u"

    def inside_ops(self) -> Sequence[TensorOp]:
        """The group's operations, in program order."""
        return self._ops

    def inside(self, tensor: Tensor) -> TensorOp | None:
        """The operation of this group that makes a tensor, if one does."""
        source = tensor.source
        return source if isinstance(source, TensorOp) and source in self._inside else None

    def sum_name(self, op: TensorOp, row: str, reduction: str) -> str:
        """The variable that holds a reduction's result, fixed at first mention."""
        return self._sums.setdefault((op, row, reduction), f"{reduction}_{len(self._sums)}")

    def given(self, want: Want) -> str | None:
        """The variable the kernel's own text sets for a value."""
        return self._given.get(want)


class Scope:
    """Statements in order; each value is computed once."""

    def __init__(self, writer: Writer, lane: str, statements: list[Statement]) -> None:
        self.statements = statements
        self.lane = lane
        self._writer = writer
        self._domain = writer.domain
        self._known: dict[object, str] = {}

    def give(self, op: TensorOp, name: str) -> None:
        """Let the value of an op be a variable that the kernel's own text sets."""
        self._known[Want(op, HERE)] = name

    def value(self, op: TensorOp, row: str = HERE) -> str:
        """The variable with an operation's value; loads and calls are added as needed."""
        want = Want(op, row)
        name = self._writer.given(want) or self._known.get(want)
        if name is None:
            assert isinstance(op, Map), "only maps and rows have an expression"
            name = self._call(op, row)
            self._known[want] = name
        return name

    def reduction(self, op: Row, index: int, row: str = HERE) -> str:
        """The variable with the expression of a row operation's reduction."""
        reduction = op.reduce[index]
        parameters, arguments = self._arguments(op, row)
        earlier = [item.name for item in op.reduce[:index]]
        parameters += [(name, "f32") for name in (*earlier, "n")]
        arguments += [self._writer.sum_name(op, row, name) for name in earlier] + ["n"]
        name = self._writer.function(f"op_{op.name}_{reduction.name}", parameters, "V", reduction.wgsl)
        return self._emit(name, arguments)

    def store(self, op: TensorOp, domain: Domain | None = None) -> None:
        """Write what an operation leaves behind: its result, where others read it, and what it updates.

        domain: of the scope from here on, where it is not the kernel's: a pass may hold matmuls of several
        widths.
        """
        self._domain = domain or self._domain
        if op in self._writer.stored:
            binding, at, _ = self._writer.place(op.result, op, "", self._domain)
            self.statements.append(Store(binding, at, self.value(op), lane=self.lane))
        if not isinstance(op, Map):
            return
        for name, tensor in op.updates().items():
            binding, at, _ = self._writer.place(tensor, op, name, self._domain)
            value = self.value(op)
            row = self._row(op, "row", op.row, HERE) if op.row != "i0" else HERE
            guard = self._row(op, "guard", op.guard, HERE, "bool") if op.guard else ""
            self.statements.append(Store(binding, at, value, row, guard, self.lane))

    def guard_stores(self, first: int, condition: str) -> None:
        """Let the stores from statement `first` on happen only where `condition` holds."""
        for index, item in enumerate(self.statements[first:], first):
            if isinstance(item, Store):
                guard = f"{condition} && {item.guard}" if item.guard else condition
                self.statements[index] = replace(item, guard=guard)

    def operand(self, op: TensorOp, name: str, tensor: Tensor, row: str = HERE) -> str:
        """The variable with an operand's value."""
        writer = self._writer
        producer = writer.inside(tensor)
        expression = op.rows().get(name, "") if isinstance(op, Map) else ""
        if expression == BEFORE:
            row = ABOVE
        if producer is not None:
            return self.value(producer, row)
        if tensor.dtype is DType.U32:
            return self._word(tensor, row)
        if expression and expression != BEFORE:
            row = self._row(op, name, expression, row)
        binding, at, splat = writer.place(tensor, op, name, self._domain)
        return self._load(binding, "splat" if splat else "lane", at, row)

    def _call(self, op: Map, row: str) -> str:
        parameters, arguments = self._arguments(op, row)
        if isinstance(op, Row):
            parameters += [(item.name, "f32") for item in op.reduce] + [("n", "f32")]
            arguments += [self._writer.sum_name(op, row, item.name) for item in op.reduce] + ["n"]
        name = self._writer.function(f"op_{op.name}", parameters, "V", op.wgsl)
        return self._emit(name, arguments)

    def _arguments(self, op: Map, row: str) -> tuple[list[tuple[str, str]], list[str]]:
        parameters, arguments = self._words(op, row)
        for name, tensor in op.operands().items():
            if tensor.dtype is not DType.U32 and name not in op.updates():
                parameters.append((name, "V"))
                arguments.append(self.operand(op, name, tensor, row))
        parameters += [(name, "f32") for name in op.parameters()]
        arguments += self._writer.numbers(op)
        return parameters, arguments

    def _words(self, op: TensorOp, row: str) -> tuple[list[tuple[str, str]], list[str]]:
        """i0 and the u32 operands, for an op that has some."""
        words = {name: tensor for name, tensor in op.operands().items() if tensor.dtype is DType.U32}
        if not words:
            return [], []
        parameters = [("i0", "u32")] + [(name, _word_type(tensor)) for name, tensor in words.items()]
        return parameters, [row, *(self._word(tensor, row) for tensor in words.values())]

    def _word(self, tensor: Tensor, row: str) -> str:
        assert isinstance(tensor.source, Buffer), "operations make f32"
        binding = self._writer.binding(tensor.source)
        step = tensor.view.strides[0] if tensor.view.strides else 0
        at = self._writer.row_of(tensor.view, Amount(tensor.view.offset), Amount(step), Amount(), Amount())
        mode = "words" if _word_type(tensor) != "u32" else "word"
        return self._load(binding, mode, self._writer.spot(at), row)

    def _row(self, op: TensorOp, name: str, expression: str, row: str, returns: str = "u32") -> str:
        """A variable with a row expression's (or guard's) value.

        The expression is over i0, the u32 operands and the parameters.
        """
        parameters, arguments = self._words(op, row)
        if not parameters:
            parameters, arguments = [("i0", "u32")], [row]
        parameters += [(key, "f32") for key in op.parameters()]
        arguments = [*arguments, *self._writer.numbers(op)]
        function = self._writer.function(f"op_{op.name}_{name}_row", parameters, returns, expression)
        return self._emit(function, arguments)

    def _load(self, binding: Binding, mode: str, at: str, row: str) -> str:
        key = ("load", binding, mode, at, row)
        if key not in self._known:
            name = self._writer.fresh()
            self.statements.append(Load(name, binding, mode, at, row, self.lane))  # type: ignore[arg-type]  # a Mode, by callers
            self._known[key] = name
        return self._known[key]

    def _emit(self, function: str, arguments: Iterable[str]) -> str:
        key = ("call", function, tuple(arguments))
        if key not in self._known:
            name = self._writer.fresh()
            self.statements.append(Call(name, function, key[2]))
            self._known[key] = name
        return self._known[key]


_ROW_OF_ZEROS: TableRow = (Amount(), Amount(), Amount(), Amount())


def wanted(group: Sequence[TensorOp], roots: Iterable[TensorOp]) -> list[Want]:
    """The values of a group that its roots need, in the rows they need them in, producers first."""
    inside = set(group)
    order: dict[Want, None] = {}

    def visit(op: TensorOp, row: str) -> None:
        if Want(op, row) in order:
            return
        rows = op.rows() if isinstance(op, Map) else {}
        for name, tensor in op.operands().items():
            if isinstance(tensor.source, TensorOp) and tensor.source in inside:
                visit(tensor.source, ABOVE if rows.get(name) == BEFORE else row)
        order[Want(op, row)] = None

    for root in roots:
        visit(root, HERE)
    return list(order)


def _stored(group: Group, places: dict[TensorOp, Place]) -> list[TensorOp]:
    return [op for op in group.ops if op in places]


def _buffer(tensor: Tensor) -> Buffer:
    assert isinstance(tensor.source, Buffer), "only buffers are updated"
    return tensor.source


def _with_last(offset: Amount, tensor: Tensor, stride: int) -> Amount:
    last = tensor.view.from_last
    return offset if last is None else Amount(offset.constant - stride, stride, last)


def _table_row(offset: Amount, row: int, middle: int, inner: int) -> TableRow:
    return offset, Amount(row), Amount(middle), Amount(inner)


def _rescale(step: int, width: int, stride: int) -> int:
    return step // width * stride if step >= width else step


def _word_type(tensor: Tensor) -> str:
    return "vec4<u32>" if tensor.shape[-1:] == (4,) and len(tensor.shape) == 2 else "u32"


def _float_word(value: float) -> Amount:
    return Amount(struct.unpack("<I", struct.pack("<f", float(value)))[0])
