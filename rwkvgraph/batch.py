"""Cutting the tokens of many slots into passes, and laying a pass out for the device.

Everything here is arrays with an entry a stacked token; what callers give is checked in tokens.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rwkvgraph.op import Array
from rwkvgraph.view import B, E, N, O, Sizes, T

BATCH_WORDS = 8
"""u32 words a token.

Slot, first stacked token of the slot, tokens of the slot, 0; token id; a row of the output; the first
stacked token of a slot; 1 + the row of `vectors` that stands in place of the token, or 0. The sixth and the
seventh column are lists of their own, not about the token.
"""


def cut(lengths: Sequence[int], chunk: int) -> list[int]:
    """How many tokens of each slot the next pass takes: at most `chunk` in all.

    The shortest slots are served first. While there is room, every slot with tokens left is given as many
    as the shortest of them has left, in order (web-rwkv, §1.5 of its behaviour; without its rounding to 32
    tokens, which served its kernels).
    """
    if sum(lengths) <= chunk:
        return list(lengths)
    have = np.array(lengths, np.int64)
    levels = np.unique(np.append(have, 0))
    # What the slots have been given in all when each has reached a level, or its end.
    ranked = np.sort(have)
    below = np.searchsorted(ranked, levels, "right")
    given = np.append(0, np.cumsum(ranked))[below] + levels * (len(have) - below)
    reached = int(np.searchsorted(given, chunk, "right")) - 1
    taken = np.minimum(have, levels[reached])
    left = np.flatnonzero(have > taken)
    step = int(levels[reached + 1] - levels[reached])
    taken[left] += np.clip(chunk - int(given[reached]) - step * np.arange(len(left)), 0, step)
    result: list[int] = taken.tolist()
    return result


@dataclass(frozen=True)
class Stack:
    """The tokens that one call runs, side by side, slot after slot in rising order: an entry a token.

    slots, ids: whose it is and which. wanted: whether the logits after it are asked for. picks: 1 + the row
    of `vectors` (E, C) that it is instead of an id, rising, or 0.
    """

    slots: Array
    ids: Array
    wanted: Array
    picks: Array
    vectors: Array


def stack(
    counts: list[int], full: Array, ends: Sequence[bool] | Array, ids: Array, picks: Array, vectors: Array
) -> Stack:
    """Lay tokens side by side, `counts` of each slot.

    Of slots that are `full` the logits after every token are wanted, of those that `ends` after the last.
    """
    if counts.count(0) == len(counts) - 1:  # one slot generates: the case in which each µs counts
        slot = next(slot for slot, count in enumerate(counts) if count)
        wanted = np.full(len(ids), full[slot])
        wanted[-1] |= ends[slot]
        return Stack(np.full(len(ids), slot), ids, wanted, picks, vectors)
    each = np.asarray(counts, np.int64)
    slots = np.repeat(np.arange(len(each)), each)
    wanted = full[slots]
    last = np.cumsum(each)[np.asarray(ends) & (each > 0)] - 1
    wanted[last] = True
    return Stack(slots, ids, wanted, picks, vectors)


@dataclass(frozen=True)
class Batch:
    """One pass over slots of one block of a state.

    words: for the device, (T, 8) u32. vectors: what stands in place of tokens, (E, C) f32. slots: those that
    the output rows belong to, rising. block: of the state. starts: how many slots have tokens.
    """

    words: Array
    vectors: Array
    slots: Array
    block: int
    starts: int

    @property
    def tokens(self) -> int:
        """T."""
        return len(self.words)

    @property
    def outputs(self) -> int:
        """O."""
        return len(self.slots)

    def sizes(self, num_batch: int) -> Sizes:
        """The sizes of a run on a block of `num_batch` slots. There is always memory for a vector."""
        vectors = max(1, len(self.vectors))
        return {T: self.tokens, O: self.outputs, N: self.starts, B: num_batch, E: vectors}


def split(work: Stack, most_tokens: int, most_outputs: int, block_slots: int) -> Iterator[Batch]:
    """The tokens in passes that a device's buffers can hold, each within one block of the state's slots.

    Cut where a pass would have too many tokens or outputs; a slot may go on in the next.
    """
    total, start = len(work.slots), 0
    if total and total <= min(most_tokens, most_outputs):
        first, last = int(work.slots[0]) // block_slots, int(work.slots[-1]) // block_slots
        if first == last:
            yield _lay(work, 0, total, first, block_slots)
            return
    outputs = np.append(0, np.cumsum(work.wanted))
    while start < total:
        block = int(work.slots[start]) // block_slots
        end = min(start + most_tokens, total)
        end = min(end, int(np.searchsorted(outputs, outputs[start] + most_outputs, "right")) - 1)
        if work.slots[end - 1] // block_slots != block:
            end = int(np.searchsorted(work.slots, (block + 1) * block_slots))
        yield _lay(work, start, end, block, block_slots)
        start = end


def _lay(work: Stack, start: int, end: int, block: int, block_slots: int) -> Batch:
    """Tokens `start` to `end` as a pass."""
    slots, count = work.slots[start:end], end - start
    rows = work.wanted[start:end].nonzero()[0]
    words = np.zeros((count, BATCH_WORDS), np.uint32)
    words[:, 0] = slots - block * block_slots
    words[:, 4] = work.ids[start:end]
    words[: len(rows), 5] = rows
    if slots[0] == slots[-1]:
        words[:, 2] = count
        starts = 1
    else:
        starts = _lay_cursors(words, slots)
    vectors = work.vectors[:0]
    if len(work.vectors):
        picks = work.picks[start:end]
        used = picks[picks > 0]
        if len(used):
            vectors = work.vectors[used[0] - 1 : used[-1]]
            words[:, 7] = np.where(picks > 0, picks - (used[0] - 1), 0)
    return Batch(words, vectors, slots[rows], block, starts)


def _lay_cursors(words: Array, slots: Array) -> int:
    """Write where each slot's tokens start and how many they are; gives the number of slots."""
    firsts = np.append(0, np.flatnonzero(slots[1:] != slots[:-1]) + 1)
    lengths = np.diff(firsts, append=len(slots))
    words[:, 1] = np.repeat(firsts, lengths)
    words[:, 2] = np.repeat(lengths, lengths)
    words[: len(firsts), 6] = firsts
    return len(firsts)


