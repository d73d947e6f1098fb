"""Statistics of captured values, piece by piece: what is kept of a piece does not grow with its tokens.

Only numpy; what is captured and how a prompt is run is in `reading.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rwkvgraph.op import Array


@dataclass(frozen=True)
class Place:
    """A number, and the token (its position in the prompt) and channel that it is at."""

    value: float
    token: int
    channel: int


@dataclass(frozen=True)
class Statistics:
    """What there is to say of the numbers of a value. `+` takes those of more tokens in.

    count: how many there are. nans, infinities: how many of them are no number. total, squares: sums of those
    that are finite and of their squares, float64. largest: that of the largest magnitude, the first of
    several; first_not_finite: the first token's first; None where there is none.
    """

    count: int
    nans: int
    infinities: int
    total: float
    squares: float
    largest: Place | None
    first_not_finite: Place | None

    @property
    def finite(self) -> int:
        """How many of the numbers are finite."""
        return self.count - self.nans - self.infinities

    @property
    def mean(self) -> float:
        """Of the finite numbers; NaN without any."""
        return self.total / self.finite if self.finite else math.nan

    @property
    def rms(self) -> float:
        """Root of the mean square of the finite numbers; NaN without any."""
        return math.sqrt(self.squares / self.finite) if self.finite else math.nan

    def __add__(self, later: Statistics) -> Statistics:
        return Statistics(
            self.count + later.count,
            self.nans + later.nans,
            self.infinities + later.infinities,
            self.total + later.total,
            self.squares + later.squares,
            larger(self.largest, later.largest),
            self.first_not_finite or later.first_not_finite,
        )


NOTHING = Statistics(0, 0, 0, 0.0, 0.0, None, None)
"""Of no numbers: where a sum begins."""


def statistics_of(rows: Array, first_token: int = 0) -> Statistics:
    """Of a piece of a value, (n, C). first_token: position of its first row in the prompt."""
    is_finite = np.isfinite(rows)
    nans = int(np.isnan(rows).sum())
    numbers = np.where(is_finite, rows, 0).astype(np.float64)
    wrong = None
    if not is_finite.all():
        token, channel = _first(~is_finite)
        wrong = Place(float(rows[token, channel]), first_token + token, channel)
    return Statistics(
        rows.size,
        nans,
        int(rows.size - is_finite.sum()) - nans,
        float(numbers.sum()),
        float(np.vdot(numbers, numbers)),
        largest_of(numbers, is_finite, first_token),
        wrong,
    )


def largest_of(numbers: Array, counts: Array, first_token: int) -> Place | None:
    """The number of the largest magnitude in (n, C), with its sign, the first of several.

    counts: a mask of those that are looked at; None where there is none.
    """
    if not counts.any():
        return None
    sizes = np.where(counts, np.abs(numbers), -1)  # so that a zero that counts comes before what does not
    token, channel = np.unravel_index(int(np.argmax(sizes)), numbers.shape)
    return Place(float(numbers[token, channel]), first_token + int(token), int(channel))


def larger(earlier: Place | None, later: Place | None) -> Place | None:
    """The one of larger magnitude; the earlier where they are equal."""
    if earlier is None or later is None:
        return earlier or later
    return later if abs(later.value) > abs(earlier.value) else earlier


def _first(mask: Array) -> tuple[int, int]:
    """Row and column of the first True in a mask that has one."""
    row, column = np.unravel_index(int(np.argmax(mask)), mask.shape)
    return int(row), int(column)
