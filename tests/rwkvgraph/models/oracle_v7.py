"""RWKV-7 in plain numpy, written from the paper's equations: what other implementations are held against.

Peng et al. 2025, "RWKV-7 Goose with Expressive Dynamic State Evolution". Nothing here comes from the package
under test, and none of its ops are used. T tokens, C channels, L layers, H heads of size S, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array: TypeAlias = NDArray[Any]

LAYER_NORM_EPSILON = 1e-5
GROUP_NORM_EPSILON = 64e-5
UNIT_EPSILON = 1e-12
# exp(-1/2) in the digits that inference engines share. The exact value moves the tiny model's logits by 3e-6.
DECAY = 0.606531


@dataclass
class OracleState:
    """What a sequence leaves behind: att_shift (L, C), wkv (L, H, S key, S value), ffn_shift (L, C)."""

    att_shift: Array
    wkv: Array
    ffn_shift: Array

    def copy(self) -> "OracleState":
        """A state that changes on its own."""
        return OracleState(self.att_shift.copy(), self.wkv.copy(), self.ffn_shift.copy())

    def to_rows(self) -> Array:
        """(L, S + 2, C): row 0 att_shift, row 1 + j column h·S + i wkv[h, j, i], row S + 1 ffn_shift."""
        layers, heads, size, _ = self.wkv.shape
        wkv = self.wkv.transpose(0, 2, 1, 3).reshape(layers, size, heads * size)
        return np.concatenate([self.att_shift[:, None], wkv, self.ffn_shift[:, None]], axis=1)

    @classmethod
    def from_rows(cls, rows: Array, dtype: DTypeLike = np.float64) -> "OracleState":
        """The inverse of `to_rows`; the head size is read off the number of rows."""
        layers, height, channels = rows.shape
        size = height - 2
        wkv = rows[:, 1:-1].reshape(layers, size, channels // size, size).transpose(0, 2, 1, 3)
        return cls(rows[:, 0].astype(dtype), wkv.astype(dtype, order="C"), rows[:, -1].astype(dtype))


class Oracle:
    """An RWKV-7 model that computes in one dtype throughout.

    `tensors` follow the converted convention: lower-case names; w1 a1 v1 g1 (D, C); w2 a2 v2 g2 (C, D);
    r_k (H, S). Block 0 needs no v0 v1 v2, and none that it has are read.
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
        self.heads, self.head_size = tensors["blocks.0.att.r_k"].shape
        self.vocabulary, self.width = self.embedding.shape

    def state(self) -> OracleState:
        """The state before the first token: zeros."""
        shift = np.zeros((self.layers, self.width), self.dtype)
        wkv = np.zeros((self.layers, self.heads, self.head_size, self.head_size), self.dtype)
        return OracleState(shift, wkv, shift.copy())

    def forward(self, tokens: Sequence[int] | Array, state: OracleState) -> Array:
        """Logits (T, V) after every one of the tokens; `state` is advanced past the last."""
        return self.forward_embeddings(self.embedding[np.asarray(tokens, np.int64)], state)

    def forward_embeddings(self, embeddings: Array, state: OracleState) -> Array:
        """As `forward`, of rows (T, C) that stand where rows of the embedding table would: before ln0."""
        return matmul(self.weights["head.weight"], self.stream(embeddings, state)[-1])

    def stream(self, embeddings: Array, state: OracleState) -> list[Array]:
        """The residual stream (T, C): after ln0, after every layer, and last after ln_out. L + 2 arrays."""
        x = self._norm(embeddings.astype(self.dtype), "blocks.0.ln0")
        seen, v_first = [x], None
        for layer in range(self.layers):
            mixed, v_first = self._time_mix(self._norm(x, f"blocks.{layer}.ln1"), v_first, layer, state)
            x = x + mixed
            x = x + self._channel_mix(self._norm(x, f"blocks.{layer}.ln2"), layer, state)
            seen.append(x)
        return [*seen, self._norm(x, "ln_out")]

    def _time_mix(
        self, x: Array, v_first: Array | None, layer: int, state: OracleState
    ) -> tuple[Array, Array]:
        """A time mixing block's output (T, C), and block 0's value (T, C) for the blocks after it."""
        weights = _under(self.weights, f"blocks.{layer}.att.")
        delta = _previous(x, state.att_shift[layer]) - x
        x_r, x_w, x_k, x_v, x_a, x_g = (x + delta * weights[f"x_{c}"] for c in "rwkvag")

        r = matmul(weights["receptance.weight"], x_r)
        k = matmul(weights["key.weight"], x_k)
        v = matmul(weights["value.weight"], x_v)
        w = weights["w0"] + matmul(weights["w2"], np.tanh(matmul(weights["w1"], x_w)))
        a = sigmoid(weights["a0"] + matmul(weights["a2"], matmul(weights["a1"], x_a)))
        g = matmul(weights["g2"], sigmoid(matmul(weights["g1"], x_g)))

        kk = self._by_head(k * weights["k_k"])
        kk = kk / np.sqrt(np.sum(kk * kk, axis=-1, keepdims=True) + UNIT_EPSILON)
        k = k * (1 + (a - 1) * weights["k_a"])
        if v_first is None:
            v_first = v
        else:
            v = v + (v_first - v) * sigmoid(weights["v0"] + matmul(weights["v2"], matmul(weights["v1"], x_v)))

        r, k, v, a, d = (self._by_head(part) for part in (r, k, v, a, np.exp(-DECAY * sigmoid(w))))
        y = normalise(wkv7(r, d, k, v, -kk, kk * a, state.wkv[layer]), GROUP_NORM_EPSILON)
        y = y.reshape(x.shape) * weights["ln_x.weight"] + weights["ln_x.bias"]
        y = y + (np.sum(r * k * weights["r_k"], axis=-1, keepdims=True) * v).reshape(x.shape)
        return matmul(weights["output.weight"], g * y), v_first

    def _channel_mix(self, x: Array, layer: int, state: OracleState) -> Array:
        """The output (T, C) of a feed-forward block."""
        weights = _under(self.weights, f"blocks.{layer}.ffn.")
        x_k = x + (_previous(x, state.ffn_shift[layer]) - x) * weights["x_k"]
        k = np.maximum(matmul(weights["key.weight"], x_k), 0)
        return matmul(weights["value.weight"], k * k)

    def _norm(self, x: Array, name: str) -> Array:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        normal: Array = normalise(x, LAYER_NORM_EPSILON) * weight + bias
        return normal

    def _by_head(self, x: Array) -> Array:
        return x.reshape(len(x), self.heads, self.head_size)


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


