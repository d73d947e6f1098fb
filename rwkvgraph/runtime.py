"""Going on from logits: tokens are drawn and run one after another, ahead of the host where a device can.

How many steps go out at once, and what becomes of those that nobody wanted. What a step is on a device is in
decoding.py; where a text ends is the caller's matter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from rwkvgraph.decoding import HISTORY, SPARES, Decoder, Drawing, can_run_ahead
from rwkvgraph.gpu.runner import Runner
from rwkvgraph.hooks import Hooks
from rwkvgraph.model import Model
from rwkvgraph.op import Array
from rwkvgraph.ops.sample import NOTHING, Settings
from rwkvgraph.sampler import Sampler, check
from rwkvgraph.state import State

MOST_STEPS = HISTORY // SPARES
"""Steps in a stretch at most."""
STRETCH_SECONDS = 0.025
"""What a stretch should take. Tokens come within two of them: under the 50 ms at which text seems to halt."""


@dataclass(frozen=True, eq=False)
class Course:
    """What steps are of: slots of a state, rising, a sampler each, and for all of them the rest.

    bias (V,) f32: added to logits, -inf for tokens that must not be drawn. limit: steps at most. ends: tokens
    that are not run. A step that draws one is the last, and none of its tokens is run.
    """

    model: Model
    state: State
    slots: tuple[int, ...]
    samplers: tuple[Sampler, ...]
    bias: Array
    limit: int
    ends: frozenset[int] = frozenset()
    hooks: Hooks | None = None


class Steps(Iterator[list[int]]):
    """The tokens of each step, one a slot. When `next` returns, the slots are as after these tokens.

    Begin with `start`, and `close` when no more are wanted.
    """

    def start(self, logits: Array) -> None:
        """Go on from logits (slots, V) f32."""
        raise NotImplementedError

    def close(self) -> None:
        """Take no more steps."""
        raise NotImplementedError


def steps(course: Course) -> Steps:
    """Steps ahead of the host, or one by one where that cannot be.

    That is on numpy, with hooks that touch a user's buffers, with a sampler of a user's own class, and for
    slots in more than one block of a state.
    """
    program, drawing = course.model.program(course.hooks), course.model.drawing()
    blocks = {slot // course.state.block_slots for slot in course.slots}
    is_ours = all(type(sampler).sample is Sampler.sample for sampler in course.samplers)
    if drawing is None or not isinstance(program, Runner) or not is_ours or len(blocks) > 1:
        return StepByStep(course)
    if len(course.slots) > min(program.most_tokens, program.most_outputs) or not can_run_ahead(program):
        return StepByStep(course)
    return Ahead(course, drawing, program)


class StepByStep(Steps):
    """Steps of which each is drawn on the host, from logits that were read back."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._samplers = [sampler.begin() for sampler in course.samplers]
        self._left = course.limit
        self._logits: list[Array] = []
        self._seen = np.zeros((len(course.slots), len(course.bias)), np.float32)

    def start(self, logits: Array) -> None:
        self._logits = list(logits)

    def close(self) -> None:
        self._left = 0

    def __next__(self) -> list[int]:
        if not self._left:
            raise StopIteration
        tokens = [self._draw(row, sampler) for row, sampler in enumerate(self._samplers)]
        self._left -= 1
        if not self._course.ends.isdisjoint(tokens):
            self._left = 0
        else:
            self._run(tokens)
        return tokens

    def _draw(self, row: int, sampler: Sampler) -> int:
        seen = self._seen[row]
        token = sampler.sample(sampler.penalise(self._logits[row] + self._course.bias, seen))
        sampler.remember(seen, token)
        return token

    def _run(self, tokens: list[int]) -> None:
        course = self._course
        lists: list[list[int]] = [[] for _ in range(course.state.num_batch)]
        for slot, token in zip(course.slots, tokens, strict=True):
            lists[slot].append(token)
        while any(lists):
            rows = course.model.run_with_hooks(lists, course.state, course.hooks)
            for row, slot in enumerate(course.slots):
                logits = rows[slot]
                if logits is not None:
                    self._logits[row] = logits


@dataclass(eq=False)
class Stretch:
    """Steps that went out together, from the `first` draw on.

    spare: where what was before them is kept. ticket: to wait for them, None while they are going out.
    given: how many the caller has, or wants to have had.
    """

    first: int
    steps: int
    spare: int
    began: float
    ticket: int | None = None
    ids: Array | None = None
    given: int = 0

    def tokens(self, step: int) -> list[int]:
        """The tokens of a step, one a row."""
        assert self.ids is not None, "they were read"
        column: list[int] = self.ids[:, (self.first + step) % HISTORY].tolist()
        return column


