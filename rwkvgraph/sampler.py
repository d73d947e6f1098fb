"""How the next token is chosen from logits: greedy, or drawn from the most likely tokens, with penalties.

The same logits and seed give the same tokens again. What drawing means is in draw.py; devices do the same in
`ops.sample`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from math import inf, log
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rwkvgraph.draw import choose, fade, penalised, threefry
from rwkvgraph.errors import ShapeError

DECAY = 0.996
"""What is left of a seen token's count after each further token, by default."""
HIGHEST_RATE = 1e30
"""Of 1 / temperature: tokens whose logits differ at all are then as far apart as float32 can tell."""

Logits = NDArray[np.float64]


@dataclass
class Stream:
    """Where a sampler is in its random numbers: which text's they are, how many of them were drawn.

    key: the seed as two words. texts: how many texts have begun.
    """

    key: tuple[int, int]
    text: int = 0
    drawn: int = 0
    texts: int = 0

    def word(self) -> int:
        """The next random word, of 32 bits."""
        word, _ = threefry(self.key, (self.drawn % (1 << 32), self.text))
        self.drawn += 1
        return word


@dataclass(frozen=True, eq=False)
class Sampler:
    """Draws token ids from logits: penalties, sort, cut by top-k, by top-p and by min-p, then temperature.

    temperature: the probabilities p of the tokens that were kept become p**(1 / temperature), renormalised; 0
    always takes the most likely token. top_p: from 0 to 1; a token is kept while the tokens before it have at
    most this probability together, so the first always is. top_k: how many are kept at most; 0 for no limit.
    seed: of the random numbers (Threefry), below 2**64; None takes one from the system. min_p: from 0 to 1;
    what a token must have of the most likely one's probability. presence: taken off the logits of tokens that
    the text has; frequency: taken off once for each time it has them, where one seen n tokens before the last
    counts decay**n. Raises ValueError for other values.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    min_p: float = 0.0
    presence: float = 0.0
    frequency: float = 0.0
    decay: float = DECAY
    stream: Stream = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_settings(self)
        seed = secrets.randbits(64) if self.seed is None else int(self.seed)
        object.__setattr__(self, "stream", Stream((seed % (1 << 32), seed >> 32)))

    @property
    def rate(self) -> float:
        """1 / temperature, 0 for greedy."""
        return 0.0 if self.temperature == 0 else min(1 / max(self.temperature, 1e-300), HIGHEST_RATE)

    @property
    def reach(self) -> float:
        """How far below the best logit min-p lets a token be."""
        return log(1 / self.min_p) if self.min_p else inf

    @property
    def has_penalties(self) -> bool:
        """Whether tokens that were seen are less likely."""
        return bool(self.presence or self.frequency)

    def begin(self) -> Self:
        """This sampler for another text, which has random numbers of its own, whatever is drawn for others.

        Those of the n-th text depend on the seed and n alone.
        """
        other = replace(self)
        self.stream.texts += 1
        object.__setattr__(other, "stream", Stream(self.stream.key, self.stream.texts))
        return other

    def sample(self, logits: ArrayLike) -> int:
        """The id of the next token; equally likely ones rank by id, lowest first.

        logits: (V,), -inf for tokens that must not be taken. Raises ShapeError for another shape, ValueError
        for NaN, for +inf and where every logit is -inf.
        """
        values = np.asarray(logits, np.float64)
        check(values)
        word = self.stream.word()
        with np.errstate(over="ignore"):
            below = values.max() - values
        return choose(below, self.rate, int(self.top_k), self.top_p, self.reach, word)

    def penalise(self, logits: NDArray[np.float32], seen: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (V,) less what the penalties take, given how often each token was seen (V,)."""
        return penalised(logits, seen, self.presence, self.frequency) if self.has_penalties else logits

    def remember(self, seen: NDArray[np.float32], token: int) -> None:
        """Count a token that was drawn, in place, and let those before it decay."""
        if self.has_penalties:
            fade(seen, self.decay)
            seen[token] += 1


def check_settings(sampler: Sampler) -> None:
    """Raise ValueError for a setting that means nothing."""
    if not 0 <= sampler.temperature < inf:
        raise ValueError(f"temperature is {sampler.temperature}, wanted a number of at least 0 (0: greedy)")
    for name in ("top_p", "min_p"):
        if not 0 <= getattr(sampler, name) <= 1:
            limit = "1: no limit" if name == "top_p" else "0: no limit"
            raise ValueError(
                f"{name} is {getattr(sampler, name)}, wanted a probability from 0 to 1 ({limit})"
            )
    if sampler.top_k < 0 or sampler.top_k % 1:
        raise ValueError(f"top_k is {sampler.top_k}, wanted a whole number of at least 0 (0: no limit)")
    if sampler.seed is not None and not 0 <= sampler.seed < 1 << 64:
        raise ValueError(
            f"seed is {sampler.seed}, wanted 0 to 2**64 - 1, or None for a different one each time"
        )
    for name in ("presence", "frequency"):
        if not abs(getattr(sampler, name)) < inf:
            raise ValueError(f"{name} is {getattr(sampler, name)}, wanted a number of logits to take off")
    if not 0 <= sampler.decay <= 1:
        raise ValueError(f"decay is {sampler.decay}, wanted what is left of a count, from 0 to 1")


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
