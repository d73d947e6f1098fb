"""A kernel that can run a pass, with the numbers it needs; and the buffers that runners have for kernels."""

from __future__ import annotations

from dataclasses import dataclass

from rwkvgraph.op import Buffer, DType, Role
from rwkvgraph.view import Dim, Size, Sizes, resolve
from rwkvgraph_codegen import MEETING_WORDS, MOST_GROUPS, MOST_HANDED, Source

MEETING = Buffer("meeting", (MEETING_WORDS,), DType.U32, Role.STATE)
"""Where the workgroups of a relay count themselves. A runner has its own."""


TABLES = Buffer("tables", (4,), DType.U32, Role.STATE)
"""The uniforms of a program's kernels, as rows of four words. A runner has its own."""

HANDED = Buffer("handed", (MOST_HANDED // 4,), DType.F32, Role.STATE)
"""What workgroups that share a tile hand over to the last of them. A runner has its own."""

SUMS = Buffer("sums", (MOST_HANDED // 4,), DType.F32, Role.STATE)
"""The same for a kernel after them to add up."""

COUNTED = Buffer("counted", (MOST_GROUPS,), DType.U32, Role.STATE)
"""How many of a tile's workgroups have done so. A runner has its own, zeros between kernels."""

FOR_TILES = (HANDED, SUMS, COUNTED)

LOOKED = 192
"""Rows of those at which a kernel looks ahead: those of the next five kernels of RWKV-7, about."""

LOOK_WORD = 2
"""The word of a kernel's first row that says where it looks: behind its own rows. Runners fill it in."""


@dataclass(frozen=True)
class Amount:
    """A number that may grow with one of the sizes of a run: constant + factor * size.

    within: the buffer in which it is a place, where others share its memory.
    """

    constant: int = 0
    factor: int = 0
    size: Dim | None = None
    within: Buffer | None = None

    @staticmethod
    def of(size: Size) -> Amount:
        """A size as an amount."""
        return Amount(size) if isinstance(size, int) else Amount(0, 1, size)

    def at(self, sizes: Sizes) -> int:
        """Its value for a run."""
        return self.constant + (self.factor * resolve(self.size, sizes) if self.size else 0)

    def times(self, number: int) -> Amount:
        """This amount, multiplied."""
        return Amount(self.constant * number, self.factor * number, self.size, self.within)


@dataclass(frozen=True)
class Grid:
    """How many workgroups a kernel takes.

    ceil(items / per_group) in x and y together, ceil(deep / per_deep) in z; or, where `deep_first`, in x,
    with the items in y and z: workgroups that differ in `deep` alone then run at about the same time.
    """

    items: Amount
    per_group: int = 1
    deep: Amount = Amount(1)
    per_deep: int = 1
    deep_first: bool = False

    def at(self, sizes: Sizes, limit: int) -> tuple[int, int, int]:
        """(x, y, z) for a run, each within `limit`: the deep one is, as runners cap rows by it."""
        count, deep = self._counts(sizes)
        turns = max(1, -(-count // limit))
        items = -(-count // turns), turns
        return (deep, *items) if self.deep_first else (*items, deep)

    def count(self, sizes: Sizes) -> int:
        """How many workgroups do something."""
        count, deep = self._counts(sizes)
        return count * deep

    def _counts(self, sizes: Sizes) -> tuple[int, int]:
        """Workgroups for the items, and how often those."""
        return -(-self.items.at(sizes) // self.per_group), -(-self.deep.at(sizes) // self.per_deep)


Row = tuple[Amount, Amount, Amount, Amount]


NO_ROW: Row = (Amount(), Amount(), Amount(), Amount())


@dataclass(frozen=True, eq=False)
class Variant:
    """One kernel that can run a pass: its shader, its uniform's rows (the first is `size`), its grid.

    max_rows: the most rows it is chosen for; None for any number. is_one_each: chosen only where each slot
    has one row: where its grid is as deep as there are rows. min_each: the fewest rows a slot, on average;
    max_groups: the most workgroups; None for any number. after: the kernel that goes on with what this one
    leaves, of the same bindings and table.
    """

    source: Source
    table: tuple[Row, ...]
    grid: Grid
    max_rows: int | None = None
    after: Variant | None = None
    is_one_each: bool = False
    min_each: int = 0
    max_groups: int | None = None

    def takes(self, rows: int, sizes: Sizes) -> bool:
        """Whether it can run a pass of so many rows, and is meant to."""
        if self.is_one_each and rows != self.grid.deep.at(sizes):
            return False
        if self.min_each and rows < self.min_each * self.grid.deep.at(sizes):
            return False
        if self.max_groups is not None and self.grid.count(sizes) > self.max_groups:
            return False
        return self.max_rows is None or rows <= self.max_rows

    @property
    def is_for_any(self) -> bool:
        """Whether it takes every run."""
        limited = self.is_one_each or self.min_each or self.max_groups is not None
        return not limited and self.max_rows is None

    @property
    def kernels(self) -> tuple[Variant, ...]:
        """It, and the kernel after it."""
        return (self,) if self.after is None else (self, self.after)

    def __str__(self) -> str:
        return self.source.text

    def __repr__(self) -> str:
        rows = "any number of rows" if self.max_rows is None else f"up to {self.max_rows} rows"
        rows = "a row in each slot" if self.is_one_each else rows
        if self.min_each:
            rows = f"{self.min_each} rows a slot and more, up to {self.max_groups} workgroups"
        return f"Variant({self.source.text.count(chr(10)) + 1} lines of WGSL, for {rows})"