class Ahead(Steps):
    """Steps that a device takes by itself, in stretches, of which a second is under way while one is read.

    The state is lent: before anybody else looks at its slots, they are taken back to the last tokens given.
    """

    def __init__(self, course: Course, drawing: Drawing, program: Runner) -> None:
        self._course = course
        self._drawing = drawing
        self._block = course.state.blocks[course.slots[0] // course.state.block_slots]
        rows = [slot % course.state.block_slots for slot in course.slots]
        course.state.settle(course.slots)
        self._decoder: Decoder | None = drawing.decoder(program, self._block, rows)
        self._stretches: deque[Stretch] = deque()
        self._drawn = 0
        self._limit = course.limit
        self._size = 1
        self._seconds_a_step = 0.0
        self._last_read = 0.0

    def start(self, logits: Array) -> None:
        course, bias = self._course, self._course.bias
        rules = [settings_of(sampler, bool(bias.any())).words() for sampler in course.samplers]
        assert self._decoder is not None, "steps start once"
        self._decoder.start(np.asarray(logits, np.float32), np.stack(rules), bias)

    def close(self) -> None:
        self._limit = 0
        if all(stretch.given == stretch.steps for stretch in self._stretches):
            self.settle()

    def __next__(self) -> list[int]:
        if not self._limit:  # what is still under way is not wanted
            raise StopIteration
        if self._stretches and self._stretches[0].given == self._stretches[0].steps:
            self._stretches.popleft()
        if self._stretches and self._stretches[0].ticket is None:
            self.settle()  # it was interrupted while it went out
        while len(self._stretches) < SPARES and self._drawn < self._limit:
            self._send()
        if not self._stretches:
            self.close()
            raise StopIteration
        stretch = self._stretches[0]
        if stretch.ids is None:
            self._read(stretch)
        tokens = stretch.tokens(stretch.given)
        if NOTHING in tokens or not self._course.ends.isdisjoint(tokens):
            self.close()  # drawn, and not to be run
            self._check(tokens)
            return tokens
        stretch.given += 1  # the last thing, so that Ctrl-C loses no token
        return tokens

    def settle(self) -> None:
        """Let the state be as after the last tokens given, and nothing be under way. May be interrupted."""
        decoder = self._decoder
        if self._stretches and decoder is not None:
            stretch = self._stretches[0]
            if stretch.given == stretch.steps and len(self._stretches) > 1:
                stretch = self._stretches[1]
            if stretch.given < stretch.steps:
                decoder.restore(stretch.spare)
                decoder.run(stretch.given)  # from the same memory, so to the same bits
                self._drawn = stretch.first + stretch.given
            self._stretches.clear()
            self._size = 1
        self._course.state.take_back(self._course.slots)
        if not self._limit and decoder is not None:
            self._decoder = None
            self._drawing.give_back(decoder, self._block)

    def _send(self) -> None:
        """Let the next stretch go out."""
        decoder, course = self._decoder, self._course
        assert decoder is not None, "there are steps left"
        if not self._stretches:
            course.state.lend(course.slots, self.settle)
        spare = (self._stretches[-1].spare + 1) % SPARES if self._stretches else 0
        steps = min(self._size, self._limit - self._drawn)
        decoder.save(spare)
        stretch = Stretch(self._drawn, steps, spare, perf_counter())
        self._stretches.append(stretch)  # from here on there may be something to take back
        self._drawn += steps
        decoder.run(steps)
        stretch.ticket = decoder.send(spare)
        self._size = min(2 * steps, MOST_STEPS)
        if self._seconds_a_step:
            self._size = max(1, min(self._size, int(STRETCH_SECONDS / self._seconds_a_step)))

    def _read(self, stretch: Stretch) -> None:
        """Wait for a stretch, and learn from it how long a step takes."""
        assert self._decoder is not None, "it was sent"
        assert stretch.ticket is not None, "it was sent"
        stretch.ids = self._decoder.ids(stretch.spare, stretch.ticket)
        now = perf_counter()
        self._seconds_a_step = (now - max(stretch.began, self._last_read)) / stretch.steps
        self._last_read = now

    def _check(self, tokens: Sequence[int]) -> None:
        """Raise ValueError for a step at which some logits said nothing, as the sampler does on the host."""
        if NOTHING not in tokens:
            return
        row, decoder = tokens.index(NOTHING), self._decoder
        self.settle()
        if decoder is not None:
            with np.errstate(invalid="ignore"):
                check((decoder.logits(row) + self._course.bias).astype(np.float64))
        raise ValueError("there was no token to draw, though the logits are numbers; begin with a new state")


def settings_of(sampler: Sampler, has_bias: bool) -> Settings:
    """A sampler's settings for a text that begins."""
    text = sampler.begin()
    return Settings(
        rate=text.rate,
        top_k=int(text.top_k),
        top_p=text.top_p,
        reach=text.reach,
        presence=text.presence,
        frequency=text.frequency,
        decay=text.decay,
        key=text.stream.key,
        text=text.stream.text,
        adjusts=has_bias or text.has_penalties,
    )
