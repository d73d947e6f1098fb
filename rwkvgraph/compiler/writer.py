"""Turning operations into statements: what is loaded, called and stored at one place of a kernel's domain."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rwkvgraph.compiler.domain import Domain, Strides, strides_of
from rwkvgraph.compiler.fuse import Group
from rwkvgraph.compiler.plan import Place, Slot
from rwkvgraph.compiler.variant import COUNTED, FOR_TILES, HANDED, NO_ROW, Amount
from rwkvgraph.compiler.variant import Row as TableRow
from rwkvgraph.op import BEFORE, Buffer, DType, Home, Tensor, TensorOp
from rwkvgraph.view import row_width
from rwkvgraph_codegen import Binding, Function, number

HERE = "i0"
ABOVE = f"({BEFORE})"
"""The rows a value can be wanted in: the kernel's own, or the one before."""


@dataclass(frozen=True)
class Want:
    """A value of the group, in one of the two rows."""

    op: TensorOp
    row: str


class Writer:
    """Builds one kernel's bindings, uniform table, functions and statements for a group of operations.

    is_single: for runs of one row, before which there is none: what asks for that one is given the row
    itself. ahead: operations of another group that the kernel does again, for itself. bound: what the group's
    other kernels bind, which comes first. between: the slot in which one of two kernels leaves numbers for
    the other, bound as single ones.
    """

    def __init__(
        self,
        group: Group,
        places: dict[TensorOp, Place],
        domain: Domain,
        reserved: int = 0,
        is_single: bool = False,
        ahead: Sequence[TensorOp] = (),
        bound: Sequence[Buffer | Slot] = (),
        between: Slot | None = None,
    ) -> None:
        self.domain = domain
        self.between = between
        self.above = HERE if is_single else ABOVE
        self.functions: dict[str, Function] = {}
        self.table: list[TableRow] = [NO_ROW] * reserved
        self.buffers = list(bound)
        self.stored = _stored(group, places)
        self._rows: dict[object, int] = {}
        self._base: int | None = None
        self._places = places
        self._ops = group.ops
        self._inside = {*ahead, *group.ops}
        self._written: set[Buffer | Slot] = {places[op].slot for op in self.stored}
        self._written |= {_buffer(tensor) for op in group.ops for tensor in op.updates().values()}
        # What shares its memory with what is written must be bound alike.
        self._homes = {home for item in self._written if (home := home_of(item)) is not None}
        self._sums: dict[tuple[TensorOp, str, str], str] = {}
        self._count = 0

    def binding(self, source: Buffer | Slot) -> Binding:
        """The binding of a buffer, made when first asked for."""
        if source not in self.buffers:
            self.buffers.append(source)
        if source in FOR_TILES:
            at, is_wide, is_coherent = self.buffers.index(source) + 1, source is not COUNTED, source is HANDED
            return Binding(
                at, source.dtype.value, True, is_wide, is_atomic=not is_wide, is_coherent=is_coherent
            )
        if source is self.between:
            return Binding(self.buffers.index(source) + 1, "f32", True, False)
        dtype = source.dtype if isinstance(source, Buffer) else DType.F32
        wide = self.domain.lanes > 1
        is_texture = isinstance(source, Buffer) and source.is_texture
        is_written = source in self._written or home_of(source) in self._homes
        return Binding(self.buffers.index(source) + 1, dtype.value, is_written, wide, is_texture)

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
            offset = _with_last(place_in(source, strides.offset), tensor, row_width(source.shape))
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


def _stored(group: Group, places: dict[TensorOp, Place]) -> list[TensorOp]:
    return [op for op in group.ops if op in places]


def home_of(source: Buffer | Slot) -> Home | None:
    """What a buffer shares its memory with."""
    return source.home if isinstance(source, Buffer) else None


def place_in(buffer: Buffer, offset: int) -> Amount:
    """An element's place in a buffer."""
    return Amount(offset, within=buffer if buffer.home else None)


def _buffer(tensor: Tensor) -> Buffer:
    assert isinstance(tensor.source, Buffer), "only buffers are updated"
    return tensor.source


def _with_last(offset: Amount, tensor: Tensor, stride: int) -> Amount:
    last = tensor.view.from_last
    if last is None:
        return offset
    return replace(offset, constant=offset.constant - stride, factor=stride, size=last)


def _table_row(offset: Amount, row: int, middle: int, inner: int) -> TableRow:
    return offset, Amount(row), Amount(middle), Amount(inner)


def _rescale(step: int, width: int, stride: int) -> int:
    return step // width * stride if step >= width else step


def _float_word(value: float) -> Amount:
    return Amount(struct.unpack("<I", struct.pack("<f", float(value)))[0])
