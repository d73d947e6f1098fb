"""Buffers, and tensors: a buffer or an operation's result seen through a view."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from operator import index
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rwkvgraph.errors import ShapeError
from rwkvgraph.view import Dim, Shape, Size, View, row_width

if TYPE_CHECKING:
    from rwkvgraph.op import TensorOp

Array = NDArray[Any]


class DType(Enum):
    """Element types of buffers. Expressions compute in float32, whatever the storage."""

    F32 = "f32"
    F16 = "f16"
    U32 = "u32"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy type of one element."""
        return np.dtype({"f32": np.float32, "f16": np.float16, "u32": np.uint32}[self.value])

    @property
    def bytes(self) -> int:
        """Bytes of one element."""
        return self.numpy.itemsize


def _dtype(name: str, given: Any) -> DType:
    """An element type by itself or by name. Raises ShapeError for what is none."""
    try:
        return DType(given)
    except ValueError:
        known = ", ".join(dtype.value for dtype in DType)
        raise ShapeError(f"buffer {name!r} has dtype {given!r:.40}; there are {known}") from None


class Role(Enum):
    """What a buffer is for: who fills it and how long it lives."""

    WEIGHT = "weight"
    STATE = "state"
    INPUT = "input"
    OUTPUT = "output"
    USER = "user"


class Memory(Protocol):
    """Where the contents of a buffer live once a device (or numpy) holds it.

    owner: the device's Context, or the numpy Host.
    """

    owner: Any

    @property
    def is_alive(self) -> bool:
        """Whether the device still holds it."""

    def read(self) -> Array:
        """The contents, in the buffer's shape."""

    def write(self, array: Array) -> None:
        """Replace the contents."""


@dataclass(frozen=True, eq=False)
class Home:
    """What buffers of one shape share that a device keeps one behind the other: one binding reaches all.

    count: how many they are.
    """

    name: str
    count: int


class Buffer:
    """Named memory that outlives a run. `Buffer("strength", (1,))` is one a hook may read or write.

    A user's buffer starts as zeros; `write(array)` changes it between runs without compiling anything
    again, and `read()` gives what the last run left in it. dtype is F32, F16 or U32; a one-axis shape of
    known length is a row.
    """

    def __init__(
        self,
        name: str,
        shape: Size | tuple[Size, ...],
        dtype: DType | str = DType.F32,
        role: Role = Role.USER,
    ) -> None:
        self.name = name
        sizes = shape if isinstance(shape, tuple | list) else (shape,)
        self.shape: Shape = tuple(size if isinstance(size, Dim) else index(size) for size in sizes)
        self.dtype = _dtype(name, dtype)
        self.role = role
        self.is_texture = False
        """Whether a device holds it as a texture.

        Software adapters read weights several times faster from those.
        """
        self.home: Home | None = None
        """What its memory may be part of."""
        self.place = 0
        """How many others are before it there."""
        self._memories: list[Memory] = []
        self._host: Array | None = None
        if role is Role.USER and not all(isinstance(size, int) and size > 0 for size in self.shape):
            raise ShapeError(
                f"buffer {name!r} of shape {self.shape}: a user's buffer has sizes of at least 1"
            )

    @property
    def tensor(self) -> Tensor:
        """All of the buffer, as an operand."""
        return Tensor(self, View.whole(self.shape), self.dtype)

    def __getitem__(self, key: object) -> Tensor:
        return self.tensor[key]

    def memory_of(self, owner: object) -> Memory | None:
        """The memory that a device (or numpy) holds for the buffer, if it does."""
        return next((memory for memory in self._memories if memory.owner is owner), None)

    def attach(self, memory: Memory) -> None:
        """Tell the buffer where its contents now live; whoever binds the buffer first calls this."""
        memory.write(self.read())
        self._memories.append(memory)

    def _forget_the_dead(self) -> None:
        """Drop the memories of devices that were lost or destroyed: what was written last is what is left."""
        self._memories = [memory for memory in self._memories if memory.is_alive]

    def used(self, memory: Memory) -> None:
        """Tell the buffer that a run may have written this memory of it: it is the one to read."""
        if self._memories[-1] is not memory:
            self._memories.remove(memory)
            self._memories.append(memory)

    def read(self) -> Array:
        """A copy of the contents: those of the device that ran last, or what was written."""
        self._forget_the_dead()
        if self._memories:
            return self._memories[-1].read()
        if self._host is None:
            return np.zeros(tuple(size for size in self.shape if isinstance(size, int)), self.dtype.numpy)
        return self._host.copy()

    def write(self, array: Any) -> None:
        """Replace the contents everywhere.

        Raises ShapeError unless the array has the buffer's shape, and for numbers that its type cannot hold.
        """
        given = np.asarray(array)
        if given.shape != self.shape:
            raise ShapeError(
                f"buffer {self.name!r} has shape {self.shape}; it was given an array of {given.shape}"
            )
        values = as_type(given, self.dtype, f"buffer {self.name!r}")
        self._host = values.copy()
        self._forget_the_dead()
        for memory in self._memories:
            memory.write(self._host)

    def __repr__(self) -> str:
        return f"{self.name}: {self.dtype.value}{format_shape(self.shape)} {self.role.value}"


