"""What model versions share: their numbers, the memory of their weights, the inputs of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from rwkvgraph.batch import BATCH_WORDS
from rwkvgraph.errors import LoadError
from rwkvgraph.load.reader import Reader
from rwkvgraph.op import Array, Buffer, DType, Role, Tensor
from rwkvgraph.quant import BLOCK, Format, Fp16, Matrix
from rwkvgraph.view import LANES, B, N, O, Size, T, View, round_up


@dataclass(frozen=True)
class ModelInfo:
    """A model's numbers, all from its file.

    custom: sizes that only its version has; for V7 the ranks of the low-rank matrices w, a, g and v.
    """

    version: str
    num_layer: int
    num_emb: int
    num_hidden: int
    num_vocab: int
    num_head: int
    custom: Mapping[str, int] = field(default_factory=dict)

    @property
    def head_size(self) -> int:
        """Channels of a head: S = C / H."""
        return self.num_emb // self.num_head

    def __str__(self) -> str:
        ranks = ", ".join(f"{name} {size}" for name, size in self.custom.items())
        return (
            f"RWKV-{self.version[1:]}, {self.num_layer} layers of {self.num_emb}, {self.num_head} heads of "
            f"{self.head_size}, hidden {self.num_hidden}, vocabulary {self.num_vocab}"
            + (f", ranks {ranks}" if ranks else "")
        )


def frame_sizes(info: ModelInfo) -> dict[str, Size]:
    """What the axes of frame slots stand for in a model; `Dw` and the like are the sizes in `custom`."""
    ranks: dict[str, Size] = {f"D{key}": size for key, size in info.custom.items()}
    return {"T": T, "O": O, "4": 4, "C": info.num_emb, "F": info.num_hidden, "V": info.num_vocab, **ranks}


def count_layers(reader: Reader) -> int:
    """One more than the largest layer number in the names. Raises LoadError for a name without one."""
    numbers = [name.split(".")[1] for name in reader.names() if name.startswith("blocks.")]
    wrong = next((number for number in numbers if not number.isdecimal()), None)
    if wrong is not None:
        raise LoadError(
            f"{reader.path}: tensor blocks.{wrong}… is of no layer; they are blocks.0, blocks.1 …"
        )
    return 1 + max(map(int, numbers))


def matrix_shape(reader: Reader, name: str) -> tuple[int, int]:
    """The shape of a tensor with two axes, neither of them empty. Raises LoadError for any other."""
    shape = reader.shape(name)
    if len(shape) != 2 or 0 in shape:
        raise LoadError(f"{reader.path}: {name} has shape {shape}; a matrix has two axes, none empty")
    return shape[0], shape[1]


@dataclass(frozen=True)
class Upload:
    """Where rows of a file's tensor go.

    Rows `start` to `stop` of `name`, from element `offset` of a buffer on.
    """

    buffer: Buffer
    offset: int
    name: str
    start: int
    stop: int
    format: Format | None

    def read(self, reader: Reader, start: int, stop: int) -> Array:
        """Rows `start` to `stop` as they are stored: f32 for vectors, the format's packing for matrices."""
        rows = reader.rows(self.name, start, stop)
        if self.format is not None:
            return self.format.pack(rows)
        return rows.astype(np.float32).reshape(-1)


