"""The two operations that know where a sequence starts and ends in the stacked tokens.

cursors (T, 4) u32 says for each token: the slot it belongs to, the first stacked token of that slot, how many
tokens the slot has in this run, and nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rwkvgraph.op import BEFORE, Array, Map, Tensor, operand, updated
from rwkvgraph.view import Shape


@dataclass(frozen=True, eq=False, repr=False)
class PreviousToken(Map):
    """For each token the row of the one before it: x[t - 1], or the slot's state for its first token.

    x (T, C), state (B, C), cursors (T, 4).
    """

    cursors: Tensor
    x: Tensor = operand(row=BEFORE)
    state: Tensor = operand(row="cursors.x")

    wgsl = "select(x, state, i0 == cursors.y)"

    def infer(self) -> Shape:
        """(T, C)."""
        return self.x.shape

    def numpy(self, *arrays: Array) -> Array:
        cursors, x, state = arrays
        before = np.roll(x, 1, axis=0)
        first = np.arange(len(x)) == cursors[:, 1]
        return np.where(first[:, None], state[cursors[:, 0]], before)


@dataclass(frozen=True, eq=False, repr=False)
class KeepLast(Map):
    """Writes the row of each slot's last token to the slot's state.

    x (T, C), cursors (T, 4), state (B, C).
    """

    cursors: Tensor
    x: Tensor
    state: Tensor = updated()

    wgsl = "x"
    guard = "i0 + 1u == cursors.y + cursors.z"
    row = "cursors.x"

    def infer(self) -> Shape:
        """x's shape: what is looked at, not what is written."""
        return self.x.shape

    def numpy(self, *arrays: Array) -> Array:
        cursors, x, state = arrays
        last = np.arange(len(x)) + 1 == cursors[:, 1] + cursors[:, 2]
        state[cursors[last, 0]] = x[last]
        return x


def previous_token(x: Tensor, state: Tensor, cursors: Tensor) -> Tensor:
    """x (T, C) moved down by a token; a slot's first token sees its row of state (B, C)."""
    return PreviousToken(cursors, x, state).result


def keep_last(x: Tensor, state: Tensor, cursors: Tensor) -> KeepLast:
    """Write the last token of each slot in x (T, C) to its row of state (B, C)."""
    return KeepLast(cursors, x, state)