class Answers:
    """The logits of one call, by slot: (V,) after a slot's last token, or (n, V) after each where `full`.

    None for a slot that is to have none.
    """

    def __init__(self, counts: Sequence[int], full: Array, width: int) -> None:
        self.rows: list[Array | None] = [None] * len(counts)
        self._counts = counts
        self._full = full
        self._any_full = bool(full.any())
        self._width = width
        self._filled: dict[int, int] = {}

    def add(self, slots: Array, logits: Array) -> None:
        """Hand the rows of a pass out to the slots that they belong to."""
        if not self._any_full:
            for slot, row in zip(slots.tolist(), logits, strict=True):
                self.rows[slot] = row
            return
        edges = [0, *(np.flatnonzero(slots[1:] != slots[:-1]) + 1).tolist(), len(slots)]
        for start, end in pairwise(edges):
            self._add_slot(int(slots[start]), logits[start:end])

    def _add_slot(self, slot: int, rows: Array) -> None:
        count = self._counts[slot]
        if not self._full[slot]:
            self.rows[slot] = rows[-1]
        elif len(rows) == count:
            self.rows[slot] = rows
        else:  # in several passes: never twice in memory
            whole = self.rows[slot]
            if whole is None:
                whole = self.rows[slot] = np.empty((count, self._width), np.float32)
            at = self._filled.get(slot, 0)
            whole[at : at + len(rows)] = rows
            self._filled[slot] = at + len(rows)