def wkv7(r: Array, d: Array, k: Array, v: Array, a: Array, b: Array, state: Array) -> Array:
    """y (T, H, S) with y = M' r, where each token makes the state M = diag(d) M + b (a' M) + k v'.

    All of r d k v a b are (T, H, S). `state` holds M, (H, S key, S value), and is advanced in place.
    """
    y = np.empty_like(v)
    for t in range(len(r)):
        removed = a[t, :, None] @ state  # (H, 1, S value)
        state *= d[t, :, :, None]
        state += b[t, :, :, None] * removed
        state += k[t, :, :, None] * v[t, :, None]
        y[t] = (r[t, :, None] @ state)[:, 0]
    return y


def greedy(oracle: Oracle, prompt: Sequence[int] | Array, count: int) -> list[int]:
    """The `count` likeliest tokens after the prompt, each chosen after those before it."""
    state = oracle.state()
    tokens = [int(token) for token in prompt]
    chosen: list[int] = []
    for _ in range(count):
        tokens = [int(np.argmax(oracle.forward(tokens, state)[-1]))]
        chosen += tokens
    return chosen


def float32_noise(tensors: Mapping[str, Array], tokens: Sequence[int] | Array) -> float:
    """The largest absolute error, over all logits of all tokens, of float32 against float64.

    The yardstick for tolerances: rounding alone costs this much, whatever the order of the sums.
    """
    exact, rounded = Oracle(tensors, np.float64), Oracle(tensors, np.float32)
    error = exact.forward(tokens, exact.state()) - rounded.forward(tokens, rounded.state())
    return float(np.max(np.abs(error)))


def _previous(x: Array, shift: Array) -> Array:
    """Each token's predecessor (T, C), the first one's from `shift` (C,), which becomes the last token."""
    stacked = np.concatenate([shift[None], x])
    shift[:] = stacked[-1]
    return stacked[:-1]


def _shape(value: Array) -> tuple[int, ...]:
    """(C,) for a vector stored as (1, 1, C)."""
    return value.shape[2:] if value.ndim == 3 else value.shape


def _under(weights: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
