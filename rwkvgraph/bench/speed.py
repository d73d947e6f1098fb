"""How fast a model takes prompts and generates: through `Model.run`, and on the device without the host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from time import perf_counter
from typing import Literal

import numpy as np

from rwkvgraph.batch import cut
from rwkvgraph.bench.passes import PassTimes, bytes_moved, time_program
from rwkvgraph.bench.steady import Rounds, Samples, collect, measure
from rwkvgraph.errors import DeviceError
from rwkvgraph.gpu.engine import GpuEngine
from rwkvgraph.gpu.runner import Prepared, Runner
from rwkvgraph.model import Model
from rwkvgraph.op import Role
from rwkvgraph.state import State
from rwkvgraph.view import B, E, N, O, Sizes, T

TOKEN = 1
"""What decoding is fed with: the speed does not depend on it."""
AHEAD_SECONDS = 0.05
"""Runs are handed to the device together for about as long, so that handing over costs little of it."""
MOST_AHEAD = 32


@dataclass(frozen=True)
class Trial:
    """What is measured, as llama-bench has it.

    pp: a prompt of `tokens` tokens in each slot, on an empty state. tg: that many steps of a token a slot.
    depth: tokens that each slot has taken before the first of those steps.
    """

    kind: Literal["pp", "tg"]
    tokens: int
    slots: int
    depth: int = 0

    @property
    def name(self) -> str:
        """As tables show it: pp512, tg128 @ d10000."""
        return f"{self.kind}{self.tokens}" + (f" @ d{self.depth}" if self.depth else "")


@dataclass(frozen=True)
class OnDevice:
    """The first run of a trial by itself: what it costs the device, and what recording it costs the host.

    tokens: in all slots. weight_bytes, state_bytes: read, and of the state also written. seconds: of a run
    that waits for nobody, as many lie ready behind it. encoding: seconds of recording all its passes.
    dispatches: fewer than passes where relays stand for several, more where a pass takes two kernels.
    """

    tokens: int
    passes: int
    dispatches: int
    weight_bytes: int
    state_bytes: int
    seconds: Samples
    encoding: Samples
    times: PassTimes | None

    @property
    def tokens_per_second(self) -> float:
        """Of all slots."""
        return self.tokens / self.seconds.median

    @property
    def encoding_per_pass(self) -> float:
        """Seconds."""
        return self.encoding.median / self.passes


@dataclass(frozen=True)
class First:
    """A trial's first run, in which what it needs is compiled.

    seconds: of all of it; of some drivers compiling goes on in it. shaders: that were not there before.
    compile_seconds: of compiling those.
    """

    seconds: float
    shaders: int
    compile_seconds: float


@dataclass(frozen=True)
class Speed:
    """What a trial came to. runs: through the model, that it took; samples: seconds of all of them."""

    trial: Trial
    runs: int
    samples: Samples
    first: First
    device: OnDevice | None

    @property
    def tokens_per_second(self) -> float:
        """Of all slots, in the median round."""
        return self.rate(self.samples.median)

    def rate(self, seconds: float) -> float:
        """Tokens a second of all slots, in a round of so many seconds."""
        return self.trial.slots * self.trial.tokens / seconds

    @property
    def gigabytes_per_second(self) -> float | None:
        """Weights and state that the kernels had to move, each once a run; None on numpy."""
        if self.device is None:
            return None
        moved = self.device.weight_bytes + self.device.state_bytes
        return self.runs * moved / self.samples.median / 1e9


def measure_speed(model: Model, trial: Trial, rounds: Rounds, with_passes: bool = False) -> Speed:
    """Run a trial until it is steady, then as often as counts. with_passes: time each pass as well.

    Raises DeviceError where the state does not fit the device, and for passes on numpy.
    """
    state = make_state(model, trial.slots)
    first = _run_first(model, trial, state)
    prefill(model, state, trial.depth)
    if trial.kind == "pp":
        samples = measure(lambda: prefill(model, state, trial.tokens), rounds, lambda: _empty(model, state))
    else:
        samples = measure(lambda: decode(model, state, trial.tokens), rounds)
    device = _on_device(model, trial, state, rounds, with_passes)
    return Speed(trial, _runs(model, trial), samples, first, device)


def _run_first(model: Model, trial: Trial, state: State) -> First:
    engine = model.engine
    context = engine.context if isinstance(engine, GpuEngine) else None
    shaders, compiling = (len(context.kernels), context.compile_seconds) if context else (0, 0.0)
    start = perf_counter()
    model.run(_first_lists(model, trial), state)
    seconds = perf_counter() - start
    if context is None:
        return First(seconds, 0, 0.0)
    return First(seconds, len(context.kernels) - shaders, context.compile_seconds - compiling)


def prefill(model: Model, state: State, count: int) -> None:
    """Take a prompt of `count` tokens through every slot, in chunks, as callers of `run` do."""
    lists = _prompts(model, state.num_batch, count)
    while any(lists):
        model.run(lists, state)


def decode(model: Model, state: State, count: int) -> None:
    """Take `count` tokens through every slot, one a step, with the logits of each step read back.

    The one place that knows how a token comes after another: a loop that stays on the device would go here.
    """
    for _ in range(count):
        model.run([[TOKEN] for _ in range(state.num_batch)], state)


def make_state(model: Model, slots: int) -> State:
    """A state for a trial. Raises DeviceError, with the bytes that it takes, where it does not fit."""
    nbytes = state_bytes(model, slots)
    what = f"a state of {slots} slots takes {nbytes / 1e9:.1f} GB; give fewer with -b"
    most = model.program().most_tokens
    if slots > most:
        raise DeviceError(f"a step of {slots} slots is more than the {most} tokens of a run here; {what}")
    try:
        return model.state(slots)
    except DeviceError as error:
        raise DeviceError(f"{what}. {error}") from error


def state_bytes(model: Model, slots: int) -> int:
    """Bytes of a state of so many slots: f32."""
    return slots * prod(model.state().shape) * 4


def _prompts(model: Model, slots: int, count: int) -> list[list[int]]:
    ids: list[int] = np.random.default_rng(0).integers(model.info.num_vocab, size=count).tolist()
    return [list(ids) for _ in range(slots)]


def _first_lists(model: Model, trial: Trial) -> list[list[int]]:
    """The tokens of which the first call of `run` takes a trial's first run."""
    if trial.kind == "tg":
        return [[TOKEN] for _ in range(trial.slots)]
    return _prompts(model, trial.slots, trial.tokens)


