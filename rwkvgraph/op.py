"""What a graph is made of: operations with one result, built onto a tape.

Letters used for sizes throughout: T tokens in this run, O output rows, B slots (sequences), C channels
(`num_emb`), H heads, S head size, F hidden size of the feed-forward, V vocabulary, M and K rows and columns
of a matrix.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from rwkvgraph.errors import ShapeError
from rwkvgraph.tensor import NUMBERS
from rwkvgraph.tensor import Array as Array
from rwkvgraph.tensor import Buffer as Buffer
from rwkvgraph.tensor import DType as DType
from rwkvgraph.tensor import Home as Home
from rwkvgraph.tensor import Memory as Memory
from rwkvgraph.tensor import Role as Role
from rwkvgraph.tensor import Tensor as Tensor
from rwkvgraph.tensor import format_shape as format_shape
from rwkvgraph.tensor import overlap as overlap
from rwkvgraph.view import Shape, View, broadcast_shapes

if TYPE_CHECKING:
    pass

BEFORE = "max(i0, 1u) - 1u"
"""Row expression of an operand that is read one row (token) earlier; row 0 reads itself."""


def updated() -> Any:
    """Declares a Tensor field of an op as written in place."""
    return field(metadata={"updated": True})


def operand(row: str) -> Any:
    """Declares a Tensor field of a `Map` that is read at another row of its leading axis.

    row: a WGSL expression of type u32 over `i0` (the result's row) and the names of the op's u32 operands.
    """
    return field(metadata={"row": row})


class TensorOp:
    """One operation: operands in, one result out. Subclasses are frozen dataclasses, one class per kind.

    Tensor (and Matrix) fields are operands, all other fields parameters. Building one checks its shapes,
    notes where it was built, and puts it on the current tape.
    """

    where: str
    layer: int | None
    shape: Shape
    dtype: ClassVar[DType] = DType.F32
    kind: ClassVar[str] = ""
    """The skeleton that runs it, and so what it may share a pass with: map, row, matmul or wkv."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", caller())
        for item in _fields(self):
            object.__setattr__(self, item.name, _field_value(self, item.name, getattr(self, item.name)))
        object.__setattr__(self, "layer", _layer.get())
        _check_class(self)
        _check_race(self)
        object.__setattr__(self, "shape", self.infer())
        items = _tape.get()
        if items is not None:
            items.append(self)

    @property
    def name(self) -> str:
        """The kind of operation, as dumps and shader functions spell it."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    @property
    def result(self) -> Tensor:
        """What the operation makes, as an operand of others."""
        return Tensor(self, View.whole(self.shape), self.dtype)

    def operands(self) -> Mapping[str, Tensor]:
        """Every tensor the operation reads or writes, by field name.

        Parts of a matrix are `name.0`, `name.1` …
        """
        return self._operands

    @cached_property
    def _operands(self) -> Mapping[str, Tensor]:
        """Found once: the fields of an operation do not change, and compiling asks a hundred times."""
        found: dict[str, Tensor] = {}
        for name, value in self._values():
            if isinstance(value, Tensor):
                found[name] = value
            elif (parts := getattr(value, "parts", None)) is not None:
                found |= {f"{name}.{index}": part for index, part in enumerate(parts)}
        return found

    def updates(self) -> dict[str, Tensor]:
        """The operands that are written in place."""
        return {name: getattr(self, name) for name in _updated(type(self))}  # type: ignore[arg-type]

    def parameters(self) -> dict[str, float]:
        """The numbers that are not operands, by field name."""
        return {name: float(value) for name, value in self._values() if isinstance(value, NUMBERS)}

    def settings(self) -> tuple[Any, ...]:
        """All but the operands, hashable: the class, the numbers, the formats of matrices."""
        formats = [value.format.name for _, value in self._values() if hasattr(value, "format")]
        return (type(self), *self.parameters().items(), *formats)

    def infer(self) -> Shape:
        """The result's shape; the default is numpy broadcasting of the float operands. Raises ShapeError."""
        floats = [value.shape for value in self.operands().values() if value.dtype is not DType.U32]
        if not floats:
            raise ShapeError(f"{self.name} has no operand of floats, only of u32 (built at {caller()})")
        try:
            return broadcast_shapes(*floats)
        except ShapeError as error:
            raise ShapeError(f"{self.name}: {error} (built at {caller()})") from None

    def numpy(self, *arrays: Array) -> Array | None:
        """The meaning: arrays of the operands in field order give the result.

        Updated operands are written.
        """
        raise NotImplementedError(f"{type(self).__name__} has no numpy meaning")

    def _values(self) -> Iterator[tuple[str, Any]]:
        return ((item.name, getattr(self, item.name)) for item in _fields(self))

    def __repr__(self) -> str:
        return f"{self.name} {self.dtype.value}{format_shape(self.shape)}"


