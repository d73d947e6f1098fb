"""Cutting the tokens of many slots into passes, and laying a pass out for the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rwkvgraph.op import Array

BATCH_WORDS = 8
"""u32 words a token.

Slot, first stacked token of the slot, tokens of the slot, 0; token id; a row of the output; the first
stacked token of a slot; nothing. The last three columns are lists of their own, not about the token.
"""


def cut(lengths: Sequence[int], chunk: int) -> list[int]:
    """How many tokens of each slot the next pass takes: at most `chunk` in all.

    The shortest slots are served first. While there is room, every slot with tokens left is given as many
    as the shortest of them has left, in order (web-rwkv, §1.5 of its behaviour; without its rounding to 32
    tokens, which served its kernels).
    """
    taken = [0] * len(lengths)
    room = min(sum(lengths), chunk)
    while room > 0:
        least = min(length - took for length, took in zip(lengths, taken, strict=True) if length > took)
        for slot, length in enumerate(lengths):
            if length > taken[slot] and room > 0:
                give = min(least, room)
                taken[slot] += give
                room -= give
    return taken


@dataclass(frozen=True)
class Run:
    """Consecutive tokens of one slot in a pass.

    `is_last` where they are the slot's last, so logits are wanted.
    """

    slot: int
    tokens: Sequence[int]
    is_last: bool


@dataclass(frozen=True)
class Batch:
    """One pass: the words for the device, (T, 8) u32, and the slots that its output rows belong to."""

    words: Array
    slots: tuple[int, ...]
    starts: int

    @property
    def tokens(self) -> int:
        """T."""
        return len(self.words)

    @property
    def outputs(self) -> int:
        """O."""
        return len(self.slots)


def stack(runs: Sequence[Run]) -> Batch:
    """Lay runs side by side, in order."""
    total = sum(len(run.tokens) for run in runs)
    words = np.zeros((total, BATCH_WORDS), np.uint32)
    slots: list[int] = []
    start = 0
    for index, run in enumerate(runs):
        end = start + len(run.tokens)
        words[start:end, 0] = run.slot
        words[start:end, 1] = start
        words[start:end, 2] = end - start
        words[start:end, 4] = run.tokens
        words[index, 6] = start
        if run.is_last:
            words[len(slots), 5] = end - 1
            slots.append(run.slot)
        start = end
    return Batch(words, tuple(slots), len(runs))


def split(runs: Sequence[Run], most_tokens: int, most_outputs: int) -> Iterator[list[Run]]:
    """The runs in groups that a device's buffers can hold.

    Cut where a group would have too many tokens or outputs.
    """
    group: list[Run] = []
    tokens = outputs = 0
    for run in runs:
        rest = run
        while rest.tokens:
            if tokens == most_tokens or (outputs == most_outputs and rest.is_last):
                yield group
                group, tokens, outputs = [], 0, 0
            room = min(len(rest.tokens), most_tokens - tokens)
            ends = rest.is_last and room == len(rest.tokens)
            group.append(Run(rest.slot, rest.tokens[:room], ends))
            tokens, outputs = tokens + room, outputs + ends
            rest = Run(rest.slot, rest.tokens[room:], rest.is_last)
    if group:
        yield group
