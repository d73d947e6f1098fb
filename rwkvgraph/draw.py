"""What drawing a token means, on numbers alone: penalties, cuts, weights, and random numbers by counting.

Samplers and the operation that runs on devices share it. Nothing here keeps anything from one token to the
next.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FIRST_GUESS = 256
"""Tokens that are sorted before it is known how many the nucleus takes; then 16 times as many, and so on."""
FORGOTTEN = np.float32(2.0**-100)
"""Counts of seen tokens that decayed below this are 0: far above the numbers that devices flush to 0."""
WORD = 1 << 32
"""Random words are below this."""

Numbers = NDArray[Any]
Ids = NDArray[np.intp]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def threefry(key: tuple[int, int], counter: tuple[int, int]) -> tuple[int, int]:
    """Two random words for a key and a counter, all of 32 bits: Threefry-2x32 of 20 rounds.

    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3: additions, rotations and
    exclusive ors alone, so that numpy, Python and shaders agree on every bit.
    """
    mask = WORD - 1
    keys = (*key, key[0] ^ key[1] ^ _PARITY)
    a, b = (counter[0] + keys[0]) & mask, (counter[1] + keys[1]) & mask
    for block in range(5):
        for turn in _ROTATIONS[block % 2]:
            a = (a + b) & mask
            b = ((b << turn | b >> 32 - turn) & mask) ^ a
        a = (a + keys[(block + 1) % 3]) & mask
        b = (b + keys[(block + 2) % 3] + block + 1) & mask
    return a, b


def penalised(logits: Numbers, seen: Numbers, presence: float, frequency: float) -> Numbers:
    """Logits less `presence` for each token that was seen and `frequency` times how often, (V,)."""
    kind = logits.dtype.type
    result: Numbers = logits - (kind(presence) * (seen > 0) + kind(frequency) * seen.astype(kind))
    return result


def fade(seen: Numbers, decay: float) -> None:
    """Let the counts of seen tokens (…, V) f32 decay, in place, to be done before the newest is counted."""
    seen *= np.float32(decay)
    seen[seen < FORGOTTEN] = 0


def choose(below: Numbers, rate: float, top_k: int, top_p: float, reach: float, word: int) -> int:
    """The token that a random word draws from logits that lie `below` (V,) the best one.

    below: at least 0, inf for tokens that must not be taken. rate: 1 / temperature, 0 for greedy. The tokens
    that `is_kept` keeps stand in order of their ids, each as wide as exp(-below * rate); the word says how
    far along all of them together.
    """
    if rate == 0:
        return int(np.argmin(below))
    ids = kept(below, top_k, top_p, reach)
    with np.errstate(under="ignore", over="ignore", invalid="ignore"):
        # 0 * inf is none, for a rate that overflowed: the best keep their weight
        weights = np.where(below[ids] == 0, 1.0, np.exp(-below[ids].astype(np.float64) * rate))
    return int(ids[pick(weights, word / WORD)])


def kept(below: Numbers, top_k: int, top_p: float, reach: float) -> Ids:
    """The ids that no cut takes away, rising. `below` as `choose` has it; 0 for `top_k` is no limit.

    Ranked by `below`, equal ones by id, these are the first `top_k`, of which each is kept while those before
    it have at most `top_p` of all probability together, and lies at most `reach` below the best.
    """
    most = min(top_k or len(below), len(below))
    if top_p < 1:
        ids = nucleus(below, top_p, most)
    else:
        ids = nearest(below, most) if most < len(below) else np.arange(most)
    ids = ids[(below[ids] <= reach) & np.isfinite(below[ids])]
    return np.sort(ids)


def nucleus(below: Numbers, top_p: float, most: int) -> Ids:
    """The ids of the `most` nearest to the best, cut where those before have more than `top_p` together.

    Probabilities are those among all tokens.
    """
    with np.errstate(under="ignore"):
        total = np.exp(-below.astype(np.float64)).sum()
        count = min(FIRST_GUESS, most)
        while True:
            ids = nearest(below, count)
            before = np.cumsum(np.exp(-below[ids[:-1]].astype(np.float64))) / total  # the first is kept
            found = 1 + int(np.searchsorted(before, top_p, side="right"))
            if found < count or count == most:
                return ids[:found]
            count = min(16 * count, most)


def nearest(below: Numbers, count: int) -> Ids:
    """The ids of the `count` smallest, smallest first, equal ones by id."""
    ids = np.arange(len(below))
    if count < len(below):
        threshold = np.partition(below, count - 1)[count - 1]
        ids = np.flatnonzero(below <= threshold)
    return ids[np.argsort(below[ids], kind="stable")][:count]


def pick(weights: Numbers, number: float) -> int:
    """The first place whose weight and those before exceed `number` times the sum; never a weight of 0.

    number: uniform in [0, 1), at most 1 - 2⁻⁵³: its product with a float64 sum never rounds up to the sum.
    """
    sums = np.cumsum(weights)
    return int(np.searchsorted(sums, number * sums[-1], side="right"))
