"""Drawing the next token of each row of logits, all that decides it in memory: so that devices go on alone.

What drawing means is in rwkvgraph/draw.py; this is the operation, and how its settings lie in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rwkvgraph.draw import choose, fade, penalised, threefry
from rwkvgraph.errors import ShapeError
from rwkvgraph.op import Array, Tensor, TensorOp, caller, updated
from rwkvgraph.view import LANES, Shape

NOTHING = 0xFFFFFFFF
"""Stands in the history where the logits said nothing: NaN, infinity, or no token that may be taken."""
LOWEST = np.finfo(np.float32).min
"""What the logit of a token that must not be taken becomes."""

RATE, TOP_K, TOP_P, REACH, PRESENCE, FREQUENCY, DECAY, KEY, TEXT, DRAWN, ADJUSTS = *range(8), 9, 10, 11
SETTINGS = 12
"""Words of a row's settings. KEY is two; RATE to DECAY but TOP_K are floats, stored as their bits."""


@dataclass(frozen=True)
class Settings:
    """How a row's tokens are drawn; the names are those of a Sampler.

    rate: 1 / temperature. reach: how far below the best logit a token may be. key, text, drawn: the random
    words' key, and the counter of the next one. adjusts: whether biases or penalties change any logit.
    """

    rate: float
    top_k: int
    top_p: float
    reach: float
    presence: float
    frequency: float
    decay: float
    key: tuple[int, int]
    text: int
    drawn: int = 0
    adjusts: bool = True

    def words(self) -> Array:
        """As they lie in memory, (SETTINGS,) u32."""
        words = np.zeros(SETTINGS, np.uint32)
        floats = (self.rate, 0, self.top_p, self.reach, self.presence, self.frequency, self.decay)
        words[: len(floats)] = np.array(floats, np.float32).view(np.uint32)
        words[TOP_K:TOP_P] = self.top_k
        words[KEY:] = *self.key, self.text, self.drawn % (1 << 32), self.adjusts
        return words


@dataclass(frozen=True, eq=False, repr=False)
class Sample(TensorOp):
    """The id that each row draws, (O, 1) f32, -1 where its logits say nothing.

    logits (O, V): those that decide are left in it, bias (V,) added and penalties taken off; a bias of -inf
    bars a token. seen (O, V): how often the row's tokens were drawn; it fades, and counts the new one, where
    there are penalties. rules (O, 12) u32, by row as `Settings.words` gives them; a draw moves the counter.
    ids (O,) u32 get the id, 0 where there is none, and history (O, H) u32 too, or NOTHING, in column
    `counter % H`.
    """

    bias: Tensor
    logits: Tensor = updated()
    seen: Tensor = updated()
    rules: Tensor = updated()
    ids: Tensor = updated()
    history: Tensor = updated()

    kind = "sample"

    def infer(self) -> Shape:
        """(O, 1). Raises ShapeError unless the operands fit together and lie in whole rows."""
        rows, width = self.logits.shape if len(self.logits.shape) == 2 else (None, None)
        wanted = [(width,), (rows, width), (rows, SETTINGS), (rows,)]
        given = [item.shape for item in (self.bias, self.seen, self.rules, self.ids)]
        dense = (self.logits, self.bias, self.seen, self.rules, self.history)
        if rows is None or given != wanted or len(self.history.shape) != 2 or self.history.shape[0] != rows:
            raise ShapeError(
                f"sample takes bias (V,), logits (O, V), seen (O, V), rules (O, {SETTINGS}), ids (O,) and "
                f"history (O, H); given {', '.join(map(str, self.operands().values()))} (built at {caller()})"
            )
        if any(item.view.strides[-1] != 1 or item.view.offset % LANES for item in dense):
            raise ShapeError(f"sample takes whole rows, not parts of them (built at {caller()})")
        return (rows, 1)

    def numpy(self, *arrays: Array) -> Array:
        bias, logits, seen, rules, ids, history = arrays
        drawn = np.empty((len(logits), 1), np.float32)
        for row in range(len(logits)):
            at = int(rules[row, DRAWN]) % history.shape[1]
            token = draw(logits[row], bias, seen[row], rules[row])
            ids[row] = 0 if token is None else token
            history[row, at] = NOTHING if token is None else token
            drawn[row] = -1 if token is None else token
        return drawn


def draw(logits: Array, bias: Array, seen: Array, words: Array) -> int | None:
    """The id that one row draws, None where its logits say nothing; changes them, and counts."""
    floats = words.view(np.float32)
    has_penalties = bool(floats[PRESENCE] or floats[FREQUENCY])
    is_bad = bool(np.isnan(logits).any() or np.isposinf(logits).any())
    if words[ADJUSTS]:
        sums = np.maximum(logits + bias, LOWEST)
        less = penalised(sums, seen, floats[PRESENCE], floats[FREQUENCY]) if has_penalties else sums
        logits[:] = np.where(np.isneginf(logits + bias), LOWEST, less)
    if has_penalties:
        fade(seen, floats[DECAY])
    word, _ = threefry((int(words[KEY]), int(words[KEY + 1])), (int(words[DRAWN]), int(words[TEXT])))
    words[DRAWN] += 1
    best = logits.max()
    if is_bad or best <= LOWEST:
        return None
    below = np.where(logits <= LOWEST, np.float32(np.inf), best - logits)
    top_k, top_p, reach = int(words[TOP_K]), float(floats[TOP_P]), float(floats[REACH])
    token = choose(below, float(floats[RATE]), top_k, top_p, reach, word)
    if has_penalties:
        seen[token] += 1
    return token