@dataclass(frozen=True)
class Norm:
    """Weight and bias of a norm."""

    weight: Tensor
    bias: Tensor


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
    split by rows. textures: keep matrices in those.
    """

    def __init__(self, reader: Reader, limit: int, textures: bool = False) -> None:
        self.uploads: list[Upload] = []
        self._reader = reader
        self._limit = limit
        self._textures = textures
        self._vectors = Buffer("vectors", (0,), DType.F32, Role.WEIGHT)
        self._vectors.is_texture = textures
        self.buffers: list[Buffer] = [self._vectors]
        self._home: dict[str, Buffer] = {}

    def vector(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A vector of the file as f32 of `shape`; sizes of 1 in the file do not count. Raises LoadError."""
        found = self._reader.shape(name)
        if [size for size in found if size != 1] != [size for size in shape if size != 1]:
            raise LoadError(f"{self._reader.path}: {name} has shape {found}; wanted {shape}")
        offset = _grow(self._vectors, round_up(int(np.prod(shape)), LANES))
        self.uploads.append(Upload(self._vectors, offset, name, 0, found[0], None))
        return Tensor(self._vectors, _dense(shape, offset), DType.F32)

    def matrix(self, name: str, shape: tuple[int, int], home: str, is_table: bool = False) -> Matrix:
        """A matrix of the file (M, K), beside the others of `home` as far as they fit. Raises LoadError.

        is_table: its rows are gathered, not multiplied by, so it is never kept in a texture.
        """
        found = self._reader.shape(name)
        if found != shape:
            raise LoadError(f"{self._reader.path}: {name} has shape {found}; wanted {shape}")
        storage = Fp16()
        rows, stride = shape[0], round_up(shape[1], BLOCK)
        most = max(LANES, self._limit // (stride * storage.dtype.bytes) // LANES * LANES)
        parts = []
        for start in range(0, rows, most):
            stop = min(start + most, rows)
            buffer, offset = self._room(home, (stop - start) * stride, storage.dtype)
            buffer.is_texture = self._textures and not is_table
            self.uploads.append(Upload(buffer, offset, name, start, stop, storage))
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


def _grow(buffer: Buffer, count: int) -> int:
    offset = _length(buffer)
    buffer.shape = (offset + count,)
    return offset


def _length(buffer: Buffer) -> int:
    assert isinstance(buffer.shape[0], int), "weights have known sizes"
    return buffer.shape[0]


def _dense(shape: tuple[int, ...], offset: int) -> View:
    strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    return View(shape, tuple(strides), offset)


@dataclass(frozen=True)
class Inputs:
    """What a run is given: one u32 buffer (T, 8), and the tensors in it.

    cursors (T, 4): slot, its first stacked token, its tokens in this run, 0. tokens (T,). rows (O,): the
    stacked tokens whose logits are wanted. starts (N,): the first stacked token of each slot that has tokens.
    """

    batch: Buffer
    cursors: Tensor
    tokens: Tensor
    rows: Tensor
    starts: Tensor

    @staticmethod
    def make() -> Inputs:
        """The buffer and its tensors."""
        batch = Buffer("batch", (T, BATCH_WORDS), DType.U32, Role.INPUT)

        def column(size: Size, index: int) -> Tensor:
            return Tensor(batch, View((size,), (BATCH_WORDS,), index), DType.U32)

        return Inputs(batch, batch[:, 0:4], column(T, 4), column(O, 5), column(N, 6))


@dataclass(frozen=True)
class LayerState:
    """The state of a layer, all slots.

    att_x (B, C), wkv (B, S, C) with row key j, column h * S + value, ffn_x (B, C). att_x and ffn_x are the
    normalised input of the block for the slot's last token.
    """

    att_x: Buffer
    wkv: Buffer
    ffn_x: Buffer

    def buffers(self) -> tuple[Buffer, Buffer, Buffer]:
        """In the order of web-rwkv's rows: 0, 1 … S, S + 1."""
        return self.att_x, self.wkv, self.ffn_x


def make_state(info: ModelInfo) -> tuple[LayerState, ...]:
    """The buffers of the state; their memory belongs to a State."""
    c, s = info.num_emb, info.head_size

    def part(layer: int, name: str, *shape: int) -> Buffer:
        return Buffer(f"state.{layer}.{name}", (B, *shape), DType.F32, Role.STATE)

    return tuple(
        LayerState(part(layer, "att_x", c), part(layer, "wkv", s, c), part(layer, "ffn_x", c))
        for layer in range(info.num_layer)
    )


def output_buffer(width: int) -> Buffer:
    """The logits, (O, V)."""
    return Buffer("logits", (O, width), DType.F32, Role.OUTPUT)
