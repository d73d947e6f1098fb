"""Shapes with symbolic leading axes, and views: which elements of a source an operand reads.

A view never becomes a node of the graph. Its numbers reach a shader as data (a uniform), never as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from operator import index

from rwkvgraph.errors import ShapeError


@dataclass(frozen=True)
class Dim:
    """A size that is known when a program runs, not when it is compiled. Only ever a leading axis."""

    name: str

    def __repr__(self) -> str:
        return self.name


T = Dim("T")
"""Tokens in this run, those of all slots side by side."""
O = Dim("O")  # noqa: E741 - the domain's letter
"""Output rows: the tokens of this run whose logits are wanted."""
B = Dim("B")
"""Slots (sequences) of the state."""
N = Dim("N")
"""Slots that have tokens in this run."""
E = Dim("E")
"""Embedding vectors that stand in place of tokens in this run; 1 where there are none."""

Size = int | Dim
Shape = tuple[Size, ...]
Sizes = Mapping[Dim, int]

KEPT_SHAPES = 1 << 12
"""Shapes whose layout is kept: all layers of a model have the same, and ask for it thousands of times."""

LANES = 4
"""Elements of a `vec4`: rows start at multiples of it, so that whole lanes can be read."""


def round_up(number: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `number`."""
    return -(-number // multiple) * multiple


def resolve(size: Size, sizes: Sizes) -> int:
    """A size as a number. Raises ShapeError for a dimension that `sizes` lacks."""
    if isinstance(size, int):
        return size
    if size not in sizes:
        raise ShapeError(f"the size of dimension {size} is not known here; known: {dict(sizes)}")
    return sizes[size]


@lru_cache(maxsize=KEPT_SHAPES)
def split_rows(shape: Shape) -> tuple[Size, tuple[int, ...]]:
    """(rows, inner): how a shape lies in memory. A one-axis shape of known length is one row."""
    if not shape:
        return 1, (1,)
    if len(shape) == 1 and isinstance(shape[0], int):
        return 1, (shape[0],)
    inner = tuple(size for size in shape[1:] if isinstance(size, int))
    if len(inner) != len(shape) - 1:
        raise ShapeError(f"shape {shape} has a symbolic axis that is not the leading one; only axis 0 may be")
    return shape[0], inner or (1,)


@lru_cache(maxsize=KEPT_SHAPES)
def row_width(shape: Shape) -> int:
    """Elements between the starts of two rows: the inner elements, rounded up to whole lanes."""
    width = 1
    for size in split_rows(shape)[1]:
        width *= size
    return round_up(width, LANES)


@dataclass(frozen=True)
class View:
    """Where the elements of an operand lie in its source.

    Element (i, j, …) is element `offset + i * strides[0] + j * strides[1] + …` of the source. `from_last`
    marks a view of the last row of a symbolic axis: (size - 1) rows are added to the offset when the size
    is known.
    """

    shape: Shape
    strides: tuple[int, ...]
    offset: int = 0
    from_last: Dim | None = None

    @staticmethod
    @lru_cache(maxsize=KEPT_SHAPES)
    def whole(shape: Shape) -> View:
        """The view of a source in its own layout: rows padded to whole lanes, dense inside a row."""
        strides: list[int] = []
        step = 1
        for size in reversed(split_rows(shape)[1]):
            strides.insert(0, step)
            step *= size
        if len(shape) != len(strides) or isinstance(shape[0], Dim):
            strides = [row_width(shape), *strides][: len(shape)]
        return View(shape, tuple(strides))

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def is_whole(self, shape: Shape) -> bool:
        """Whether this is all of a source of that shape, in its own layout."""
        return self == View.whole(shape)

    def index(self, key: object) -> View:
        """The view `source[key]` of basic indexing: integers, slices and None-free tuples of them.

        Raises IndexError for an index out of range, and on a symbolic axis for all but `[:]`, `[-1]` and
        `[-1:]`.
        """
        keys = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis in keys:
            at = keys.index(Ellipsis)
            keys[at : at + 1] = [slice(None)] * (self.rank - len(keys) + 1)
        if len(keys) > self.rank:
            raise IndexError(f"{len(keys)} indices for a tensor of shape {self.shape}")
        view = replace(self, shape=(), strides=())
        for axis, size in enumerate(self.shape):
            part = keys[axis] if axis < len(keys) else slice(None)
            if hasattr(part, "__index__"):
                part = index(part)  # numpy's integers too
            view = _take(view, part, size, self.strides[axis])
        return view

    def reshape(self, shape: tuple[Size, ...]) -> View:
        """The same elements under another shape. Axes may be split, or merged where they lie densely.

        One size may be -1: what the others leave.

        Raises ShapeError where the element counts differ or the axes to merge are not dense.
        """
        shape = _without_minus_one(shape, self.shape)
        if shape == self.shape:
            return self
        strides: list[int] = []
        mine = [(size, step) for size, step in zip(self.shape, self.strides, strict=True) if size != 1]
        wanted = [size for size in shape if size != 1]
        groups = _match_axes(mine, wanted, self.shape, shape)
        flat = iter(step for group in groups for step in group)
        for size in shape:
            strides.append(0 if size == 1 else next(flat))
        return replace(self, shape=shape, strides=tuple(strides))

    def transpose(self, axes: tuple[int, ...]) -> View:
        """The axes in another order; a symbolic axis stays first."""
        if sorted(axes) != list(range(self.rank)):
            raise ShapeError(f"axes {axes} are not an order of the {self.rank} axes of shape {self.shape}")
        shape = tuple(self.shape[axis] for axis in axes)
        split_rows(shape)
        return replace(self, shape=shape, strides=tuple(self.strides[axis] for axis in axes))

    def broadcast(self, shape: Shape) -> View:
        """This view repeated to `shape` by strides of zero.

        Raises ShapeError where numpy would not broadcast.
        """
        missing = len(shape) - self.rank
        if missing < 0:
            raise ShapeError(
                f"shape {self.shape} has more axes than {shape}, so it cannot be broadcast to it"
            )
        strides = [0] * missing
        for mine, step, wanted in zip(self.shape, self.strides, shape[missing:], strict=True):
            if mine != wanted and mine != 1:
                raise ShapeError(f"shape {self.shape} does not broadcast to {shape}")
            strides.append(step if mine == wanted else 0)
        return replace(self, shape=shape, strides=tuple(strides))

    def span(self) -> tuple[int, int]:
        """(first, end) of the source elements that may be touched.

        end is -1 where a symbolic axis leaves it open.
        """
        if self.from_last is not None or any(isinstance(size, Dim) for size in self.shape):
            return 0, -1
        sizes = (size for size in self.shape if isinstance(size, int))
        last = sum((size - 1) * step for size, step in zip(sizes, self.strides, strict=True))
        return self.offset, self.offset + last + 1


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The common shape by numpy's rules. Raises ShapeError where there is none."""
    rank = max((len(shape) for shape in shapes), default=0)
    result: list[Size] = []
    for axis in range(rank):
        sizes = {shape[axis - rank + len(shape)] for shape in shapes if axis - rank + len(shape) >= 0} - {1}
        if len(sizes) > 1:
            raise ShapeError(f"shapes {', '.join(map(str, shapes))} do not broadcast together")
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)


