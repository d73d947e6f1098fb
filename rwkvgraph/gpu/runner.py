"""Running a program on a device.

Bind once for a state, encode every run, read back only what is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from wgpu.classes import GPUCommandEncoder

from rwkvgraph.compiler.plan import ELEMENT
from rwkvgraph.compiler.program import Pass, Program, Relay
from rwkvgraph.compiler.variant import Variant
from rwkvgraph.errors import DeviceError
from rwkvgraph.gpu.bindings import Bindings
from rwkvgraph.gpu.compiling import Kernel, shader_of, shaders_of
from rwkvgraph.gpu.context import Context
from rwkvgraph.gpu.faults import faults
from rwkvgraph.gpu.memory import AnyMemory, DeviceMemory, Memories
from rwkvgraph.gpu.native import Step
from rwkvgraph.gpu.relays import LATE_BYTES, Meeting
from rwkvgraph.gpu.transfer import Readback, download
from rwkvgraph.gpu.uniforms import Uniforms
from rwkvgraph.op import Array, Buffer
from rwkvgraph.view import Dim, E, O, Sizes, T, resolve, row_width

AHEAD = 24
"""Passes in a submission. The device starts with the first ones while the others are still being recorded."""
FIRST = 8
"""Passes in the first submission of a run: until it comes, the device waits.

An NVIDIA H200, 99 passes: 1.01 ms a run with 8 and then 24, 1.12 with 48 at a time.
"""

MOST_OUTPUT_BYTES = 256 << 20
"""Most bytes of a run's output: it is held once on the device and once where the host reads it."""

KEPT_SIZES = 64
"""Runs of different sizes whose dispatches are kept for each state; making them takes 25 µs a pass."""


@dataclass(frozen=True)
class Prepared:
    """The steps of a run of some sizes, ready to record, and the passes of the program that they are.

    passes: of a relay the first.
    """

    passes: tuple[int, ...]
    steps: list[Step]
    handles: Any