def as_type(given: Array, dtype: DType, what: str) -> Array:
    """An array of a buffer's type. Raises ShapeError for numbers that it cannot hold.

    float16 rounds, and float32; what would become infinite is refused, and for u32 what is no whole number
    of at least 0.
    """
    if given.dtype.kind not in "fiub":
        raise ShapeError(f"{what} holds {dtype.value}; it was given an array of {given.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        values = given.astype(dtype.numpy)
        wrong = values != given if dtype is DType.U32 else np.isinf(values) & np.isfinite(given)
    if wrong.any():
        at = tuple(int(axis[0]) for axis in np.nonzero(wrong))
        raise ShapeError(f"{what} holds {dtype.value}; it was given {given[at]} at {list(at)}")
    return values


@dataclass(frozen=True, eq=False, repr=False)
class Tensor:
    """An operand: a buffer or an operation's result, seen through a view.

    Slicing makes a view, arithmetic an op.
    """

    source: Buffer | TensorOp
    view: View
    dtype: DType

    @property
    def shape(self) -> Shape:
        """The sizes of the axes; a symbolic one is a `Dim` and comes first."""
        return self.view.shape

    @property
    def where(self) -> str:
        """`file:line` of the code that built the source."""
        return f"buffer {self.source.name}" if isinstance(self.source, Buffer) else self.source.where

    @property
    def is_whole(self) -> bool:
        """Whether this is all of its source, in its own layout."""
        return self.view.is_whole(self.source.shape)

    def __getitem__(self, key: object) -> Tensor:
        return replace(self, view=self.view.index(key))

    def reshape(self, *shape: Size) -> Tensor:
        """The same elements under another shape, without moving them.

        Raises ShapeError where that cannot be.
        """
        return replace(self, view=self.view.reshape(shape))

    def transpose(self, *axes: int) -> Tensor:
        """The axes in another order, without moving anything; a symbolic axis stays first."""
        return replace(self, view=self.view.transpose(axes))

    def broadcast(self, shape: Shape) -> Tensor:
        """This tensor repeated to `shape`, by numpy's rules, without moving anything."""
        return replace(self, view=self.view.broadcast(shape))

    def __add__(self, other: Operand) -> Tensor:
        return _build("add", self, other)

    def __radd__(self, other: float) -> Tensor:
        return _build("add", self, other)

    def __sub__(self, other: Operand) -> Tensor:
        return _build("subtract", self, other)

    def __rsub__(self, other: float) -> Tensor:
        return _build("add", -self, other)

    def __mul__(self, other: Operand) -> Tensor:
        return _build("multiply", self, other)

    def __rmul__(self, other: float) -> Tensor:
        return _build("multiply", self, other)

    def __truediv__(self, other: Operand) -> Tensor:
        return _build("divide", self, other)

    def __neg__(self) -> Tensor:
        return _build("multiply", self, -1.0)

    __array_ufunc__ = None
    """So that numpy's operators leave arithmetic with tensors to tensors."""

    def __iter__(self) -> Iterator[Tensor]:
        raise ShapeError(self._no_numbers("walked through"))

    def __bool__(self) -> bool:
        raise ShapeError(self._no_numbers("asked whether it is true"))

    def __array__(self, *args: Any, **options: Any) -> Array:
        raise ShapeError(self._no_numbers("turned into an array"))

    def _no_numbers(self, what: str) -> str:
        return (
            f"{self!r} is a value of the graph, which has no numbers before it runs; it cannot be {what}. "
            "Use operations on it, or blit it into a buffer and read that after the run"
        )

    def __repr__(self) -> str:
        name = self.source.name
        return f"{name}: {self.dtype.value}{format_shape(self.shape)}"


NUMBERS = (int, float, np.integer, np.floating)
"""The kinds of number that an operation's parameters may be."""
Operand = Tensor | Buffer | float
"""What stands beside a tensor in arithmetic."""


def _build(name: str, *operands: Operand) -> Tensor:
    # A local import: tensor -> ops.elementwise -> op -> tensor, the one cycle, made by operators that build
    # ops.
    from rwkvgraph.ops import elementwise

    result: Tensor = getattr(elementwise, name)(*operands)
    return result


def format_shape(shape: Shape) -> str:
    """`[T, 256]`: how dumps write a shape."""
    return "[" + ", ".join(map(str, shape)) + "]"


def overlap(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors may share an element."""
    if a.source is not b.source:
        return False
    (first_a, end_a), (first_b, end_b) = a.view.span(), b.view.span()
    if (0 <= end_a <= first_b) or (0 <= end_b <= first_a):
        return False
    columns_a, columns_b = _columns(a), _columns(b)
    return columns_a[0] < columns_b[1] and columns_b[0] < columns_a[1]


def _columns(tensor: Tensor) -> tuple[int, int]:
    """(first, end) of the columns of its source's rows that a tensor may touch."""
    width, view = row_width(tensor.source.shape), tensor.view
    inside = [(size, step) for size, step in zip(view.shape, view.strides, strict=True) if step % width]
    reach = sum((size - 1) * step for size, step in inside if isinstance(size, int))
    first = view.offset % width
    is_open = first + reach >= width or any(not isinstance(size, int) for size, _ in inside)
    return (0, width) if is_open else (first, first + reach + 1)
