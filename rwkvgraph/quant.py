"""Matrices and the formats their weights are stored in: how to pack them, and what the packed numbers mean.

A format says nothing about kernels, and kernels reach weights only through the format's loader.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rwkvgraph.op import Array, DType, Tensor
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

    @property
    def shape(self) -> tuple[int, int]:
        """(M, K)."""
        return sum(_rows(part.shape) for part in self.parts), _columns(self.parts[0].shape)

    def __repr__(self) -> str:
        split = f" in {len(self.parts)} parts" if len(self.parts) > 1 else ""
        return f"{self.parts[0].source.name}: {self.format.name}{list(self.shape)}{split}"


def _rows(shape: Shape) -> int:
    assert isinstance(shape[0], int), "a matrix has no symbolic axis"
    return shape[0]


def _columns(shape: Shape) -> int:
    assert isinstance(shape[1], int), "a matrix has no symbolic axis"
    return shape[1]