class Runner:
    """A program on a device.

    Scratch, inputs and outputs grow to the longest run seen; bind groups live as long as the state they bind.
    """

    is_checked = False
    """Whether its dispatches have to be submitted by itself."""

    def __init__(self, context: Context, program: Program, resident: Memories, output: Buffer) -> None:
        self.context = context
        self.program = program
        self.output = output
        self.most_tokens = self._most([slot.width * ELEMENT for slot in program.plan.slots if slot.rows is T])
        row = row_width(output.shape) * ELEMENT
        self.most_outputs = min(self._most([row]), max(1, MOST_OUTPUT_BYTES // row))
        self.meeting = Meeting(context, program.every_relay)
        self._table = Uniforms(program, context, self.meeting.trial_words)
        self._dims = dims_of(program)
        most = {T: self.most_tokens, E: self.most_tokens, O: self.most_outputs}
        self._bindings = Bindings(context, program, resident, self.meeting.gpu, self._table, most)
        self._steps: WeakKeyDictionary[Any, dict[Any, Prepared]] = WeakKeyDictionary()
        self._readback: Readback | None = None
        self._ticket: int | None = None

    def __str__(self) -> str:
        return f"{self.program}\non {self.context}"

    def __repr__(self) -> str:
        return f"<{self.program!r} on {self.context!r}>"

    def _most(self, widths: Sequence[int]) -> int:
        limits = self.context.target.limits
        # Tokens are a dimension of some grids, and llvmpipe ends every loop after 65,535 turns.
        return min([limits.max_workgroups_per_dimension, *(limits.most_bytes // width for width in widths)])

    def run(self, inputs: Mapping[Buffer, Array], sizes: Sizes, owner: Any, state: Memories) -> Array | None:
        """Run once; gives the output's rows (O, …), or None without waiting where there are none.

        inputs: for each input buffer its rows. owner: what the bind groups belong to (a State); state: its
        memory.
        """
        with self.context.lock:
            return self._run(inputs, sizes, owner, state)

    def _run(self, inputs: Mapping[Buffer, Array], sizes: Sizes, owner: Any, state: Memories) -> Array | None:
        steps = self.steps(sizes, owner, state)
        with faults("running a program"):
            for buffer, rows in inputs.items():
                self.context.queue.write_buffer(
                    self._bindings.shared[buffer], 0, _padded(rows, row_width(buffer.shape))
                )
            rows_out = resolve(self.output.shape[0], sizes)
            nbytes = rows_out * row_width(self.output.shape) * ELEMENT
            readback = self._staging(nbytes) if nbytes else None
            before, self._ticket = self._ticket, self.submit(steps, readback, nbytes)
        for buffer, memory in self._bindings.users.items():
            buffer.used(memory)
        if readback is not None:
            flat = readback.read(self._ticket, nbytes + LATE_BYTES)
            self.check_met(flat[nbytes:])
            return self._rows(flat[:nbytes], rows_out)
        if before is not None:
            self.context.wait(before)  # at most two runs are in flight, so staging memory stays bounded
        return None

    def check_met(self, late: Array) -> None:
        """Raise DeviceError if workgroups waited in vain; from then on none do."""
        try:
            self.meeting.check(late)
        except DeviceError:
            self._steps.clear()
            raise

    def fetch(self, buffer: Buffer, rows: int) -> Array:
        """The first rows of another output than the program's own, after a run."""
        width = row_width(buffer.shape)
        flat = download(self.context, self._bindings.shared[buffer], 0, rows * width * ELEMENT)
        return flat.view(buffer.dtype.numpy).reshape(rows, width)

    def submit(self, prepared: Prepared, readback: Readback | None = None, nbytes: int = 0) -> int:
        """Record and submit the dispatches, and the copy of the output's first bytes.

        Gives the last ticket.
        """
        ticket, count = 0, len(prepared.steps)
        for start, stop in pairwise([0, *range(FIRST, count, AHEAD), max(count, 1)]):
            encoder = self.encode(prepared, start, stop)
            if readback is not None and stop >= count:
                readback.record(encoder, self._bindings.shared[self.output], 0, nbytes)
                self.meeting.record(encoder, readback, nbytes)
            ticket = self.context.submit([encoder.finish()])
        return ticket

    def encode(self, prepared: Prepared, start: int, stop: int) -> GPUCommandEncoder:
        """A command encoder with steps `start` to `stop` recorded, all in one compute pass."""
        return self.context.encode(prepared.handles, start, stop)

    def _rows(self, flat: Array, rows: int) -> Array:
        width = row_width(self.output.shape)
        used = int(np.prod([size for size in self.output.shape[1:] if isinstance(size, int)]))
        return flat.view(self.output.dtype.numpy).reshape(rows, width)[:, :used]

    def _staging(self, nbytes: int) -> Readback:
        if self._readback is None or self._readback.nbytes < nbytes + LATE_BYTES:
            self._readback = None
            room = min(
                1 << (nbytes - 1).bit_length(), self.most_outputs * row_width(self.output.shape) * ELEMENT
            )
            self._readback = Readback(self.context, max(room, nbytes) + LATE_BYTES)
        return self._readback

    def steps(self, sizes: Sizes, owner: Any, state: Memories, apart: bool = False) -> Prepared:
        """The dispatches of a run of these sizes; kept, with their bind groups, for the next run like it.

        apart: a dispatch a pass, where otherwise relays would do several.
        """
        if self._bindings.are_short(sizes):
            self._steps.clear()
            if self._ticket is not None:
                self.context.wait(self._ticket)
            self._bindings.grow(sizes)
        key = tuple([sizes[dim] for dim in self._dims])
        self._table.write(sizes, key)
        kept = self._steps.setdefault(owner, {})
        wanted = (*key, apart)
        if wanted not in kept:
            if len(kept) >= KEPT_SIZES:
                del kept[next(iter(kept))]
            there = self._find_steps(sizes, owner, state, apart)
            kept[wanted] = Prepared(
                tuple(there), [*there.values()], self.context.driver.prepare([*there.values()])
            )
        return kept[wanted]

    def _find_steps(self, sizes: Sizes, owner: Any, state: Memories, apart: bool) -> dict[int, Step]:
        """The dispatches of a run, by the (first) pass that each is."""
        relays = [] if apart else [*self._possible(sizes, state)]
        self._compile(sizes, relays)
        found: dict[int, Step] = {}
        joined: set[int] = set()
        for relay in relays:
            joint = self._relay_step(relay, sizes, owner, state)
            if joint is not None:
                found[relay.first] = joint
                joined.update(relay.span)
        self._compile(sizes, [relay for relay in relays if relay.first in found])
        for at in range(len(self.program.passes)):
            step = None if at in joined else self._step(at, sizes, owner, state)
            if step is not None:
                found[at] = step
        return dict(sorted(found.items()))

    def _possible(self, sizes: Sizes, state: Memories) -> Iterator[Relay]:
        """The relays for a run; where no binding reaches the memory of all laps, one for each of them."""
        for relay in self.program.relays:
            if relay.runs(sizes):
                is_whole = all(_is_shared(state.get(buffer)) for buffer in relay.whole)
                yield from (relay,) if is_whole else relay.apart

    def compile(self, sizes: Sizes) -> None:
        """Compile now what a run of these sizes needs; otherwise the first one does. Raises CompileError."""
        self._compile(sizes, [item for item in self.program.relays if item.runs(sizes)])

    def _compile(self, sizes: Sizes, relays: Sequence[Relay]) -> None:
        self.context.compile([*shaders_of(self.program, sizes, relays)])

    def _relay_step(self, relay: Relay, sizes: Sizes, owner: Any, state: Memories) -> Step | None:
        """The dispatch of a relay; None where its workgroups meet and do not all run at the same time."""
        variant = relay.variant
        kernel = self.kernel(relay, variant)
        group = self._bindings.group(relay, kernel, variant, relay.buffers, owner, state, relay.whole)
        if relay.meets and not self.meeting.is_proven(relay, kernel, group, self._table.trial):
            return None
        offset = self._table.offset(relay)
        grid = self._grid(variant, sizes)
        return Step(kernel.pipeline, group, offset, grid)

    def _step(self, index: int, sizes: Sizes, owner: Any, state: Memories) -> Step | None:
        item = self.program.passes[index]
        variant = item.variant(sizes)
        grid = self._grid(variant, sizes)
        if 0 in grid or not item.runs(sizes):
            return None
        kernel = self.kernel(item, variant)
        offset = self._table.offset(index, item.variants.index(variant))
        group = self._bindings.group(index, kernel, variant, item.bound(variant), owner, state)
        after = None
        if variant.after is not None:
            following = self.kernel(item, variant.after)
            after = Step(following.pipeline, group, offset, self._grid(variant.after, sizes))
        return Step(kernel.pipeline, group, offset, grid, after)

    def _grid(self, variant: Variant, sizes: Sizes) -> tuple[int, int, int]:
        return variant.grid.at(sizes, self.context.target.limits.max_workgroups_per_dimension)

    def kernel(self, item: Pass | Relay, variant: Variant) -> Kernel:
        """The compiled shader of a pass; the same for the same text."""
        shader = shader_of(item, variant)
        return self.context.kernel(shader.text, shader.signature, shader.label)


def _is_shared(memory: AnyMemory | None) -> bool:
    """Whether a buffer's memory is part of one that has those of all layers."""
    return isinstance(memory, DeviceMemory) and memory.is_shared


def _padded(rows: Array, width: int) -> Array:
    """Rows as they lie in a buffer: each followed by zeros up to whole lanes."""
    spare = width - rows.shape[1]
    return np.pad(rows, ((0, 0), (0, spare))) if spare else np.ascontiguousarray(rows)


def dims_of(program: Program) -> tuple[Dim, ...]:
    """The sizes of a run that its dispatches depend on; others only change contents, or memory."""
    found: set[Dim | None] = set()
    for item in program.passes:
        found |= {item.rows.size} | item.needs
    for variant in program.variants():
        found |= {variant.grid.items.size, variant.grid.deep.size}
        found |= {amount.size for row in variant.table for amount in row}
    return tuple(sorted((dim for dim in found if dim is not None), key=lambda dim: dim.name))