def _field_value(op: TensorOp, name: str, value: Any) -> Any:
    """A field of an op as it is kept, a Buffer as a tensor. Raises ShapeError for what no kernel takes."""
    if isinstance(value, Buffer):
        return value.tensor
    declared = str(op.__dataclass_fields__[name].type)  # type: ignore[attr-defined]  # subclasses are dataclasses
    if isinstance(value, Tensor) or hasattr(value, "parts"):
        return value
    if isinstance(value, NUMBERS) and "Tensor" not in declared:
        return value
    raise ShapeError(
        f"{op.name}: {name} is {value!r:.60}, a {type(value).__name__}; it takes a "
        f"{'Tensor or Buffer' if 'Tensor' in declared else 'number'} (built at {caller()})"
    )


def _check_class(op: TensorOp) -> None:
    """Raise ShapeError for an op class that could not be a key: one that is no frozen dataclass."""
    settings = getattr(type(op), "__dataclass_params__", None)
    if settings is None or not settings.frozen:
        raise ShapeError(
            f"{type(op).__name__} is not a frozen dataclass: decorate it @dataclass(frozen=True, eq=False)"
        )
    if isinstance(op, Map):
        _check_wgsl(op)


def _check_wgsl(op: Map) -> None:
    """Raise ShapeError for texts that are no expressions, and for reductions that cannot be told apart."""
    reductions = getattr(op, "reduce", ())
    for text in (op.wgsl, *(reduction.wgsl for reduction in reductions)):
        if not text.strip() or set(text) & set(";{}"):
            raise ShapeError(
                f"{type(op).__name__}: wgsl is one expression over the operands' names; given {text!r:.80}"
            )
    names = [item.name for item in _fields(op)] + [reduction.name for reduction in reductions]
    if isinstance(op, Row) and (not reductions or len(set(names)) != len(names)):
        raise ShapeError(
            f"{type(op).__name__} reduces to {', '.join(item.name for item in reductions) or 'nothing'}; a "
            "Row has at least one Reduction, and each has a name of its own"
        )


def _check_race(op: TensorOp) -> None:
    """Raise ShapeError where an op reads elements that it also writes, but not in their own place.

    On a device other threads may have written them already.
    """
    updates = op.updates()
    for name, target in updates.items():
        if not isinstance(target.source, Buffer):
            raise ShapeError(
                f"{op.name} writes {name}, which is a value of the graph and not memory; write a Buffer, or "
                f"assign the slot a new tensor (built at {caller()})"
            )
        for other, tensor in op.operands().items():
            if other not in updates and tensor.view != target.view and overlap(tensor, target):
                raise ShapeError(
                    f"{op.name} reads {other} where it writes {name}, shifted, in {target.source.name}; "
                    f"copy it first: identity({other}) (built at {caller()})"
                )


def _fields(op: TensorOp) -> tuple[Any, ...]:
    return _fields_of(type(op))  # type: ignore[arg-type]  # classes are hashable, whatever their instances are


@cache
def _fields_of(kind: Any) -> tuple[Any, ...]:
    """A class's fields; looked up for every operation of every run on numpy."""
    return fields(kind)


