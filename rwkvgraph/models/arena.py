"""A model's weights as tensors, laid out in few buffers, and where each comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from rwkvgraph.errors import LoadError
from rwkvgraph.load.reader import Reader
from rwkvgraph.models.common import has_any
from rwkvgraph.op import Array, Buffer, DType, Role, Tensor
from rwkvgraph.quant import BLOCK, Format, Fp16, Matrix
from rwkvgraph.view import LANES, View, round_up

Change = Callable[[Array], Array]
"""From the numbers of a vector in the file, float64, to those that the model computes with."""

CHECKED = 1 << 16
"""Weights looked at together: they stay in the cache while they are."""
MOST_TOGETHER = 1 << 30
"""Bytes of all layers' matrices in one buffer: models whose layers become laps of a relay have fewer, and one
of several GB may find no room in one piece."""
NOT_FINITE = 0x7C00
"""The exponent of infinity and NaN in float16."""


@dataclass(frozen=True)
class Upload:
    """Where rows of a file's tensor go.

    Rows `start` to `stop` of `name` (of its part `index`, where it has three axes), from element `offset` of
    a buffer on.
    """

    buffer: Buffer
    offset: int
    name: str
    start: int
    stop: int
    format: Format | None
    index: int | None = None
    change: Change | None = None

    def read(self, reader: Reader, start: int, stop: int) -> Array:
        """Rows `start` to `stop` as they are stored: f32 for vectors, the format's packing for matrices.

        Raises LoadError for NaN, infinity, and what float16 cannot hold.
        """
        if self.format is None:
            return self._vector(reader, self._rows(reader.rows, start, stop))
        packed = self.format.pack(self._rows(reader.halves, start, stop))
        if not is_finite(packed):
            self._refuse(reader, self._rows(reader.rows, start, stop), start)
        return packed

    def _rows(self, read: Callable[[str, int, int], Array], start: int, stop: int) -> Array:
        if self.index is None:
            return read(self.name, start, stop)
        return read(self.name, self.index, self.index + 1)[0, start:stop]

    def _vector(self, reader: Reader, rows: Array) -> Array:
        if not np.isfinite(rows).all():
            self._refuse(reader, rows, 0)
        if self.change is None:
            return rows.astype(np.float32).reshape(-1)
        with np.errstate(over="ignore"):
            values = self.change(rows.astype(np.float64).reshape(-1)).astype(np.float32)
        if not np.isfinite(values).all():
            raise LoadError(
                f"{reader.path}: {self.name} is up to {rows.max()}, of which the exponential is infinite"
            )
        return values

    def _refuse(self, reader: Reader, rows: Array, start: int) -> None:
        with np.errstate(over="ignore"):
            where = np.argwhere(~np.isfinite(rows.astype(np.float16) if self.format else rows))[0]
        value = rows[tuple(where)]
        place = [int(at) for at in where]
        place[0] += start
        if self.index is not None:
            place.insert(0, self.index)
        why = "float16 holds up to 65504" if np.isfinite(value) else "weights are finite"
        raise LoadError(f"{reader.path}: {self.name} has {value} at {place}; {why}")


def is_finite(halves: Array) -> bool:
    """Whether no float16 is NaN or infinite; by their bits, eight times as fast as numpy's own."""
    bits = halves.reshape(-1).view(np.uint16)
    starts = range(0, bits.size, CHECKED)
    return not any((bits[at : at + CHECKED] & 0x7FFF).max() >= NOT_FINITE for at in starts)


@dataclass(frozen=True)
class Norm:
    """Weight and bias of a norm."""

    weight: Tensor
    bias: Tensor

    def by_head(self, heads: tuple[int, int]) -> Norm:
        """The same, seen as (H, S): a group norm."""
        return Norm(self.weight.reshape(*heads), self.bias.reshape(*heads))


@dataclass(frozen=True)
class LowRank:
    """A matrix (C, C) as a product: outer (C, rank) @ inner (rank, C)."""

    inner: Matrix
    outer: Matrix


AttKind = TypeVar("AttKind")
FfnKind = TypeVar("FfnKind")
LayerKind = TypeVar("LayerKind")


@dataclass(frozen=True)
class Layer(Generic[AttKind, FfnKind]):
    """Weights of a layer: its norms (C,), time mixing and channel mixing."""

    ln1: Norm
    ln2: Norm
    att: AttKind
    ffn: FfnKind


@dataclass(frozen=True)
class Weights(Generic[LayerKind]):
    """All weights: emb (V, C), head (V, C), the norms before the first layer and after the last."""

    emb: Matrix
    ln0: Norm
    ln_out: Norm
    head: Matrix
    layers: tuple[LayerKind, ...]


