"""What the oracles of all versions share: norms, products, token shift, the frame of layers, matrix states.

Plain numpy, written from the papers' equations; nothing here comes from the package under test, and none of
its ops are used. T tokens, C channels, L layers, H heads of size S, F hidden, V vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array: TypeAlias = NDArray[Any]

LAYER_NORM_EPSILON = 1e-5
GROUP_NORM_EPSILON = 64e-5


class LayerState(Protocol):
    """What a sequence leaves behind, whichever the version; the shifts are (L, C)."""

    att_shift: Array
    ffn_shift: Array

    def copy(self) -> Self:
        """A state that changes on its own."""

    def to_rows(self) -> Array:
        """The state in web-rwkv's layout, (L, rows, C)."""


StateT = TypeVar("StateT", bound=LayerState)


@dataclass
class MatrixState:
    """The state of V5, V6 and V7: att_shift (L, C), wkv (L, H, S key, S value), ffn_shift (L, C)."""

    att_shift: Array
    wkv: Array
    ffn_shift: Array

    @classmethod
    def empty(cls, layers: int, heads: int, size: int, dtype: DTypeLike) -> "MatrixState":
        """The state before the first token: zeros."""
        shift = np.zeros((layers, heads * size), dtype)
        return cls(shift, np.zeros((layers, heads, size, size), dtype), shift.copy())

    def copy(self) -> "MatrixState":
        """A state that changes on its own."""
        return MatrixState(self.att_shift.copy(), self.wkv.copy(), self.ffn_shift.copy())

    def to_rows(self) -> Array:
        """(L, S + 2, C): row 0 att_shift, row 1 + j column h·S + i wkv[h, j, i], row S + 1 ffn_shift."""
        layers, heads, size, _ = self.wkv.shape
        wkv = self.wkv.transpose(0, 2, 1, 3).reshape(layers, size, heads * size)
        return np.concatenate([self.att_shift[:, None], wkv, self.ffn_shift[:, None]], axis=1)

    @classmethod
    def from_rows(cls, rows: Array, dtype: DTypeLike = np.float64) -> "MatrixState":
        """The inverse of `to_rows`; the head size is read off the number of rows."""
        layers, height, channels = rows.shape
        size = height - 2
        wkv = rows[:, 1:-1].reshape(layers, size, channels // size, size).transpose(0, 2, 1, 3)
        return cls(rows[:, 0].astype(dtype), wkv.astype(dtype, order="C"), rows[:, -1].astype(dtype))


class LayeredOracle(ABC, Generic[StateT]):
    """A model that computes in one dtype throughout: the residual stream around a version's two blocks.

    `tensors` follow the converted convention: web-rwkv's names, low-rank matrices as (out, in).
    """

    def __init__(self, tensors: Mapping[str, Array], dtype: DTypeLike = np.float64) -> None:
        self.dtype = np.dtype(dtype)
        self.embedding = tensors["emb.weight"]  # as stored: only the rows that are read become `dtype`
        self.weights = {
            name: np.ascontiguousarray(value, self.dtype).reshape(_shape(value))
            for name, value in tensors.items()
            if name != "emb.weight"
        }
        self.layers = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
        self.vocabulary, self.width = self.embedding.shape

    @abstractmethod
    def state(self) -> StateT:
        """The state before the first token."""

    @abstractmethod
    def _time_mix(self, x: Array, layer: int, state: StateT, shared: dict[str, Array]) -> Array:
        """A time mixing block's output (T, C); `shared` is what blocks hand on to those after them."""

    @abstractmethod
    def _channel_mix(self, x: Array, layer: int, state: StateT) -> Array:
        """The output (T, C) of a feed-forward block."""

    def forward(self, tokens: Sequence[int] | Array, state: StateT) -> Array:
        """Logits (T, V) after every one of the tokens; `state` is advanced past the last."""
        return self.forward_embeddings(self.embedding[np.asarray(tokens, np.int64)], state)

    def forward_embeddings(self, embeddings: Array, state: StateT) -> Array:
        """As `forward`, of rows (T, C) that stand where rows of the embedding table would: before ln0."""
        return matmul(self.weights["head.weight"], self.stream(embeddings, state)[-1])

    def stream(self, embeddings: Array, state: StateT) -> list[Array]:
        """The residual stream (T, C): after ln0, after every layer, and last after ln_out. L + 2 arrays."""
        x = self._norm(embeddings.astype(self.dtype), "blocks.0.ln0")
        seen, shared = [x], dict[str, Array]()
        for layer in range(self.layers):
            x = x + self._time_mix(self._norm(x, f"blocks.{layer}.ln1"), layer, state, shared)
            x = x + self._channel_mix(self._norm(x, f"blocks.{layer}.ln2"), layer, state)
            seen.append(x)
        return [*seen, self._norm(x, "ln_out")]

    def _norm(self, x: Array, name: str) -> Array:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        normal: Array = normalise(x, LAYER_NORM_EPSILON) * weight + bias
        return normal


def matmul(w: Array, x: Array) -> Array:
    """(T, M): w (M, K) times each row of x (T, K), one row at a time.

    One product of all rows would round differently for every T, and no prompt could be split exactly.
    """
    product: Array = np.matmul(w, x[..., None])[..., 0]
    return product


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    e = np.exp(-np.abs(x))
    value: Array = np.where(x < 0, e, np.ones_like(e)) / (1 + e)
    return value


def normalise(x: Array, epsilon: float) -> Array:
    """(x - mean) / sqrt(variance + epsilon) over the last axis."""
    centred = x - np.mean(x, axis=-1, keepdims=True)
    normal: Array = centred / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + epsilon)
    return normal


def previous_token(x: Array, shift: Array) -> Array:
    """Each token's predecessor (T, C), the first one's from `shift` (C,), which becomes the last token."""
    stacked = np.concatenate([shift[None], x])
    shift[:] = stacked[-1]
    return stacked[:-1]


def under(weights: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """The weights whose names begin with the prefix, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def gated_squares(weights: Mapping[str, Array], x_k: Array, x_r: Array) -> Array:
    """σ(Wr x_r) · Wv max(Wk x_k, 0)², (T, C): the feed-forward block of V4, V5 and V6."""
    k = np.maximum(matmul(weights["key.weight"], x_k), 0)
    return sigmoid(matmul(weights["receptance.weight"], x_r)) * matmul(weights["value.weight"], k * k)


def greedy(oracle: LayeredOracle[Any], prompt: Sequence[int] | Array, count: int) -> list[int]:
    """The `count` likeliest tokens after the prompt, each chosen after those before it."""
    state = oracle.state()
    tokens = [int(token) for token in prompt]
    chosen: list[int] = []
    for _ in range(count):
        tokens = [int(np.argmax(oracle.forward(tokens, state)[-1]))]
        chosen += tokens
    return chosen


def noise_of(exact: LayeredOracle[Any], rounded: LayeredOracle[Any], tokens: Sequence[int] | Array) -> float:
    """The largest absolute difference, over all logits of all tokens, between two oracles of one model."""
    error = exact.forward(tokens, exact.state()) - rounded.forward(tokens, rounded.state())
    return float(np.max(np.abs(error)))


def _shape(value: Array) -> tuple[int, ...]:
    """(C,) for a vector stored as (1, 1, C)."""
    return value.shape[2:] if value.shape[:-1] == (1, 1) else value.shape