@cache
def _updated(kind: Any) -> tuple[str, ...]:
    """The names of a class's fields that are written in place."""
    return tuple(item.name for item in fields(kind) if item.metadata.get("updated"))


class Map(TensorOp):
    """An elementwise operation. `wgsl` is an expression over the operand and parameter names.

    Operands and result are of the lane type `V` (`vec4<f32>` or `f32`, the kernel's choice: write constants
    as `V(0.0)`), parameters f32; u32 operands are read once a row, as `u32`, or `vec4<u32>` for a last axis
    of 4. An operand that is updated is written, not read, and takes one value an element. `guard`: a
    condition on `i0` and the u32 operands; where it is false nothing is written. `row`: the row of the
    updated operand to write.
    """

    kind: ClassVar[str] = "map"
    wgsl: ClassVar[str] = ""
    guard: ClassVar[str] = ""
    row: ClassVar[str] = "i0"

    def rows(self) -> dict[str, str]:
        """The row expressions of the operands that are read at another row, by field name."""
        return {item.name: item.metadata["row"] for item in _fields(self) if "row" in item.metadata}


@dataclass(frozen=True)
class Reduction:
    """One reduction of a `Row`: `combine` ("+" or "max") over the last axis of the expression `wgsl`."""

    name: str
    wgsl: str
    combine: str = "+"

    def __post_init__(self) -> None:
        if self.combine not in ("+", "max"):
            raise ShapeError(f'reduction {self.name} combines by {self.combine!r}; there are "+" and "max"')


class Row(Map):
    """An operation that reduces the last axis, then maps it.

    `reduce` lists the reductions in order; each expression, and `wgsl`, may use the operands, the parameters,
    the f32 results of earlier reductions by name, and `n`, the length of the axis as f32.
    """

    kind: ClassVar[str] = "row"
    reduce: ClassVar[tuple[Reduction, ...]] = ()


_tape: ContextVar[list[Any] | None] = ContextVar("tape", default=None)
_layer: ContextVar[int | None] = ContextVar("layer", default=None)


@contextmanager
def tape() -> Iterator[list[Any]]:
    """Collects every operation built inside, in program order."""
    items: list[Any] = []
    token = _tape.set(items)
    try:
        yield items
    finally:
        _tape.reset(token)


@contextmanager
def in_layer(layer: int | None) -> Iterator[None]:
    """Marks the operations built inside as belonging to a layer, so that dumps can fold equal ones."""
    token = _layer.set(layer)
    try:
        yield
    finally:
        _layer.reset(token)


def record(item: object) -> None:
    """Put something that is not an operation (a hook site) on the current tape."""
    items = _tape.get()
    if items is not None:
        items.append(item)


def replace_operands(op: TensorOp, change: Callable[[Tensor], Tensor]) -> TensorOp:
    """`op` with every operand changed; the same object where nothing did. Records what it returns."""
    values = {name: getattr(op, name) for name, _ in op._values()}
    changed = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
    if all(values[name] is value for name, value in changed.items()):
        record(op)
        return op
    with in_layer(op.layer):
        new = cast(TensorOp, replace(cast(Any, op), **changed))
    object.__setattr__(new, "where", op.where)
    return new


_PACKAGE = Path(__file__).parent
_INSIDE = f"{_PACKAGE}{os.sep}"
_MODELS = f"{_PACKAGE / 'models'}{os.sep}"


def caller() -> str:
    """`file:line` of the nearest stack frame that builds a graph: the user's code, the test's, a model's.

    A model's is `rwkvgraph/models/v7.py:97`, of others only the file's name is given.
    """
    frame = sys._getframe(1)
    inside = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
    while frame.f_back is not None:
        path = frame.f_code.co_filename
        if path.startswith(_MODELS):
            return f"{Path(path).relative_to(_PACKAGE.parent).as_posix()}:{frame.f_lineno}"
        if not path.startswith(_INSIDE) and not path.startswith("<"):
            return f"{Path(path).name}:{frame.f_lineno}"
        frame = frame.f_back
    return inside
