"""RWKV-6 in plain numpy, written from the paper's equations: what other implementations are held against.

Peng et al. 2024, "Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence". What is shared
with other versions, and the letters for sizes, are in `oracle_common`; the recurrence is V5's.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike

from tests.rwkvgraph.models.oracle_common import (
    Array,
    LayeredOracle,
    MatrixState,
    gated_squares,
    matmul,
    previous_token,
    under,
)
from tests.rwkvgraph.models.oracle_v5 import group_norm, silu, wkv5


class Oracle(LayeredOracle[MatrixState]):
    """An RWKV-6 model that computes in one dtype throughout.

    Ranks Dm of the mixing and Dw of the decay: time_mix_w1 (5 Dm, C), time_mix_w2 (5, C, Dm), in the order
    w k v r g; time_decay_w1 (Dw, C), time_decay_w2 (C, Dw); time_first (H, S).
    """

    def __init__(self, tensors: Mapping[str, Array], dtype: DTypeLike = np.float64) -> None:
        super().__init__(tensors, dtype)
        self.heads, self.head_size = tensors["blocks.0.att.time_first"].shape

    def state(self) -> MatrixState:
        """The state before the first token: zeros."""
        return MatrixState.empty(self.layers, self.heads, self.head_size, self.dtype)

    def _time_mix(self, x: Array, layer: int, state: MatrixState, shared: dict[str, Array]) -> Array:
        weights = under(self.weights, f"blocks.{layer}.att.")
        delta = previous_token(x, state.att_shift[layer]) - x
        x_w, x_k, x_v, x_r, x_g = data_dependent_mix(x, delta, weights)

        r = self._by_head(matmul(weights["receptance.weight"], x_r))
        k = self._by_head(matmul(weights["key.weight"], x_k))
        v = self._by_head(matmul(weights["value.weight"], x_v))
        low_rank = matmul(weights["time_decay_w2"], np.tanh(matmul(weights["time_decay_w1"], x_w)))
        d = self._by_head(np.exp(-np.exp(weights["time_decay"] + low_rank)))
        y = group_norm(wkv5(r, d, k, v, weights["time_first"], state.wkv[layer]), weights)
        return matmul(weights["output.weight"], y * silu(matmul(weights["gate.weight"], x_g)))

    def _channel_mix(self, x: Array, layer: int, state: MatrixState) -> Array:
        weights = under(self.weights, f"blocks.{layer}.ffn.")
        delta = previous_token(x, state.ffn_shift[layer]) - x
        x_k, x_r = (x + delta * weights[f"time_mix_{c}"] for c in "kr")
        return gated_squares(weights, x_k, x_r)

    def _by_head(self, x: Array) -> Array:
        return x.reshape(len(x), self.heads, self.head_size)


def data_dependent_mix(x: Array, delta: Array, weights: Mapping[str, Array]) -> list[Array]:
    """Token shift (T, C) for each of w k v r g, whose amounts depend on the token and the one before."""
    inner = np.tanh(matmul(weights["time_mix_w1"], x + delta * weights["time_mix_x"]))
    parts = np.split(inner, 5, axis=-1)  # five times (T, Dm)
    amounts = [
        weights[f"time_mix_{c}"] + matmul(w2, part)
        for c, w2, part in zip("wkvrg", weights["time_mix_w2"], parts, strict=True)
    ]
    return [x + delta * amount for amount in amounts]
