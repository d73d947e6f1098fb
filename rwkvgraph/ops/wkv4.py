"""RWKV-4's recurrence, of each channel alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rwkvgraph.op import Array, Tensor, updated
from rwkvgraph.ops.recurrence import Recurrence
from rwkvgraph_codegen import ScanRule

EMPTY_PP = float(np.finfo(np.float32).min)
"""pp before the first token: no exponent yet. web-rwkv's value; BlinkDL's is -1e30."""


@dataclass(frozen=True, eq=False, repr=False)
class Wkv4(Recurrence):
    """wkv of RWKV-4 time mixing, token by token; the state is updated in place.

    A weighted mean of the values so far, weights e^k decaying by e^w, the current one's times e^u. Sums aa
    and bb are kept times e^-pp, so that nothing overflows (RWKV-4 paper, appendix D; web-rwkv, time_mix_v4):
    q = max(pp, u + k);  y = (e^(pp-q) aa + e^(u+k-q) v) / (e^(pp-q) bb + e^(u+k-q));
    q = max(w + pp, k);  aa = e^(w+pp-q) aa + e^(k-q) v;  bb = e^(w+pp-q) bb + e^(k-q);  pp = q.
    starts (N,) the first stacked token of each slot with tokens; cursors (T, 4); k v (T, C); w, which is
    negative, and u (C,); state (B, 3, C) with rows aa, bb, pp; y (T, C).
    """

    starts: Tensor
    cursors: Tensor
    w: Tensor
    u: Tensor
    k: Tensor
    v: Tensor
    state: Tensor = updated()

    # Exponents are kept above -100, where e^x is 0 in float32 or all but: from pp's first value they would
    # else be infinite, which WGSL does not promise to compute with.
    rule = ScanRule(
        rows=3,
        step=(
            "let now = $u + $k;",
            "let top = max($s2, now);",
            "let before = exp(max($s2 - top, V(-100.0)));",
            "let here_and_now = exp(max(now - top, V(-100.0)));",
            "let y = fma(before, $s0, here_and_now * $v) / fma(before, $s1, here_and_now);",
            "let faded = $s2 + $w;",
            "let next = max(faded, $k);",
            "let kept = exp(max(faded - next, V(-100.0)));",
            "let added = exp(max($k - next, V(-100.0)));",
            "$s0 = fma(kept, $s0, added * $v);",
            "$s1 = fma(kept, $s1, added);",
            "$s2 = next;",
        ),
    )

    def numpy(self, *arrays: Array) -> Array:
        starts, cursors, w, u, k, v, state = arrays
        k, v = (np.broadcast_to(operand, self.shape_of(cursors)) for operand in (k, v))
        y = np.empty_like(k)
        for start in starts:
            slot, _, length, _ = cursors[start]
            aa, bb, pp = state[slot]
            for t in range(start, start + length):
                q = np.maximum(pp, u + k[t])
                old, new = np.exp(pp - q), np.exp(u + k[t] - q)
                y[t] = (old * aa + new * v[t]) / (old * bb + new)
                q = np.maximum(w + pp, k[t])
                old, new = np.exp(w + pp - q), np.exp(k[t] - q)
                aa, bb, pp = old * aa + new * v[t], old * bb + new, q
            state[slot] = aa, bb, pp
        return y


def wkv4(
    starts: Tensor, cursors: Tensor, w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor
) -> Tensor:
    """RWKV-4 time mixing of k v (T, C) with w u (C,), updating state (B, 3, C); gives y (T, C)."""
    return Wkv4(starts, cursors, w, u, k, v, state).result
