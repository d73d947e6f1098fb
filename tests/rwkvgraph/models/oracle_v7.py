"""RWKV-7 in plain numpy, written from the paper's equations: what other implementations are held against.

Peng et al. 2025, "RWKV-7 Goose with Expressive Dynamic State Evolution". What is shared with other versions,
and the letters for sizes, are in `oracle_common`.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from tests.rwkvgraph.models.oracle_common import (
    GROUP_NORM_EPSILON,
    LayeredOracle,
    MatrixState,
    matmul,
    noise_of,
    normalise,
    previous_token,
    sigmoid,
    under,
)
from tests.rwkvgraph.models.oracle_common import Array as Array
from tests.rwkvgraph.models.oracle_common import greedy as greedy

OracleState: TypeAlias = MatrixState

UNIT_EPSILON = 1e-12
# exp(-1/2) in the digits that inference engines share. The exact value moves the tiny model's logits by 3e-6.
DECAY = 0.606531


class Oracle(LayeredOracle[OracleState]):
    """An RWKV-7 model that computes in one dtype throughout.

    `tensors` follow the converted convention: lower-case names; w1 a1 v1 g1 (D, C); w2 a2 v2 g2 (C, D);
    r_k (H, S). Block 0 needs no v0 v1 v2, and none that it has are read.
    """

    def __init__(self, tensors: Mapping[str, Array], dtype: DTypeLike = np.float64) -> None:
        super().__init__(tensors, dtype)
        self.heads, self.head_size = tensors["blocks.0.att.r_k"].shape

    def state(self) -> OracleState:
        """The state before the first token: zeros."""
        return OracleState.empty(self.layers, self.heads, self.head_size, self.dtype)

    def _time_mix(self, x: Array, layer: int, state: OracleState, shared: dict[str, Array]) -> Array:
        """A time mixing block's output (T, C); block 0 shares its value (T, C) as v_first."""
        weights = under(self.weights, f"blocks.{layer}.att.")
        delta = previous_token(x, state.att_shift[layer]) - x
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
        v_first = shared.setdefault("v_first", v)
        if layer > 0:
            v = v + (v_first - v) * sigmoid(weights["v0"] + matmul(weights["v2"], matmul(weights["v1"], x_v)))

        r, k, v, a, d = (self._by_head(part) for part in (r, k, v, a, np.exp(-DECAY * sigmoid(w))))
        y = normalise(wkv7(r, d, k, v, -kk, kk * a, state.wkv[layer]), GROUP_NORM_EPSILON)
        y = y.reshape(x.shape) * weights["ln_x.weight"] + weights["ln_x.bias"]
        y = y + (np.sum(r * k * weights["r_k"], axis=-1, keepdims=True) * v).reshape(x.shape)
        return matmul(weights["output.weight"], g * y)

    def _channel_mix(self, x: Array, layer: int, state: OracleState) -> Array:
        """The output (T, C) of a feed-forward block."""
        weights = under(self.weights, f"blocks.{layer}.ffn.")
        x_k = x + (previous_token(x, state.ffn_shift[layer]) - x) * weights["x_k"]
        k = np.maximum(matmul(weights["key.weight"], x_k), 0)
        return matmul(weights["value.weight"], k * k)

    def _by_head(self, x: Array) -> Array:
        return x.reshape(len(x), self.heads, self.head_size)


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


def float32_noise(tensors: Mapping[str, Array], tokens: Sequence[int] | Array) -> float:
    """The largest absolute error, over all logits of all tokens, of float32 against float64.

    The yardstick for tolerances: rounding alone costs this much, whatever the order of the sums.
    """
    return noise_of(Oracle(tensors), Oracle(tensors, np.float32), tokens)
