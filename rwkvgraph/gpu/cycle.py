"""Programs that run in turn, again and again, without the host; and copies of memory to go back to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any

from wgpu.classes import GPUBuffer

from rwkvgraph.gpu.context import Context
from rwkvgraph.gpu.faults import faults
from rwkvgraph.gpu.memory import DeviceMemory, Memories
from rwkvgraph.gpu.runner import Prepared, Runner
from rwkvgraph.view import Sizes

Piece = tuple[GPUBuffer, int, int]
"""A part of a buffer: its first byte there, its bytes."""


@dataclass(frozen=True, eq=False)
class Turn:
    """One program of a cycle, the sizes it runs at, and its memory, its own inputs and output included."""

    runner: Runner
    sizes: Sizes
    memory: Memories

    def prepared(self) -> Prepared:
        """Its dispatches, ready to record."""
        return self.runner.steps(self.sizes, self, self.memory)


class Cycle:
    """Some programs, one after another: `run` goes round so many times."""

    def __init__(self, context: Context, turns: Sequence[Turn]) -> None:
        self._context = context
        self._turns = tuple(turns)
        self._of: list[Prepared] = []
        self._joined: Any = None
        self._count = 0

    def run(self, times: int) -> None:
        """Record and submit that many rounds, each in one submission, and wait for nothing."""
        with self._context.lock, faults("running ahead"):
            prepared = [turn.prepared() for turn in self._turns]
            if any(turn.runner.is_checked for turn in self._turns):
                self._run_checked(prepared, times)
                return
            self._join(prepared)
            for _ in range(times):
                self._round()

    def _join(self, prepared: list[Prepared]) -> None:
        """Make one list of all dispatches, unless these are those it was made of."""
        if len(self._of) == len(prepared) and all(map(is_, self._of, prepared)):
            return
        steps = [step for item in prepared for step in item.steps]
        self._joined, self._count = self._context.driver.prepare(steps), len(steps)
        self._of = prepared

    def _round(self) -> None:
        self._context.submit([self._context.encode(self._joined, 0, self._count).finish()])

    def _run_checked(self, prepared: Sequence[Prepared], times: int) -> None:
        for _ in range(times):
            for turn, item in zip(self._turns, prepared, strict=True):
                turn.prepared()  # a runner checks what it was last asked for
                turn.runner.submit(item)


class Snapshot:
    """A copy of parts of buffers on the device. `save` makes it, `restore` puts everything back."""

    def __init__(self, context: Context, pieces: Iterable[Piece]) -> None:
        self._context = context
        self._pairs: list[tuple[Piece, GPUBuffer, int]] = []
        most = context.target.limits.max_buffer
        waiting: list[Piece] = []
        for piece in pieces:
            if waiting and sum(item[2] for item in waiting) + piece[2] > most:
                self._place(waiting)
                waiting = []
            waiting.append(piece)
        self._place(waiting)

    def _place(self, pieces: Sequence[Piece]) -> None:
        """Make a buffer for all of these."""
        copy = self._context.buffer(sum(piece[2] for piece in pieces), "snapshot", largest_binding=16)
        at = 0
        for piece in pieces:
            self._pairs.append((piece, copy, at))
            at += piece[2]

    def save(self) -> None:
        """Copy what is there once all that was submitted has run."""
        with self._context.lock, faults("copying a state"):
            encoder = self._context.device.create_command_encoder()
            for (buffer, start, nbytes), copy, at in self._pairs:
                encoder.copy_buffer_to_buffer(buffer, start, copy, at, nbytes)
            self._context.submit([encoder.finish()])

    def restore(self) -> None:
        """Put back what was there."""
        with self._context.lock, faults("restoring a state"):
            encoder = self._context.device.create_command_encoder()
            for (buffer, start, nbytes), copy, at in self._pairs:
                encoder.copy_buffer_to_buffer(copy, at, buffer, start, nbytes)
            self._context.submit([encoder.finish()])


def row_pieces(memory: DeviceMemory, rows: Sequence[int]) -> list[Piece]:
    """Rows of an f32 or u32 memory, rising; those that are neighbours as one piece."""
    found: list[tuple[int, int]] = []
    for row in rows:
        if found and sum(found[-1]) == row:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((row, 1))
    stride, used = memory.width * 4, memory.used * 4
    return [
        (memory.gpu, memory.start + first * stride, (count - 1) * stride + used) for first, count in found
    ]
