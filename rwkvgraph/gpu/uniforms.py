"""The uniforms of a program's kernels on a device: where each lies, what a run of some sizes writes there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rwkvgraph.compiler.program import Program, Relay
from rwkvgraph.compiler.variant import LOOK_WORD, LOOKED, Variant
from rwkvgraph.gpu.context import Context
from rwkvgraph.gpu.faults import faults
from rwkvgraph.view import Dim, Sizes, round_up

Key = tuple[int | Relay, int]
"""A kernel of a program: its pass, by its number, or its relay; which of the pass's kernels it is."""


def _keyed(program: Program) -> dict[Key, Variant]:
    """Every kernel of a program, by its pass and number, or as a relay's.

    Those of a single token come first, one behind the other as they run: kernels look ahead at the next.
    """
    found: dict[Key, Variant] = {}
    for at, item in program.dispatched(program.relays):
        if isinstance(item, Relay):
            found[item, 0] = item.variant
        else:
            found[at, 0] = item.variants[0]
    for relay in program.every_relay:
        found.setdefault((relay, 0), relay.variant)
    for at, step in enumerate(program.passes):
        for number, variant in enumerate(step.variants):
            found.setdefault((at, number), variant)
    return found


class Uniforms:
    """The uniform of every kernel of a program, one buffer, rewritten when the sizes of a run change.

    trial: words behind all others, from byte `self.trial` on, which stay as they are.
    """

    def __init__(self, program: Program, context: Context, trial: Sequence[int]) -> None:
        self._context = context
        limits = context.target.limits
        self._align = max(limits.uniform_alignment, limits.storage_alignment)
        self._offsets: dict[Key, int] = {}
        words: list[int] = []
        moving: list[tuple[int, int, int, Dim]] = []
        for key, variant in _keyed(program).items():
            words += [0] * (round_up(len(words), self._align // 4) - len(words))
            self._offsets[key] = len(words) * 4
            for amount in (amount for row in variant.table for amount in row):
                if amount.size is not None:
                    moving.append((len(words), amount.factor, amount.constant, amount.size))
                words.append(amount.constant & 0xFFFFFFFF)
            words += [0] * (self.bytes_of(variant) // 4 - len(variant.table) * 4)
            if variant.source.looks_ahead:
                words[self._offsets[key] // 4 + LOOK_WORD] = len(words) // 4
        words += [0] * (round_up(len(words), self._align // 4) - len(words))
        self.trial = len(words) * 4
        words += trial
        words += [0] * LOOKED * 4
        self._words = np.array(words, np.uint32)
        self._moving = moving
        self._at = np.array([entry[0] for entry in moving], np.int64)
        self._factor = np.array([entry[1] for entry in moving], np.int64)
        self._constant = np.array([entry[2] for entry in moving], np.int64)
        self._key: Any = None
        self.gpu = context.buffer(max(len(words) * 4, 16), "uniforms", "uniform")

    def offset(self, item: int | Relay, variant: int = 0) -> int:
        """Where a variant's uniform starts, in bytes."""
        return self._offsets[item, variant]

    def bytes_of(self, variant: Variant) -> int:
        """Size of a variant's uniform: `size` and at least one row of the table."""
        return max(2, len(variant.table)) * 16

    def write(self, sizes: Sizes, key: Any) -> None:
        """Fill the table in for a run, unless it is as the last one."""
        if key == self._key:
            return
        if self._moving:
            size = np.array([sizes.get(entry[3], 0) for entry in self._moving], np.int64)
            self._words[self._at] = (self._constant + self._factor * size).astype(np.uint64) & 0xFFFFFFFF
        with faults("writing uniforms"):
            self._context.queue.write_buffer(self.gpu, 0, self._words)
        self._key = key
