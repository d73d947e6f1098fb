"""How far the values of two models are apart, and where in the order of execution that begins.

Only numpy; which values, and how both models are run, is in `reading.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rwkvgraph.op import Array
from rwkvgraph.sight.values import Place, larger, largest_of

THRESHOLD = 0.05
"""Of the relative difference. In random models of 24 layers weights in bfloat16 make up to 0.033 somewhere
and 8-bit ones up to 0.064, in the small model 0.006 and 0.010; a tensor that is wrong makes 0.1 and more."""

ROUNDING = 1e-6
"""Relative differences that the order of summation alone makes in float32."""

JUMP = 2.0
"""Growth that is worth telling; from layer to layer rounding makes less."""


@dataclass(frozen=True)
class Drift:
    """How a value of a second model differs from the first's. `+` takes more tokens in.

    squares, other_squares, products, differences: sums over the numbers that are finite in both, float64: of
    a², b², a b and (b - a)². largest: b - a of the largest magnitude. unlike: how many numbers are finite in
    one model alone, or not finite in both, but not the same.
    """

    squares: float
    other_squares: float
    products: float
    differences: float
    largest: Place | None
    unlike: int

    @property
    def relative(self) -> float:
        """rms(b - a) / rms(a); infinite where a is all zeros and b is not, or one of them is not finite."""
        if self.unlike:
            return math.inf
        if not self.differences:
            return 0.0
        return math.sqrt(self.differences / self.squares) if self.squares else math.inf

    @property
    def cosine(self) -> float:
        """Of the angle between both, all tokens as one vector; NaN where one of them is all zeros."""
        if not self.squares or not self.other_squares:
            return math.nan
        return self.products / (math.sqrt(self.squares) * math.sqrt(self.other_squares))

    def __add__(self, later: Drift) -> Drift:
        return Drift(
            self.squares + later.squares,
            self.other_squares + later.other_squares,
            self.products + later.products,
            self.differences + later.differences,
            larger(self.largest, later.largest),
            self.unlike + later.unlike,
        )


NO_DRIFT = Drift(0.0, 0.0, 0.0, 0.0, None, 0)
"""Of no numbers: where a sum begins."""


def drift_of(first: Array, second: Array, first_token: int = 0) -> Drift:
    """Between pieces of a value, (n, C) both. first_token: position of their first row in the prompt."""
    is_finite = np.isfinite(first) & np.isfinite(second)
    a, b = (np.where(is_finite, rows, 0).astype(np.float64) for rows in (first, second))
    is_same = is_finite | (first == second) | (np.isnan(first) & np.isnan(second))
    return Drift(
        float(np.vdot(a, a)),
        float(np.vdot(b, b)),
        float(np.vdot(a, b)),
        float(np.vdot(b - a, b - a)),
        largest_of(b - a, is_finite, first_token),
        int(is_same.size - is_same.sum()),
    )


def first_unlike(drifts: Mapping[str, Drift]) -> str | None:
    """The first value, in the order given, that is not the same in both."""
    return first_above(drifts, 0.0)


def first_above(drifts: Mapping[str, Drift], threshold: float) -> str | None:
    """The first value, in the order given, whose relative difference is larger than the threshold."""
    return next((name for name, drift in drifts.items() if drift.relative > threshold), None)


@dataclass(frozen=True)
class Jump:
    """Two values that follow each other, and by what factor the relative difference grew between them."""

    before: str
    after: str
    factor: float


def largest_jump(drifts: Mapping[str, Drift], names: Sequence[str]) -> Jump | None:
    """Where the relative difference grows by the largest factor, from one of `names` to the next.

    None where it nowhere grows to JUMP times what it was, from more than ROUNDING.
    """
    found = None
    for before, after in pairwise(names):
        start, end = drifts[before].relative, drifts[after].relative
        if start > ROUNDING and end / start > (found.factor if found else JUMP):
            found = Jump(before, after, end / start)
    return found


@dataclass(frozen=True)
class Logits:
    """What is kept of a model's logits: the top token at each position, and those of the last, (V,).

    `+` takes later positions in.
    """

    tops: tuple[int, ...]
    last: Array

    def __add__(self, later: Logits) -> Logits:
        return Logits(self.tops + later.tops, later.last)


NO_LOGITS = Logits((), np.zeros(0, np.float32))
"""Of no positions: where a sum begins."""


def logits_of(rows: Array) -> Logits:
    """Of a piece, (n, V) with n at least 1."""
    return Logits(tuple(rows.argmax(1).tolist()), rows[-1].copy())


def same_tops(first: Logits, second: Logits) -> int:
    """At how many positions both models have the same top token."""
    return sum(a == b for a, b in zip(first.tops, second.tops, strict=True))


def divergence(first: Array, second: Array) -> float:
    """Kullback-Leibler divergence of softmax(second) from softmax(first), in nats; NaN for NaN, infinity."""
    a, b = _log_softmax(first), _log_softmax(second)
    if a is None or b is None:
        return math.nan
    return max(0.0, float(np.sum(np.exp(a) * (a - b))))


def probability(logits: Array, token: int) -> float:
    """That of a token; NaN where logits are not finite."""
    logs = _log_softmax(logits)
    return math.nan if logs is None else float(np.exp(logs[token]))


def _log_softmax(logits: Array) -> Array | None:
    if not np.isfinite(logits).all():
        return None
    shifted = logits.astype(np.float64) - float(logits.max())
    return np.asarray(shifted - np.log(np.sum(np.exp(shifted))))
