"""RWKV-4 in plain numpy, written from the paper's equations: what other implementations are held against.

Peng et al. 2023, "RWKV: Reinventing RNNs for the Transformer Era", appendix D for the sums that do not
overflow. What is shared with other versions, and the letters for sizes, are in `oracle_common`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from tests.rwkvgraph.models.oracle_common import (
    Array,
    LayeredOracle,
    gated_squares,
    matmul,
    previous_token,
    sigmoid,
    under,
)

NO_TOKEN = float(np.finfo(np.float32).min)
"""pp before the first token: its exponential is zero, whatever is taken from it."""


@dataclass
class VectorState:
    """What a sequence leaves behind, five times (L, C).

    After tokens i of keys k and values v, each decayed by w a token since: aa = Σ exp(k - pp) v and
    bb = Σ exp(k - pp), where pp is the largest of the k. Only aa·exp(pp) and bb·exp(pp) have a meaning.
    """

    att_shift: Array
    aa: Array
    bb: Array
    pp: Array
    ffn_shift: Array

    def _parts(self) -> tuple[Array, ...]:
        return self.att_shift, self.aa, self.bb, self.pp, self.ffn_shift

    def copy(self) -> "VectorState":
        """A state that changes on its own."""
        return VectorState(*(part.copy() for part in self._parts()))

    def to_rows(self) -> Array:
        """(L, 5, C): att_shift, aa, bb, pp, ffn_shift."""
        return np.stack(self._parts(), axis=1)

    @classmethod
    def from_rows(cls, rows: Array, dtype: DTypeLike = np.float64) -> "VectorState":
        """The inverse of `to_rows`."""
        return cls(*(rows[:, index].astype(dtype) for index in range(5)))


class Oracle(LayeredOracle[VectorState]):
    """An RWKV-4 model that computes in one dtype throughout."""

    def state(self) -> VectorState:
        """The state before the first token: zeros, but for pp."""
        zeros = np.zeros((self.layers, self.width), self.dtype)
        return VectorState(zeros, zeros.copy(), zeros.copy(), zeros + NO_TOKEN, zeros.copy())

    def _time_mix(self, x: Array, layer: int, state: VectorState, shared: dict[str, Array]) -> Array:
        weights = under(self.weights, f"blocks.{layer}.att.")
        before = previous_token(x, state.att_shift[layer])
        x_k, x_v, x_r = (mix(x, before, weights[f"time_mix_{c}"]) for c in "kvr")

        r = sigmoid(matmul(weights["receptance.weight"], x_r))
        k = matmul(weights["key.weight"], x_k)
        v = matmul(weights["value.weight"], x_v)
        sums = state.aa[layer], state.bb[layer], state.pp[layer]
        y = wkv4(k, v, -np.exp(weights["time_decay"]), weights["time_first"], *sums)
        return matmul(weights["output.weight"], r * y)

    def _channel_mix(self, x: Array, layer: int, state: VectorState) -> Array:
        weights = under(self.weights, f"blocks.{layer}.ffn.")
        before = previous_token(x, state.ffn_shift[layer])
        x_k, x_r = (mix(x, before, weights[f"time_mix_{c}"]) for c in "kr")
        return gated_squares(weights, x_k, x_r)


def mix(x: Array, before: Array, amount: Array) -> Array:
    """Token shift as V4 and V5 have it: an amount of 1 keeps the token, 0 takes the one before."""
    mixed: Array = before * (1 - amount) + x * amount
    return mixed


def wkv4(k: Array, v: Array, w: Array, u: Array, aa: Array, bb: Array, pp: Array) -> Array:
    """y (T, C): the mean of the values so far, weighted by exp(k), decayed by w ≤ 0 a token.

    The newest weighs exp(u + k). k and v are (T, C), all others (C,); aa, bb and pp (see `VectorState`) are
    advanced in place.
    """
    y = np.empty_like(v)
    for t in range(len(k)):
        most = np.maximum(pp, u + k[t])
        old, new = np.exp(pp - most), np.exp(u + k[t] - most)
        y[t] = (old * aa + new * v[t]) / (old * bb + new)
        most = np.maximum(w + pp, k[t])
        old, new = np.exp(w + pp - most), np.exp(k[t] - most)
        aa[:] = old * aa + new * v[t]
        bb[:] = old * bb + new
        pp[:] = most
    return y