def _without_minus_one(shape: Shape, before: Shape) -> Shape:
    """The shape with -1 worked out; as it is where symbolic axes do not cancel or nothing fits."""
    if -1 not in shape:
        return shape
    rest = [size for size in shape if size != -1]
    dims = [size for size in before if isinstance(size, Dim)]
    if dims != [size for size in rest if isinstance(size, Dim)]:
        return shape
    total = prod(size for size in before if isinstance(size, int))
    known = prod(size for size in rest if isinstance(size, int))
    return tuple(total // known if size == -1 and known else size for size in shape)


def _take(view: View, part: object, size: Size, step: int) -> View:
    """`view` with one more axis, indexed by `part`."""
    if isinstance(size, Dim):
        return _take_symbolic(view, part, size, step)
    if isinstance(part, int):
        if not -size <= part < size:
            raise IndexError(f"index {part} is out of range for an axis of {size}")
        return replace(view, offset=view.offset + part % size * step)
    if not isinstance(part, slice):
        raise IndexError(f"a tensor is indexed by integers and slices, not by {part!r}")
    start, stop, stride = part.indices(size)
    if stride < 1 or stop <= start:
        raise IndexError(f"slice {part} of an axis of {size} is empty or backward; neither can be a view")
    length = -(-(stop - start) // stride)
    shape, strides = (*view.shape, length), (*view.strides, step * stride)
    return replace(view, shape=shape, strides=strides, offset=view.offset + start * step)


def _take_symbolic(view: View, part: object, size: Dim, step: int) -> View:
    match part:
        case slice(start=None | 0, stop=None, step=None | 1):
            return replace(view, shape=(*view.shape, size), strides=(*view.strides, step))
        case -1:
            return replace(view, from_last=size)
        case slice(start=-1, stop=None, step=None | 1):
            return replace(view, shape=(*view.shape, 1), strides=(*view.strides, 0), from_last=size)
        case _:
            pass
    raise IndexError(
        f"{part!r} on the symbolic axis {size}: its length differs from run to run, "
        "so only [:], [-1] and [-1:] exist"
    )


def _match_axes(
    mine: list[tuple[Size, int]], wanted: list[Size], before: Shape, after: tuple[Size, ...]
) -> list[list[int]]:
    """Strides of the wanted axes, found by merging and splitting runs of equal element count."""
    failure = ShapeError(f"a tensor of shape {before} cannot be viewed as {after}; blit it into a new one")
    groups: list[list[int]] = []
    axes = list(mine)
    sizes = list(wanted)
    while axes and sizes:
        size, step = axes.pop(0)
        want = [sizes.pop(0)]
        if isinstance(size, Dim) or isinstance(want[0], Dim):
            if size != want[0]:
                raise failure
            groups.append([step])
            continue
        count, target = size, want[0]
        while count != target:
            if count < target and axes and isinstance(axes[0][0], int) and step == axes[0][0] * axes[0][1]:
                inner, step = axes.pop(0)
                count *= inner if isinstance(inner, int) else 1
            elif count > target and sizes and isinstance(sizes[0], int):
                want.append(sizes[0])
                target *= sizes[0]
                sizes.pop(0)
            else:
                raise failure
        steps: list[int] = []
        for part in reversed(want):
            steps.insert(0, step)
            step *= part if isinstance(part, int) else 1
        groups.append(steps)
    if axes or sizes:
        raise failure
    return groups
