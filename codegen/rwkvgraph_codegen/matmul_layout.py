"""Where the teams of a matrix product keep a tile's columns in workgroup memory."""

from __future__ import annotations

from dataclasses import dataclass

from rwkvgraph_codegen.matmul_shape import Shape

VALUE = 16
"""Bytes of a vec4<f32>."""


@dataclass(frozen=True)
class Layout:
    """Where the columns of a tile lie in workgroup memory: `tiles[buffer][cell][lane][column]`.

    A vec4 holds four rows of weights (the first lanes of a cell) or four tokens of inputs (those after).
    Cells have 8 columns, 4 where a team takes no more in a step. A lane has one place more than columns, and
    a cell an odd number of lanes: so threads side by side reach different banks, be it with lanes or with
    cells side by side. The column comes last as it is a constant where it is read: naga puts a `min` on every
    index that is none, and those on the cell and the lane are then the same for all columns.
    """

    shape: Shape

    @property
    def rows(self) -> int:
        """Lanes of a cell that hold weights."""
        return self.shape.group_rows // 4

    @property
    def tokens(self) -> int:
        """Lanes of a cell that hold inputs."""
        return self.shape.group_tokens // 4

    @property
    def columns(self) -> int:
        """Columns of a cell."""
        return min(8, self.shape.depth // self.shape.teams)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Buffers, cells of a buffer, lanes of a cell, places of a lane."""
        lanes = self.rows + self.tokens | 1
        return self.shape.buffers, self.shape.depth // self.columns, lanes, self.columns + 1

    @property
    def nbytes(self) -> int:
        """Workgroup memory that it takes."""
        buffers, cells, lanes, places = self.sizes
        return buffers * cells * lanes * places * VALUE

    @property
    def blocks(self) -> int:
        """Blocks of eight columns in a step."""
        return self.shape.depth // 8

    @property
    def items(self) -> tuple[int, int]:
        """What a step loads: pieces of four rows by eight columns, and of four tokens by four columns."""
        return self.rows * self.blocks, self.tokens * self.blocks * 2

    @property
    def turns(self) -> range:
        """The pieces that one thread loads."""
        return range(-(-sum(self.items) // self.shape.threads))

    def place(self, index: str) -> str:
        """The vec4 at an index, whatever it is of the tile."""
        _, cells, lanes, places = self.sizes
        buffer = f"[{index} / {cells * lanes * places}u]" if self.shape.buffers > 1 else "[0]"
        cell = f"{index} / {lanes * places}u" + (f" % {cells}u" if self.shape.buffers > 1 else "")
        return f"tiles{buffer}[{cell}][{index} / {places}u % {lanes}u][{index} % {places}u]"
