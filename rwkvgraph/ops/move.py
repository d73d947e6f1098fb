"""Operations that move values: blit into a buffer, gather rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rwkvgraph.errors import ShapeError
from rwkvgraph.op import Array, Buffer, DType, Map, Tensor, caller, operand, overlap, updated
from rwkvgraph.ops.elementwise import identity
from rwkvgraph.quant import Matrix
from rwkvgraph.view import Shape


@dataclass(frozen=True, eq=False, repr=False)
class Blit(Map):
    """Copies source over target, which is written in place; source broadcasts to target's shape."""

    source: Tensor
    target: Tensor = updated()

    wgsl = "source"

    def infer(self) -> Shape:
        """The target's shape. Raises ShapeError where the source does not broadcast to it."""
        if self.target.dtype is DType.U32:
            raise ShapeError(f"blit writes buffers of floats; {self.target} is not one (built at {caller()})")
        try:
            self.source.view.broadcast(self.target.shape)
        except ShapeError as error:
            raise ShapeError(
                f"blit of {self.source} to {self.target}: {error} (built at {caller()})"
            ) from None
        return self.target.shape

    def numpy(self, *arrays: Array) -> Array:
        source, target = arrays
        target[...] = source
        return target


def _gathered(ids: Tensor, table: Tensor) -> Shape:
    if len(ids.shape) != 1 or len(table.shape) < 2:
        raise ShapeError(f"gather takes ids (N,) and a table (R, C); given {ids} and {table}")
    return (ids.shape[0], *table.shape[1:])


@dataclass(frozen=True, eq=False, repr=False)
class Gather(Map):
    """Row ids[i] of a table for each i: ids (N,) u32, table (R, C), result (N, C)."""

    ids: Tensor
    table: Tensor = operand(row="ids")

    wgsl = "table"

    def infer(self) -> Shape:
        """(N, C). Raises ShapeError for a table without columns."""
        return _gathered(self.ids, self.table)

    def numpy(self, *arrays: Array) -> Array:
        ids, table = arrays
        return table[ids].astype(np.float32)


@dataclass(frozen=True, eq=False, repr=False)
class GatherPart(Map):
    """Row ids[i] - first of a table where it has that row, else row i of `otherwise`.

    Tables too large for one binding are gathered part by part: this one has `count` rows. ids (N,) u32,
    otherwise (N, C).
    """

    ids: Tensor
    otherwise: Tensor
    table: Tensor = operand(row="u32(clamp(f32(ids) - first, 0.0, count - 1.0))")
    first: float = 0.0
    count: float = 0.0

    wgsl = "select(otherwise, table, f32(ids) >= first && f32(ids) < first + count)"

    def infer(self) -> Shape:
        """(N, C)."""
        return (self.ids.shape[0], *self.table.shape[1:])

    def numpy(self, *arrays: Array) -> Array:
        ids, otherwise, table = arrays
        index = ids.astype(np.int64) - int(self.first)
        inside = (index >= 0) & (index < len(table))
        return np.where(inside[:, None], table[np.clip(index, 0, len(table) - 1)], otherwise).astype(
            np.float32
        )


@dataclass(frozen=True, eq=False, repr=False)
class ReplaceRows(Map):
    """Row picks[i] - 1 of `others` where picks[i] is not 0, else row i of x.

    x (N, C), picks (N,) u32, others (E, C). There is at least one other, which need not mean anything: it is
    read where nothing is picked, and dropped.
    """

    picks: Tensor
    x: Tensor
    others: Tensor = operand(row="max(picks, 1u) - 1u")

    wgsl = "select(x, others, picks > 0u)"

    def infer(self) -> Shape:
        """x's shape. Raises ShapeError unless the rows are as long as x's."""
        if self.x.shape[1:] != self.others.shape[1:] or self.picks.shape != self.x.shape[:1]:
            raise ShapeError(
                f"replace_rows takes x (N, C), picks (N,), others (E, C); given {self.x}, {self.picks} and "
                f"{self.others} (built at {caller()})"
            )
        return self.x.shape

    def numpy(self, *arrays: Array) -> Array:
        picks, x, others = arrays
        return np.where(picks[:, None] > 0, others[np.maximum(picks.astype(np.int64), 1) - 1], x)


def blit(source: Tensor | Buffer, target: Tensor | Buffer) -> Blit:
    """Copy source into target, a buffer or a view of one: blit(frame.x[-1], captured[3]) captures a value."""
    for name, given in (("source", source), ("target", target)):
        if not isinstance(given, Tensor | Buffer):
            raise ShapeError(
                f"blit: {name} is {given!r:.60}, a {type(given).__name__}; it takes a Tensor or Buffer "
                f"(built at {caller()})"
            )
    start = source.tensor if isinstance(source, Buffer) else source
    end = target.tensor if isinstance(target, Buffer) else target
    is_shifted = overlap(start, end) and start.view != end.view  # within one buffer: copied aside first
    return Blit(identity(start) if is_shifted else start, end)


def gather(table: Tensor, ids: Tensor) -> Tensor:
    """Rows `ids` (N,) of a table (R, C), as (N, C) f32; ids beyond it give its last row, if R is a number."""
    size = table.shape[0] if table.shape else None
    if isinstance(size, int):
        return GatherClamped(ids, table, float(size)).result
    return Gather(ids, table).result


def replace_rows(x: Tensor, picks: Tensor, others: Tensor) -> Tensor:
    """x (N, C), with row picks[i] - 1 of others (E, C) in place of row i where picks (N,) is not 0."""
    return ReplaceRows(picks, x, others).result


def embed(table: Matrix, ids: Tensor) -> Tensor:
    """Rows `ids` (T,) of an embedding (V, C), as (T, C) f32, whether the table is in one part or several."""
    rows = Gather(ids, table.parts[0]).result if len(table.parts) == 1 else None  # a model's ids are checked
    first = 0
    for part in table.parts if rows is None else ():
        size = part.shape[0]
        assert isinstance(size, int), "a matrix has no symbolic axis"
        rows = (
            _first_part(part, ids) if rows is None else GatherPart(ids, rows, part, float(first), size).result
        )
        first += size
    assert rows is not None, "a matrix has at least one part"
    return rows


def _first_part(part: Tensor, ids: Tensor) -> Tensor:
    # Ids beyond this part are clamped to its last row; the part that has them replaces it.
    size = part.shape[0]
    assert isinstance(size, int), "a matrix has no symbolic axis"
    return GatherClamped(ids, part, float(size)).result


@dataclass(frozen=True, eq=False, repr=False)
class GatherClamped(Map):
    """Row min(ids[i], count - 1) of a table of `count` rows, which are at most 2^24."""

    ids: Tensor
    table: Tensor = operand(row="min(ids, u32(count) - 1u)")
    count: float = 0.0

    wgsl = "table"

    def infer(self) -> Shape:
        """(N, C). Raises ShapeError for a table without columns."""
        return _gathered(self.ids, self.table)

    def numpy(self, *arrays: Array) -> Array:
        ids, table = arrays
        return table[np.minimum(ids, len(table) - 1)].astype(np.float32)
