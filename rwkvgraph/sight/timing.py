"""How long each pass takes on a device: each alone, in a run's order, with the caches as they are then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np

from rwkvgraph.errors import DeviceError
from rwkvgraph.gpu.context import Context
from rwkvgraph.gpu.runner import Prepared, Runner
from rwkvgraph.gpu.transfer import download
from rwkvgraph.hooks import Hooks
from rwkvgraph.model import Model
from rwkvgraph.sight.stages import Stages
from rwkvgraph.sight.traffic import sizes_of

ROUNDS = 15
WARM_UP = 3
CLOCKING_UP = 0.5
"""Seconds of work before anything is timed: an NVIDIA H100 that was idle took 2 to 4 times as long a pass."""
REPEATS = 20
"""Dispatches in a submission where the device cannot tell the time, so that submitting costs little of it."""
AT_ONCE = 32
"""Passes in a submission with timestamps."""
TICK_BYTES = 8


@dataclass(frozen=True)
class Timing:
    """Median microseconds by pass, and how they were taken."""

    microseconds: dict[int, float]
    method: str
    adapter: str
    tokens: int

    @property
    def total(self) -> float:
        """Of all passes, in microseconds."""
        return sum(self.microseconds.values())


def time_passes(model: Model, stages: Stages, hooks: Hooks | None, tokens: int) -> Timing:
    """Time every pass that a run of `tokens` tokens in one slot has. Raises DeviceError on numpy."""
    program = model.program(hooks)
    if not isinstance(program, Runner):
        raise DeviceError("there are no passes to time on numpy; --time needs an adapter (rwkvgraph devices)")
    _check_same(program, stages)
    state = model.state()
    model.run_with_hooks([[0] * tokens], state, hooks)  # fills the inputs, and compiles
    block = state.blocks[0]
    steps = program.steps(sizes_of(tokens), block, block.memory, apart=True)
    microseconds, method = time_steps(program.context, steps)
    return Timing(microseconds, method, str(program.context.info), tokens)


def time_steps(context: Context, steps: Prepared) -> tuple[dict[int, float], str]:
    """Median microseconds by pass of dispatches whose inputs are in place, and how they were taken."""
    with context.lock:
        if context.target.kind == "gpu":
            _clock_up(context, steps)
        if context.has_timestamps:
            rows = [_by_timestamps(context, steps) for _ in range(WARM_UP + ROUNDS)]
            method = f"GPU timestamps around each pass, median of {ROUNDS} runs"
        else:
            rows = [_by_clock(context, steps) for _ in range(WARM_UP + ROUNDS)]
            method = f"wall clock of {REPEATS} repeated dispatches, median of {ROUNDS}: no timestamps here"
    return {index: median(row[at] for row in rows[WARM_UP:]) for at, index in enumerate(steps.passes)}, method


def _clock_up(context: Context, steps: Prepared) -> None:
    """Keep the device at work, run after run, until its clocks are up."""
    until = perf_counter() + CLOCKING_UP
    ticket = None
    while perf_counter() < until:
        commands = context.encode(steps.handles, 0, len(steps.steps)).finish()
        before, ticket = ticket, context.submit([commands])
        if before is not None:
            context.wait(before)


def _check_same(program: Runner, stages: Stages) -> None:
    labels = [item.label for item in program.program.passes]
    if labels != [step.item.label for step in stages.lowered]:
        raise DeviceError("compiling twice gave two programs; do the hooks build the same each time?")


def _by_timestamps(context: Context, steps: Prepared) -> list[float]:
    """Microseconds of every dispatch of one run, each in a compute pass of its own."""
    found: list[float] = []
    for start in range(0, len(steps.steps), AT_ONCE):
        stop = min(start + AT_ONCE, len(steps.steps))
        found += _ticks(context, steps, range(start, stop))
    return found


def _ticks(context: Context, steps: Prepared, indices: Sequence[int]) -> list[float]:
    count, tick = 2 * len(indices), context.driver.nanoseconds_of_a_tick()
    queries = context.device.create_query_set(type="timestamp", count=count)
    answers = context.buffer(count * TICK_BYTES, "timestamps", "queries")
    encoder = context.device.create_command_encoder()
    for at, index in enumerate(indices):
        writes = {
            "query_set": queries,
            "beginning_of_pass_write_index": 2 * at,
            "end_of_pass_write_index": 2 * at + 1,
        }
        record = encoder.begin_compute_pass(timestamp_writes=writes)
        context.driver.record(record, steps.handles, index, index + 1)
        record.end()
    encoder.resolve_query_set(queries, 0, count, answers, 0)
    context.submit([encoder.finish()])
    ticks = download(context, answers, 0, count * TICK_BYTES).view(np.uint64).astype(np.int64).reshape(-1, 2)
    return [max(0, int(end - begin)) * tick / 1e3 for begin, end in ticks]


def _by_clock(context: Context, steps: Prepared) -> list[float]:
    """Microseconds of every dispatch, from wall clock: several in a row, less what one submission takes."""
    empty = _elapsed(context, steps, 0, 0)
    return [
        max(0.0, _elapsed(context, steps, index, REPEATS) - empty) / REPEATS
        for index in range(len(steps.steps))
    ]


def _elapsed(context: Context, steps: Prepared, index: int, repeats: int) -> float:
    commands = context.encode(steps.handles, index, index + 1, repeats).finish()
    start = perf_counter()
    context.wait(context.submit([commands]))
    return (perf_counter() - start) * 1e6
