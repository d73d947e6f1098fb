"""What a model should give, in float64, and how far off float32 may be: the tolerance of the tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rwkvgraph.model import Model
from rwkvgraph.state import State
from tests.rwkvgraph.models.oracle_v7 import Array, Oracle

TIMES_FLOAT32 = 20
"""Largest error allowed, in units of what the same mathematics loses in float32 on numpy: other orders of
sums, fused multiply-adds and the device's exp and tanh cost some of them."""


@dataclass(frozen=True)
class Expected:
    """A prompt in float64: logits (T, V) after every token and the state (L, S + 2, C) after the last.

    The three noises are the largest errors of float32 in the logits, the shift rows and the wkv rows.
    """

    logits: Array
    state: Array
    logits_noise: float
    shift_noise: float
    wkv_noise: float

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
        error = given - self.state
        shift = within("shift rows", error[:, [0, -1]], self.shift_noise)
        return max(shift, within("wkv rows", error[:, 1:-1], self.wkv_noise))


def within(name: str, error: Array, noise: float) -> float:
    """The largest error in units of `noise`; fails, naming it, where it is over the tolerance or NaN."""
    times = float(np.max(np.abs(error))) / noise
    assert times <= TIMES_FLOAT32, f"{name} are off by {times:.1f} times the float32 noise of {noise:.1e}"
    return times


def expect(tensors: Mapping[str, Array], tokens: Sequence[int] | Array) -> Expected:
    """What a model with these tensors makes of a prompt from the empty state."""
    exact, rounded = Oracle(tensors), Oracle(tensors, np.float32)
    state, rounded_state = exact.state(), rounded.state()
    logits = exact.forward(tokens, state)
    error = np.abs(rounded.forward(tokens, rounded_state) - logits)
    rows = state.to_rows()
    row_error = np.abs(rounded_state.to_rows() - rows)
    noises = np.max(error), np.max(row_error[:, [0, -1]]), np.max(row_error[:, 1:-1])
    return Expected(logits, rows, *map(float, noises))


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
