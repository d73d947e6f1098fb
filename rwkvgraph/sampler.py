"""Choosing the next token from logits: greedy, or drawn from the most likely tokens.

On the CPU, in float64 and from a seed: the same logits give the same tokens again. No penalties, no grammars.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rwkvgraph.errors import ShapeError

FIRST_GUESS = 256
"""Tokens that are sorted before it is known how many the nucleus takes; then 16 times as many, and so on."""

Logits = NDArray[np.float64]
Ids = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Sampler:
    """Draws token ids from logits, in web-rwkv's order: sort, cut by top-k, cut by top-p, then temperature.

    temperature: the probabilities p of the tokens that were kept become p**(1 / temperature), renormalised; 0
    always takes the most likely token. top_p: from 0 to 1; a token is kept while the tokens before it have at
    most this probability together, so the first always is. top_k: how many are kept at most; 0 for no limit.
    seed: of the random numbers (PCG64); None takes one from the system. Raises ValueError for other values.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    _random: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < np.inf:
            raise ValueError(f"temperature is {self.temperature}, wanted a number of at least 0 (0: greedy)")
        if not 0 <= self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, wanted a probability from 0 to 1 (1: no limit)")
        if self.top_k < 0 or self.top_k % 1:
            raise ValueError(f"top_k is {self.top_k}, wanted a whole number of at least 0 (0: no limit)")
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"seed is {self.seed}, wanted at least 0, or None for a different one each time")
        object.__setattr__(self, "_random", np.random.Generator(np.random.PCG64(self.seed)))

    def sample(self, logits: ArrayLike) -> int:
        """The id of the next token; equally likely ones rank by id, lowest first.

        logits: (V,), -inf for tokens that must not be taken. Raises ShapeError for another shape, ValueError
        for NaN, for +inf and where every logit is -inf.
        """
        values = np.asarray(logits, np.float64)
        check(values)
        if self.temperature == 0:
            return int(np.argmax(values))
        with np.errstate(over="ignore", under="ignore"):  # far below the best is no weight at all
            values = values - values.max()
            ids = self._kept(values)
            # p**(1 / temperature) but for a factor, and 1 for the best whatever the temperature
            weights = np.exp(values[ids] / self.temperature)
        return int(ids[draw(weights, self._random.random())])

    def _kept(self, logits: Logits) -> Ids:
        """The ids that top-k and top-p leave, most likely first; in any order if they leave all."""
        most = min(int(self.top_k) or len(logits), len(logits))
        if self.top_p < 1:
            return nucleus(logits, self.top_p, most)
        return largest(logits, most) if most < len(logits) else np.arange(most)


def check(logits: Logits) -> None:
    """Raise ShapeError or ValueError for logits that say nothing about the next token."""
    if logits.ndim != 1 or not len(logits):
        raise ShapeError(f"logits of shape {logits.shape}, wanted (V,): give one row, for one token")
    best = logits.max()  # NaN if there is one
    if np.isfinite(best):
        return
    if np.isnan(best):
        raise ValueError(
            f"logit {int(np.argmax(np.isnan(logits)))} of {len(logits)} is NaN, wanted a number: the model "
            "or its state overflowed, begin with a new state"
        )
    raise ValueError(
        f"the largest of {len(logits)} logits is {best}, wanted a finite one: "
        + ("the model or its state overflowed" if best > 0 else "leave at least one token to choose")
    )


def nucleus(logits: Logits, top_p: float, most: int) -> Ids:
    """The ids of the `most` largest logits, cut where those before have more than `top_p` together.

    Probabilities are those among all logits, the largest of which must be 0.
    """
    total = np.exp(logits).sum()
    count = min(FIRST_GUESS, most)
    while True:
        ids = largest(logits, count)
        before = np.cumsum(np.exp(logits[ids[:-1]])) / total  # of all but the first, which is kept
        kept = 1 + int(np.searchsorted(before, top_p, side="right"))
        if kept < count or count == most:
            return ids[:kept]
        count = min(16 * count, most)


def largest(logits: Logits, count: int) -> Ids:
    """The ids of the `count` largest logits, largest first, equal ones by id."""
    ids = np.arange(len(logits))
    if count < len(logits):
        threshold = np.partition(logits, -count)[-count]
        ids = np.flatnonzero(logits >= threshold)
    return ids[np.argsort(-logits[ids], kind="stable")][:count]


def draw(weights: Logits, number: float) -> int:
    """The first place whose weight and those before exceed `number` times the sum; never a weight of 0.

    number: uniform in [0, 1), at most 1 - 2⁻⁵³: its product with a float64 sum never rounds up to the sum.
    """
    sums = np.cumsum(weights)
    return int(np.searchsorted(sums, number * sums[-1], side="right"))
