"""What a model should give, in float64, and how far off float32 may be: the tolerance of the tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from rwkvgraph.model import Model
from rwkvgraph.state import State
from tests.rwkvgraph.models.oracle_common import Array
from tests.rwkvgraph.models.oracle_v4 import VectorState
from tests.rwkvgraph.models.oracles import oracle_for

TIMES_FLOAT32 = 20
"""Largest error allowed, in units of what the same mathematics loses in float32 on numpy: other orders of
sums, fused multiply-adds and the device's exp and tanh cost some of them."""

LARGEST_SCALE = 50.0
"""Of exp, in `at_scale_of`: where a pp is off by more, the row of the pp fails anyway."""


@dataclass(frozen=True)
class Expected:
    """A prompt in float64: logits (T, V) after every token and the state (L, rows, C) after the last.

    The noises are the largest errors of float32: in the logits, in the shift rows, in the rows between them.
    In V4 these are sums, aa and bb, whose exponent pp has a noise of its own; other versions have none.
    """

    logits: Array
    state: Array
    logits_noise: float
    shift_noise: float
    wkv_noise: float
    pp_noise: float | None = None

    def check_logits(self, given: Array | None, at: int = -1) -> float:
        """Fail unless these are the logits after token `at`; gives their error in units of float32's."""
        assert given is not None
        assert given.shape == self.logits[at].shape
        assert given.dtype == np.float32
        return within("logits", given - self.logits[at], self.logits_noise)

    def check_state(self, given: Array) -> float:
        """Fail unless this is the state; gives its error in units of float32's."""
        assert given.shape == self.state.shape
        assert given.dtype == np.float32
        if self.pp_noise is None:
            error = given - self.state
            wkv = within("wkv rows", error[:, 1:-1], self.wkv_noise)
        else:
            error = at_scale_of(self.state, given) - self.state
            sums = within("sums aa and bb", error[:, 1:3], self.wkv_noise)
            wkv = max(sums, within("exponents pp", error[:, 3], self.pp_noise))
        return max(wkv, within("shift rows", error[:, [0, -1]], self.shift_noise))

    def no_stricter_than(self, longer: "Expected") -> "Expected":
        """The same with at least a longer prompt's noise: so few values may have rounded luckily."""
        return replace(
            self,
            logits_noise=max(self.logits_noise, longer.logits_noise),
            shift_noise=max(self.shift_noise, longer.shift_noise),
            wkv_noise=max(self.wkv_noise, longer.wkv_noise),
            pp_noise=None if self.pp_noise is None else max(self.pp_noise, longer.pp_noise or 0),
        )


def at_scale_of(wanted: Array, given: Array) -> Array:
    """V4's rows (L, 5, C) with aa and bb as they were if their exponent were `wanted`'s.

    (aa, bb, pp) and (aa·e, bb·e, pp - 1) are the same state, and rounding moves pp: only sums to the same
    exponent can be compared. The rows of pp themselves are left as given, to be compared on their own: the
    exponent is the running maximum and nothing else, as in web-rwkv's states.
    """
    rows = given.astype(np.float64)
    rows[:, 1:3] *= np.exp(np.clip(rows[:, 3:4] - wanted[:, 3:4], -LARGEST_SCALE, LARGEST_SCALE))
    return rows


def within(name: str, error: Array, noise: float) -> float:
    """The largest error in units of `noise`; fails, naming it, where it is over the tolerance or NaN."""
    times = largest(error) / noise
    assert times <= TIMES_FLOAT32, f"{name} are off by {times:.1f} times the float32 noise of {noise:.1e}"
    return times


def expect(tensors: Mapping[str, Array], tokens: Sequence[int] | Array) -> Expected:
    """What a model with these tensors, of any version, makes of a prompt from the empty state."""
    exact, rounded = oracle_for(tensors), oracle_for(tensors, np.float32)
    state, rounded_state = exact.state(), rounded.state()
    logits = exact.forward(tokens, state)
    logits_noise = largest(rounded.forward(tokens, rounded_state) - logits)
    rows, rounded_rows = state.to_rows(), rounded_state.to_rows()
    if isinstance(state, VectorState):
        error = at_scale_of(rows, rounded_rows) - rows
        wkv_noise, pp_noise = largest(error[:, 1:3]), largest(error[:, 3])
    else:
        error = rounded_rows - rows
        wkv_noise, pp_noise = largest(error[:, 1:-1]), None
    return Expected(logits, rows, logits_noise, largest(error[:, [0, -1]]), wkv_noise, pp_noise)


def largest(error: Array) -> float:
    """The largest magnitude."""
    return float(np.max(np.abs(error)))


def feed(model: Model, state: State, runs: Sequence[Sequence[list[int]]]) -> list[list[Array]]:
    """Run what each slot is to be given, run after run; gives each slot's logits after each of its runs.

    On the way: a slot has logits just when a call took the last of its tokens.
    """
    waiting = [[list(run) for run in slot] for slot in runs]
    tokens: list[list[int]] = [[] for _ in runs]
    logits: list[list[Array]] = [[] for _ in runs]
    while any(tokens) or any(waiting):
        for slot, queue in enumerate(waiting):
            if queue and not tokens[slot]:
                tokens[slot] = queue.pop(0)
        before = [len(slot) for slot in tokens]
        for slot, row in enumerate(model.run(tokens, state)):
            assert (row is not None) == (before[slot] > 0 and not tokens[slot])
            if row is not None:
                logits[slot].append(row)
        took = sum(before) - sum(map(len, tokens))
        assert took == min(model.token_chunk_size, sum(before))
    return logits


def cut_at(tokens: Sequence[int], ends: Sequence[int]) -> list[list[int]]:
    """The tokens in runs that end at those places, and at the end."""
    edges = [0, *ends, len(tokens)]
    return [list(tokens[start:end]) for start, end in pairwise(edges)]
