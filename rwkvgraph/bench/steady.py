"""Timing work that gets faster while it runs: GPUs clock up over some rounds, so those only warm up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from statistics import median
from time import perf_counter

AGREEMENT = 0.03
"""Two rounds agree whose seconds differ by no more than this part of the later one's."""
LEAST_WARM_UP = 0.5
"""Seconds. Clocks rise in steps: two short rounds can agree on one of them."""
MOST_WARM_UP = 5.0
"""Seconds, after which the work is taken as it is: another program may be at work beside it."""

MOST_ROUNDS = 1000
"""Of a warm-up, however short they are."""


@dataclass(frozen=True)
class Rounds:
    """How something is measured: so many rounds, after at most `warm_up` seconds of others."""

    count: int = 5
    warm_up: float = MOST_WARM_UP


@dataclass(frozen=True)
class Samples:
    """Seconds of every round: those of the warm-up, and those that count, of which there is at least one."""

    warm_up: tuple[float, ...]
    rounds: tuple[float, ...]

    def over(self, times: int) -> Samples:
        """Seconds of one of the `times` equal things that each round was."""
        warm_up = tuple(seconds / times for seconds in self.warm_up)
        return Samples(warm_up, tuple(seconds / times for seconds in self.rounds))

    @property
    def median(self) -> float:
        """Seconds of a round, as a rule."""
        return median(self.rounds)

    @property
    def least(self) -> float:
        """Seconds of the fastest round."""
        return min(self.rounds)

    @property
    def most(self) -> float:
        """Seconds of the slowest round."""
        return max(self.rounds)


def agree(before: float, after: float) -> bool:
    """Whether two rounds in a row took about as long."""
    return abs(after - before) <= AGREEMENT * after


def settle(rounds: Iterator[float], most: float = MOST_WARM_UP) -> list[float]:
    """The rounds of a warm-up, in seconds: until two in a row agree, within the least and the most of it."""
    taken: list[float] = []
    while sum(taken) < most and len(taken) < MOST_ROUNDS:
        taken.append(next(rounds))
        if sum(taken) >= LEAST_WARM_UP and len(taken) > 1 and agree(*taken[-2:]):
            break
    return taken


def collect(taken: Iterator[float], rounds: Rounds) -> Samples:
    """A warm-up and what counts after it, of rounds without an end."""
    warm_up = settle(taken, rounds.warm_up)
    return Samples(tuple(warm_up), tuple(islice(taken, rounds.count)))


def measure(
    work: Callable[[], object], rounds: Rounds, before: Callable[[], object] | None = None
) -> Samples:
    """How long `work` takes. before: called ahead of each round, outside its time."""
    return collect(_taken(work, before), rounds)


def _taken(work: Callable[[], object], before: Callable[[], object] | None) -> Iterator[float]:
    while True:
        if before is not None:
            before()
        start = perf_counter()
        work()
        yield perf_counter() - start