class Arena:
    """Lays a model's weights out in few buffers, so that a pass binds few.

    Vectors in one, matrices in one a layer. limit: the most bytes a buffer may have. Matrices beyond it are
    split by rows. textures: keep matrices in those. together: matrices of all layers in one buffer, where
    that is not large.
    """

    def __init__(self, reader: Reader, limit: int, textures: bool = False, together: bool = False) -> None:
        self.uploads: list[Upload] = []
        self._is_one = together and _layer_bytes(reader) <= min(limit, MOST_TOGETHER)
        self._reader = reader
        self._limit = limit
        self._textures = textures
        self._vectors = Buffer("vectors", (0,), DType.F32, Role.WEIGHT)
        self._vectors.is_texture = textures
        self.buffers: list[Buffer] = [self._vectors]
        self._home: dict[str, Buffer] = {}

    def vector(self, name: str, shape: tuple[int, ...], change: Change | None = None) -> Tensor:
        """A vector of the file as f32 of `shape`; sizes of 1 in the file do not count. Raises LoadError.

        change: what is done to its numbers, flat, as they are loaded.
        """
        return self._vector(name, shape, shape, change)

    def per_head(self, name: str, heads: tuple[int, int], change: Change | None = None) -> Tensor:
        """A vector (H, S); (H,) in the file is a number a head, for all its channels. Raises LoadError."""
        if _without_ones(self.shape(name)) == _without_ones(heads[:1]):
            return self._vector(
                name, heads[:1], heads, lambda x: np.repeat(change(x) if change else x, heads[1])
            )
        return self._vector(name, heads, heads, change)

    def _vector(
        self, name: str, wanted: tuple[int, ...], shape: tuple[int, ...], change: Change | None
    ) -> Tensor:
        found = self._reader.shape(name)
        if _without_ones(found) != _without_ones(wanted):
            raise LoadError(f"{self._reader.path}: {name} has shape {found}; wanted {wanted}")
        offset = _grow(self._vectors, round_up(int(np.prod(shape)), LANES))
        stop = found[0] if found else 1
        self.uploads.append(Upload(self._vectors, offset, name, 0, stop, None, change=change))
        return Tensor(self._vectors, _dense(shape, offset), DType.F32)

    def matrix(self, name: str, shape: tuple[int, int], home: str, is_table: bool = False) -> Matrix:
        """A matrix of the file (M, K), beside the others of `home` as far as they fit. Raises LoadError.

        is_table: its rows are gathered, not multiplied by, so it is never kept in a texture.
        """
        self._check_shape(name, shape)
        return self._place(name, shape, home, is_table, None)

    def matrices(self, name: str, shape: tuple[int, int, int], home: str) -> tuple[Matrix, ...]:
        """The matrices (M, K) that the file has as one tensor (count, M, K). Raises LoadError."""
        self._check_shape(name, shape)
        return tuple(self._place(name, shape[1:], home, False, index) for index in range(shape[0]))

    def layer(self, index: int) -> str:
        """The home of a layer's matrices."""
        return "matrices" if self._is_one else f"blocks.{index}.matrices"

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape in the file. Raises LoadError if it is not there."""
        return self._reader.shape(name)

    def has_any(self, *ends: str) -> bool:
        """Whether a layer of the file has a tensor whose name ends so."""
        return has_any(set(self._reader.names()), *ends)

    def check_rest(self, ignored: Callable[[str], bool]) -> None:
        """Raise LoadError for tensors that were not asked for: of a variant that would compute otherwise."""
        known = {upload.name for upload in self.uploads}
        rest = [name for name in self._reader.names() if name not in known and not ignored(name)]
        if rest:
            some = ", ".join(sorted(rest)[:3]) + (", …" if len(rest) > 3 else "")
            raise LoadError(
                f"{self._reader.path}: tensors that this version of the model does not have ({len(rest)}): "
                f"{some}; a variant that is not supported?"
            )

    def _check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        found = self._reader.shape(name)
        if found != shape:
            raise LoadError(f"{self._reader.path}: {name} has shape {found}; wanted {shape}")

    def _place(
        self, name: str, shape: tuple[int, int], home: str, is_table: bool, index: int | None
    ) -> Matrix:
        storage = Fp16()
        rows, stride = shape[0], round_up(shape[1], BLOCK)
        most = max(LANES, self._limit // (stride * storage.dtype.bytes) // LANES * LANES)
        parts = []
        for start in range(0, rows, most):
            stop = min(start + most, rows)
            buffer, offset = self._room(home, (stop - start) * stride, storage.dtype)
            buffer.is_texture = self._textures and not is_table
            self.uploads.append(Upload(buffer, offset, name, start, stop, storage, index))
            parts.append(Tensor(buffer, View((stop - start, shape[1]), (stride, 1), offset), storage.dtype))
        return Matrix(storage, tuple(parts))

    def norm(self, name: str, width: int) -> Norm:
        """`name.weight` and `name.bias`, both (width,). Raises LoadError."""
        return Norm(self.vector(f"{name}.weight", (width,)), self.vector(f"{name}.bias", (width,)))

    def low_rank(self, name: str, width: int, rank: int, home: str) -> LowRank:
        """`name1` (rank, width) and `name2` (width, rank). Raises LoadError."""
        inner = self.matrix(f"{name}1", (rank, width), home)
        return LowRank(inner, self.matrix(f"{name}2", (width, rank), home))

    def _room(self, home: str, count: int, dtype: DType) -> tuple[Buffer, int]:
        buffer = self._home.get(home)
        if buffer is None or (_length(buffer) + count) * dtype.bytes > self._limit:
            same = sum(other.name.startswith(home) for other in self.buffers)
            buffer = Buffer(home if not same else f"{home}.{same}", (0,), dtype, Role.WEIGHT)
            self.buffers.append(buffer)
            self._home[home] = buffer
        return buffer, _grow(buffer, count)


def _layer_bytes(reader: Reader) -> int:
    """Bytes of the matrices of all layers as float16, and of the vectors beside them; rows as they come."""
    names = (name for name in reader.names() if name.startswith("blocks."))
    return 2 * sum(int(np.prod(reader.shape(name))) for name in names)


def _grow(buffer: Buffer, count: int) -> int:
    offset = _length(buffer)
    buffer.shape = (offset + count,)
    return offset


def _length(buffer: Buffer) -> int:
    assert isinstance(buffer.shape[0], int), "weights have known sizes"
    return buffer.shape[0]


def _without_ones(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size != 1]


def _dense(shape: tuple[int, ...], offset: int) -> View:
    strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    return View(shape, tuple(strides), offset)
