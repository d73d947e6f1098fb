"""Matrices and the formats their weights are stored in: how to pack them, and what the packed numbers mean.

A format says nothing about kernels, and kernels reach weights only through the format's loader.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rwkvgraph.errors import ShapeError
from rwkvgraph.op import Array, Buffer, DType, Tensor
from rwkvgraph.view import Shape, round_up

BLOCK = 8
"""Weights a kernel loads at a time: 16 bytes of f16. Rows are padded with zeros to a multiple of it."""


class Format(Protocol):
    """How a matrix is stored."""

    @property
    def name(self) -> str:
        """What dumps call it."""

    @property
    def dtype(self) -> DType:
        """The type of a stored element."""

    def pack(self, rows: Array) -> Array:
        """(M, K) weights as stored: what is uploaded."""

    def unpack(self, stored: Array) -> Array:
        """(M, K) float32 weights that the stored ones mean."""


@dataclass(frozen=True)
class Fp16:
    """Half precision, row after row, K padded with zeros to a multiple of 8."""

    name: str = "fp16"
    dtype: DType = DType.F16

    def pack(self, rows: Array) -> Array:
        """(M, round_up(K, 8)) float16."""
        spare = round_up(rows.shape[1], BLOCK) - rows.shape[1]
        halves = rows.astype(np.float16, copy=False)
        return np.pad(halves, ((0, 0), (0, spare))) if spare else halves

    def unpack(self, stored: Array) -> Array:
        """(M, K) float32."""
        return stored.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Matrix:
    """A weight matrix of M rows and K columns: `matmul(w, x)` gives w @ x for each row of x.

    parts: one tensor of shape (rows, K), or several where all rows together would exceed a binding; their
    rows follow each other.
    """

    format: Format
    parts: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        """Raise ShapeError for parts that kernels would read as another matrix."""
        for part in self.parts:
            steps = part.view.strides
            blocks = len(steps) == 2 and steps[1] == 1 and steps[0] % BLOCK == part.view.offset % BLOCK == 0
            if not blocks or part.dtype is not self.format.dtype or part.view.from_last is not None:
                raise ShapeError(
                    f"{part!r} is no matrix of {self.format.name}: (M, K) of {self.format.dtype.value}, each "
                    f"row at a multiple of {BLOCK} elements; rg.matrix(values) makes one"
                )

    def write(self, rows: Any) -> None:
        """Replace the weights (M, K) of a matrix that `matrix` made. Nothing is compiled again.

        Raises ShapeError for other shapes.
        """
        values = np.asarray(rows)
        if values.shape != self.shape or len(self.parts) != 1:
            raise ShapeError(f"{self!r} was given weights of shape {values.shape}")
        buffer = self.parts[0].source
        assert isinstance(buffer, Buffer), "a matrix lies in memory"
        buffer.write(self.format.pack(values).reshape(buffer.shape))

    @property
    def shape(self) -> tuple[int, int]:
        """(M, K)."""
        return sum(_rows(part.shape) for part in self.parts), _columns(self.parts[0].shape)

    def __repr__(self) -> str:
        split = f" in {len(self.parts)} parts" if len(self.parts) > 1 else ""
        return f"{self.parts[0].source.name}: {self.format.name}{list(self.shape)}{split}"


def matrix(values: Any, name: str = "matrix") -> Matrix:
    """A matrix (M, K) of half precision weights in a buffer of its own, for matmul in hooks.

    Raises ShapeError for values of another rank.
    """
    rows = np.asarray(values)
    if rows.ndim != 2 or not rows.size:
        raise ShapeError(f"a matrix has rows and columns, at least one; given an array of {rows.shape}")
    storage = Fp16()
    packed = storage.pack(rows)
    buffer = Buffer(name, (packed.size,), DType.F16)
    buffer.write(packed.reshape(-1))
    return Matrix(storage, (buffer.tensor.reshape(*packed.shape)[:, : rows.shape[1]],))


def _rows(shape: Shape) -> int:
    assert isinstance(shape[0], int), "a matrix has no symbolic axis"
    return shape[0]


def _columns(shape: Shape) -> int:
    assert isinstance(shape[1], int), "a matrix has no symbolic axis"
    return shape[1]
