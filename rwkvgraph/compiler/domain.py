"""The domain a kernel runs over, and whether a set of operations fits one kernel.

A domain is (rows, middle, inner): rows may be symbolic. A wide kernel sees four inner elements at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rwkvgraph.errors import ShapeError
from rwkvgraph.op import BEFORE, Buffer, DType, Map, Role, Row, Tensor, TensorOp
from rwkvgraph.ops.recurrence import Recurrence
from rwkvgraph.view import LANES, Shape, Size, View, row_width, split_rows
from rwkvgraph_codegen import ScanRule


@dataclass(frozen=True)
class Domain:
    """What one kernel covers: rows x middle x inner elements, `lanes` of them at a time."""

    rows: Size
    middle: int
    inner: int
    lanes: int

    @property
    def count(self) -> int:
        """Lanes of one (row, middle)."""
        return -(-self.inner // self.lanes)


@dataclass(frozen=True)
class Strides:
    """Where the elements of an operand lie: offset, and the steps of the three coordinates of a domain."""

    offset: int
    row: int
    middle: int
    inner: int

    def is_wide(self) -> bool:
        """Whether four inner elements can be read as one `vec4`, or are one element repeated."""
        if self.inner == 0:
            return True
        return self.inner == 1 and self.offset % LANES == self.row % LANES == self.middle % LANES == 0


def fits_kernel(ops: Sequence[TensorOp], kind: str) -> str | None:
    """Why these operations cannot be one kernel of that kind, or None."""
    reason = _check_reads(ops, kind)
    if reason:
        return reason
    if kind == "matmul":
        return _check_matmul(ops)
    recurrences = [op for op in ops if isinstance(op, Recurrence)]
    if len(recurrences) > 1:
        return "two recurrences"
    if any(isinstance(op.rule, ScanRule) for op in recurrences) and any(isinstance(op, Row) for op in ops):
        return "it reduces channels that other workgroups have"
    return None if find_domain(ops) else "the operations do not run over the same rows"


def find_domain(ops: Sequence[TensorOp]) -> Domain | None:
    """The domain all the operations can run over, None if there is none.

    Flat and wide if possible, then narrower.
    """
    sizes = {(rows, _product(inner)) for rows, inner in (split_rows(op.shape) for op in ops)}
    if len(sizes) != 1:
        return None
    ((rows, total),) = sizes
    fixed = {op.shape[-1] for op in ops if isinstance(op, (Recurrence, Row))}
    if len(fixed) > 1:
        return None
    shapes: list[tuple[int, int]] = [] if fixed else [(1, total)]
    for op in ops:
        inner = split_rows(op.shape)[1]
        shapes.append((_product(inner[:-1]), inner[-1]))
    for lanes in (LANES, 1):
        for middle, inner_size in dict.fromkeys(shapes):
            if fixed and inner_size not in fixed:
                continue
            domain = Domain(rows, middle, inner_size, lanes)
            if all(op_fits(op, domain) for op in ops):
                return domain
    return None


def op_fits(op: TensorOp, domain: Domain) -> bool:
    """Whether an operation's operands and result can be reached from a domain."""
    # Only the last axis of a row is padded to whole lanes: not heads, nor the rows of a recurrence's state.
    if (domain.middle > 1 or isinstance(op, Recurrence)) and domain.inner % domain.lanes:
        return False
    try:
        for name, tensor in op.operands().items():
            if tensor.dtype is DType.U32 or (isinstance(op, Recurrence) and name in op.updates()):
                continue  # read by the kernel's own text
            place = strides_of(tensor, op, name, domain)
            if domain.lanes > 1 and not (place.is_wide() and _owns_padding(tensor, op, domain)):
                return False
        result = strides_of(op.result, op, "", domain)
    except ShapeError:
        return False
    return domain.lanes == 1 or result.is_wide()


def strides_of(tensor: Tensor, op: TensorOp, name: str, domain: Domain) -> Strides:
    """Where an operand of `op` lies, seen from a domain.

    Raises ShapeError where no three strides describe it.
    """
    moved = isinstance(op, Map) and name in op.rows()
    updated = name in op.updates() if name else False
    own_rows = moved or (updated and tensor.view.shape != op.shape)
    return _strides(tensor.view, op.shape, own_rows, domain.middle, domain.inner)


@lru_cache(maxsize=1 << 14)
def _strides(view: View, shape: Shape, own_rows: bool, middle: int, elements: int) -> Strides:
    """Where the elements of a view lie, repeated to a shape unless its rows are its own.

    Kept, as all layers of a model ask the same, each several times: most of what fusing took.
    """
    if own_rows:
        leading, inner = view.strides[0], View(view.shape[1:], view.strides[1:])
        inner_shape = shape[1:]
    else:
        view = view.broadcast(shape)
        is_row = len(shape) == 1 and isinstance(shape[0], int)
        leading = 0 if is_row or not shape else view.strides[0]
        inner = View(view.shape, view.strides) if is_row else View(view.shape[1:], view.strides[1:])
        inner_shape = shape if is_row else shape[1:]
    dense = inner.broadcast(inner_shape).reshape((middle, elements))
    return Strides(view.offset, leading, dense.strides[0], dense.strides[1])


