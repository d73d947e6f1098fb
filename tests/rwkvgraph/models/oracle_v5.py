"""RWKV-5.0, 5.1 and 5.2 in plain numpy, written from the equations: what others are held against.

Peng et al. 2024, "Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence". What is shared
with other versions, and the letters for sizes, are in `oracle_common`.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike

from tests.rwkvgraph.models.oracle_common import (
    GROUP_NORM_EPSILON,
    Array,
    LayeredOracle,
    MatrixState,
    gated_squares,
    matmul,
    normalise,
    previous_token,
    sigmoid,
    under,
)
from tests.rwkvgraph.models.oracle_v4 import mix


class Oracle(LayeredOracle[MatrixState]):
    """An RWKV-5 model that computes in one dtype throughout.

    5.0 has no gate, and of each head one decay and one logarithm of the bonus u, (H,). From 5.1 on there is a
    gate, and time_first is u itself; decay and u are (H, S), in 5.1 the same for all channels of a head.
    """

    def __init__(self, tensors: Mapping[str, Array], dtype: DTypeLike = np.float64) -> None:
        super().__init__(tensors, dtype)
        self.heads = len(tensors["blocks.0.att.time_first"])
        self.head_size = self.width // self.heads
        self.has_gate = "blocks.0.att.gate.weight" in tensors

    def state(self) -> MatrixState:
        """The state before the first token: zeros."""
        return MatrixState.empty(self.layers, self.heads, self.head_size, self.dtype)

    def _time_mix(self, x: Array, layer: int, state: MatrixState, shared: dict[str, Array]) -> Array:
        weights = under(self.weights, f"blocks.{layer}.att.")
        before = previous_token(x, state.att_shift[layer])
        shifted = {c: mix(x, before, weights[f"time_mix_{c}"]) for c in self._mixed()}

        r = self._by_head(matmul(weights["receptance.weight"], shifted["r"]))
        k = self._by_head(matmul(weights["key.weight"], shifted["k"]))
        v = self._by_head(matmul(weights["value.weight"], shifted["v"]))
        d = np.exp(-np.exp(self._a_head(weights["time_decay"])))
        u = self._a_head(weights["time_first"])
        y = wkv5(r, np.broadcast_to(d, k.shape), k, v, u if self.has_gate else np.exp(u), state.wkv[layer])
        y = group_norm(y, weights)
        if self.has_gate:
            y = y * silu(matmul(weights["gate.weight"], shifted["g"]))
        return matmul(weights["output.weight"], y)

    def _channel_mix(self, x: Array, layer: int, state: MatrixState) -> Array:
        weights = under(self.weights, f"blocks.{layer}.ffn.")
        before = previous_token(x, state.ffn_shift[layer])
        x_k, x_r = (mix(x, before, weights[f"time_mix_{c}"]) for c in "kr")
        return gated_squares(weights, x_k, x_r)

    def _mixed(self) -> str:
        return "kvrg" if self.has_gate else "kvr"

    def _by_head(self, x: Array) -> Array:
        return x.reshape(len(x), self.heads, self.head_size)

    def _a_head(self, x: Array) -> Array:
        """(H, S) of (H, S), or of one value a head (H,)."""
        return np.broadcast_to(x.reshape(self.heads, -1), (self.heads, self.head_size))


def silu(x: Array) -> Array:
    """x · σ(x)."""
    return x * sigmoid(x)


def group_norm(y: Array, weights: Mapping[str, Array]) -> Array:
    """y (T, H, S) with every head normalised, scaled and shifted by ln_x: (T, C)."""
    normal: Array = normalise(y, GROUP_NORM_EPSILON).reshape(len(y), -1)
    return normal * weights["ln_x.weight"] + weights["ln_x.bias"]


def wkv5(r: Array, d: Array, k: Array, v: Array, u: Array, state: Array) -> Array:
    """y (T, H, S) with y = (M + diag(u) k v')' r, after which the state is M = diag(d) M + k v'.

    All of r d k v are (T, H, S), u is (H, S). `state` holds M, (H, S key, S value), and is advanced in place.
    """
    y = np.empty_like(v)
    for t in range(len(r)):
        new = k[t, :, :, None] * v[t, :, None]
        y[t] = (r[t, :, None] @ (state + u[:, :, None] * new))[:, 0]
        state *= d[t, :, :, None]
        state += new
    return y
