"""RWKV-7's recurrence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rwkvgraph.op import Array, Tensor, updated
from rwkvgraph.ops.recurrence import Recurrence
from rwkvgraph_codegen import HeadRule


@dataclass(frozen=True, eq=False, repr=False)
class Wkv7(Recurrence):
    """y of RWKV-7 time mixing, token by token; the state is updated in place.

    Per head, with M[j, i] the state of key j and value i (web-rwkv, time_mix_v7; RWKV-7 paper, eq. 17):
    sa_i = -Σ_j M[j, i] kk_j;  M[j, i] = w_j M[j, i] + k_j v_i + sa_i kk_j a_j;  y_i = Σ_j r_j M[j, i].
    starts (N,) the first stacked token of each slot with tokens; cursors (T, 4); r w k v kk a (T, H, S), w
    the decay itself; state (B, S, C) with row j, column h * S + i; y (T, H, S).
    """

    starts: Tensor
    cursors: Tensor
    r: Tensor
    w: Tensor
    k: Tensor
    v: Tensor
    kk: Tensor
    a: Tensor
    state: Tensor = updated()

    rule = HeadRule(
        numbers=("$r", "$w", "$k", "$kk * $a"),
        look="-$kk",
        step=("$s = fma($s, $V($t.y), fma($v, $V($t.z), $seen * $t.w));", "$y = fma($s, $V($t.x), $y);"),
        idle=(0.0, 1.0, 0.0, 0.0),
    )

    def numpy(self, *arrays: Array) -> Array:
        starts, cursors, *operands, state = arrays
        r, w, k, v, kk, a = (np.broadcast_to(operand, self.shape_of(cursors)) for operand in operands)
        _, heads, size = r.shape
        y = np.empty_like(r)
        for start in starts:
            slot, _, length, _ = cursors[start]
            matrix = state[slot].reshape(size, heads, size).swapaxes(0, 1)  # head, key, value
            for t in range(start, start + length):
                removed = -np.einsum("hji,hj->hi", matrix, kk[t])
                matrix = w[t][:, :, None] * matrix + k[t][:, :, None] * v[t][:, None, :]
                matrix += (kk[t] * a[t])[:, :, None] * removed[:, None, :]
                y[t] = np.einsum("hji,hj->hi", matrix, r[t])
            state[slot] = matrix.swapaxes(0, 1).reshape(size, heads * size)
        return y


def wkv7(
    starts: Tensor,
    cursors: Tensor,
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    kk: Tensor,
    a: Tensor,
    state: Tensor,
) -> Tensor:
    """RWKV-7 time mixing of r w k v kk a (T, H, S), updating state (B, S, C); gives y (T, H, S)."""
    return Wkv7(starts, cursors, r, w, k, v, kk, a, state).result
