"""The recurrence of RWKV-5 and RWKV-6, which differ in whether the decay depends on the token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rwkvgraph.op import Array, Tensor, updated
from rwkvgraph.ops.recurrence import Recurrence
from rwkvgraph_codegen import HeadRule


@dataclass(frozen=True, eq=False, repr=False)
class Wkv6(Recurrence):
    """y of RWKV-5 and RWKV-6 time mixing, token by token; the state is updated in place.

    Per head, with M[j, i] the state of key j and value i (web-rwkv, time_mix_v5 and time_mix_v6; Eagle and
    Finch paper, section 4): y_i = Σ_j r_j (u_j k_j v_i + M[j, i]);  M[j, i] = w_j M[j, i] + k_j v_i.
    starts (N,) the first stacked token of each slot with tokens; cursors (T, 4); r k v (T, H, S); w, the
    decay itself, and u the same or (H, S) for all tokens; state (B, S, C) with row j, column h * S + i;
    y (T, H, S).
    """

    starts: Tensor
    cursors: Tensor
    r: Tensor
    w: Tensor
    k: Tensor
    v: Tensor
    u: Tensor
    state: Tensor = updated()

    rule = HeadRule(
        numbers=("$r", "$w", "$k", "$r * $u * $k"),
        step=("$y = fma($s, $V($t.x), fma($v, $V($t.w), $y));", "$s = fma($s, $V($t.y), $v * $t.z);"),
        idle=(0.0, 1.0, 0.0, 0.0),
    )

    def numpy(self, *arrays: Array) -> Array:
        starts, cursors, *operands, state = arrays
        r, w, k, v, u = (np.broadcast_to(operand, self.shape_of(cursors)) for operand in operands)
        _, heads, size = r.shape
        y = np.empty_like(r)
        for start in starts:
            slot, _, length, _ = cursors[start]
            matrix = state[slot].reshape(size, heads, size).swapaxes(0, 1)  # head, key, value
            for t in range(start, start + length):
                added = k[t][:, :, None] * v[t][:, None, :]
                y[t] = np.einsum("hji,hj->hi", u[t][:, :, None] * added + matrix, r[t])
                matrix = w[t][:, :, None] * matrix + added
            state[slot] = matrix.swapaxes(0, 1).reshape(size, heads * size)
        return y


def wkv6(
    starts: Tensor, cursors: Tensor, r: Tensor, w: Tensor, k: Tensor, v: Tensor, u: Tensor, state: Tensor
) -> Tensor:
    """RWKV-5 or RWKV-6 time mixing of r w k v (T, H, S), u (H, S), updating state (B, S, C): y (T, H, S)."""
    return Wkv6(starts, cursors, r, w, k, v, u, state).result
