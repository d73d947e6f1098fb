"""The bandwidth of a device's memory as plain copying reaches it: what decoding is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import repeat

from rwkvgraph.bench.steady import Rounds, Samples, collect
from rwkvgraph.gpu.context import Context
from rwkvgraph.gpu.copying import Copying

ROUND_SECONDS = 0.05
"""Copies go out together for about as long, so that submitting them costs little of it."""
MOST_COPIES = 64


@dataclass(frozen=True)
class Bandwidth:
    """nbytes: of the buffer that is copied into another. samples: seconds of one copy, by way of copying."""

    nbytes: int
    samples: Mapping[str, Samples]

    @property
    def method(self) -> str:
        """The fastest way."""
        return min(self.samples, key=lambda way: self.samples[way].least)

    @property
    def gigabytes_per_second(self) -> float:
        """Read and written, at best."""
        return 2 * self.nbytes / self.samples[self.method].least / 1e9


def measure_bandwidth(context: Context, rounds: Rounds) -> Bandwidth:
    """Copy a buffer into another, again and again. Raises DeviceError where no small ones fit."""
    copying = Copying.create(context)
    return Bandwidth(copying.nbytes, {way: _measured(copying, way, rounds) for way in copying.ways})


def _measured(copying: Copying, way: str, rounds: Rounds) -> Samples:
    copying.seconds(way, 1)  # compiles, where drivers do that when a kernel is first used
    times = max(1, min(MOST_COPIES, int(ROUND_SECONDS / copying.seconds(way, 1))))
    return collect((copying.seconds(way, count) / count for count in repeat(times)), rounds)