def _runs(model: Model, trial: Trial) -> int:
    if trial.kind == "tg":
        return trial.tokens
    return -(-trial.tokens * trial.slots // model.token_chunk_size)


def _empty(model: Model, state: State) -> None:
    """A fresh state, without waiting for it within the time of a round."""
    state.clear_all()
    if isinstance(model.engine, GpuEngine):
        context = model.engine.context
        context.wait(context.submit([]))


def _on_device(
    model: Model, trial: Trial, state: State, rounds: Rounds, with_passes: bool
) -> OnDevice | None:
    """A trial's first run by itself; None on numpy, and where it takes several programs' runs."""
    program, lists = model.program(), _first_lists(model, trial)
    sizes = _sizes(lists, model.token_chunk_size, state)
    is_whole = sizes[T] <= program.most_tokens and sizes[O] <= program.most_outputs and len(state.blocks) == 1
    if not isinstance(program, Runner) or not is_whole:
        return None
    model.run(lists, state)  # leaves its inputs in place
    with program.context.lock:
        owner = state.blocks[0]
        apart = program.steps(sizes, owner, owner.memory, apart=True)
        moved = bytes_moved(program.program, apart, sizes)
        times = time_program(program, apart, sizes) if with_passes else None
        steps = program.steps(sizes, owner, owner.memory)
        seconds, encoding = _ahead(program, steps, rounds)
    counts = len(apart.steps), sum(len(step.dispatches) for step in steps.steps)
    return OnDevice(sizes[T], *counts, moved[Role.WEIGHT], moved[Role.STATE], seconds, encoding, times)


def _sizes(lists: list[list[int]], chunk: int, state: State) -> Sizes:
    """The sizes of the first run of these tokens."""
    lengths = list(map(len, lists))
    counts = cut(lengths, chunk)
    ends = sum(count == length for count, length in zip(counts, lengths, strict=True))
    starts = sum(map(bool, counts))
    return {T: sum(counts), O: ends, N: starts, B: state.blocks[0].num_batch, E: 1}


def _ahead(program: Runner, steps: Prepared, rounds: Rounds) -> tuple[Samples, Samples]:
    """Seconds of a run on the device, and of recording it; all runs are recorded before the first starts."""
    _, once = _hand_over(program, steps, 1)
    times = max(1, min(MOST_AHEAD, int(AHEAD_SECONDS / once)))
    recording: list[float] = []

    def taken() -> Iterator[float]:
        while True:
            recorded, ran = _hand_over(program, steps, times)
            recording.append(recorded / times)
            yield ran  # of all runs: how long a warm-up takes is counted by it

    seconds = collect(taken(), rounds).over(times)
    warm = len(seconds.warm_up)
    return seconds, Samples(tuple(recording[:warm]), tuple(recording[warm:]))


def _hand_over(program: Runner, steps: Prepared, times: int) -> tuple[float, float]:
    """Seconds that recording and running took, of `times` runs."""
    start = perf_counter()
    runs = [program.encode(steps, 0, len(steps.steps)).finish() for _ in range(times)]
    recorded = perf_counter()
    ticket = 0
    for commands in runs:  # one by one: the device is at the first while the others are handed over
        ticket = program.context.submit([commands])
    program.context.wait(ticket)
    return recorded - start, perf_counter() - recorded