def is_aligned(tensor: Tensor, op: TensorOp) -> bool:
    """Whether element e of op's result reads element e of the tensor's source.

    Only then may both share a pass.
    """
    source = tensor.source
    if isinstance(source, Buffer) or tensor.view.from_last or tensor.view.offset:
        return False
    mine, theirs = split_rows(op.shape), split_rows(source.shape)
    if mine[0] != theirs[0] or _product(mine[1]) != _product(theirs[1]):
        return False
    flat: Shape = (theirs[0], _product(theirs[1]))
    try:
        return _flat(tensor.view, flat) == _flat(View.whole(source.shape), flat)
    except ShapeError:
        return False


def _flat(view: View, shape: Shape) -> View:
    if len(view.shape) == 1 and isinstance(view.shape[0], int):
        return view
    return view.reshape(shape)


def _check_reads(ops: Sequence[TensorOp], kind: str) -> str | None:
    """Values made inside the group must be read where they were made, or one row earlier."""
    inside = {id(op) for op in ops}
    shifted: set[int] = set()
    for op in ops:
        rows = op.rows() if isinstance(op, Map) else {}
        if BEFORE in rows.values():
            shifted.add(id(op))  # wherever that row comes from: nothing can be asked for two rows earlier
        for name, tensor in op.operands().items():
            if id(tensor.source) not in inside:
                continue
            if not is_aligned(tensor, op):
                return "it reads other elements than were made in its place"
            if name not in rows:
                if id(tensor.source) in shifted:
                    shifted.add(id(op))
                continue
            if rows[name] != BEFORE:
                return "it reads rows that other workgroups make"
            if kind not in ("map", "row") or id(tensor.source) in shifted:
                return "it reads the row before, which is too much to compute again"
    return None


def _check_matmul(ops: Sequence[TensorOp]) -> str | None:
    """Each map after a matmul must belong to one of them, and have its shape."""
    part: dict[int, int] = {}
    matmuls = [op for op in ops if op.kind == "matmul"]
    if len({op.shape[0] for op in matmuls}) > 1:
        return "their rows differ"
    for op in ops:
        if op.kind == "matmul":
            part[id(op)] = id(op)
            continue
        hosts = {part[id(tensor.source)] for tensor in op.operands().values() if id(tensor.source) in part}
        if len(hosts) > 1:
            return "it joins two matmuls, whose rows are in different workgroups"
        host = next((item for item in matmuls if id(item) in hosts), None) or _host(op, matmuls)
        if host is None or not op_fits(op, matmul_domain(host)) or op.shape != host.shape:
            return "its shape is not the matmul's"
        part[id(op)] = id(host)
    return None


def _host(op: TensorOp, matmuls: Iterable[TensorOp]) -> TensorOp | None:
    return next((item for item in matmuls if item.shape == op.shape), None)


def split_parts(ops: Sequence[TensorOp]) -> dict[TensorOp, list[TensorOp]]:
    """The maps of a matmul group by the matmul whose result they map, or ride along with."""
    matmuls = [op for op in ops if op.kind == "matmul"]
    parts: dict[TensorOp, list[TensorOp]] = {op: [] for op in matmuls}
    owner: dict[int, TensorOp] = {id(op): op for op in matmuls}
    for op in ops:
        if op.kind == "matmul":
            continue
        hosts = [owner[id(tensor.source)] for tensor in op.operands().values() if id(tensor.source) in owner]
        host = hosts[0] if hosts else _host(op, matmuls)
        assert host is not None, "fits_kernel has checked this"
        owner[id(op)] = host
        parts[host].append(op)
    return parts


def matmul_domain(op: TensorOp) -> Domain:
    """What the epilogue of a matmul runs over: four rows of its matrix at a time."""
    width = op.shape[1]
    assert isinstance(width, int), "only axis 0 may be symbolic"
    return Domain(op.shape[0], 1, width, LANES)


def _owns_padding(tensor: Tensor, op: TensorOp, domain: Domain) -> bool:
    """Whether the lanes beyond the last element of a row are free to touch.

    They are where they are padding of the same row, or, of weights, only read.
    """
    if domain.inner % domain.lanes == 0:
        return True
    if isinstance(tensor.source, TensorOp):
        return tensor.is_whole or tensor.view.strides[-1] == 0
    if tensor.source.role is Role.WEIGHT:
        return row_width(op.shape) >= domain.inner
    held = _product(split_rows(tensor.source.shape)[1])
    return held == domain.inner and tensor.view.offset % row_width(tensor.source.shape) == 0


def _product(sizes: Iterable[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total
