"""Warm-ups and medians, over rounds that are given."""

from collections.abc import Iterator
from itertools import chain, count, repeat
from time import sleep

import pytest

from rwkvgraph.bench.steady import (
    LEAST_WARM_UP,
    MOST_ROUNDS,
    MOST_WARM_UP,
    Rounds,
    Samples,
    agree,
    collect,
    measure,
    settle,
)


def endless(*rounds: float) -> Iterator[float]:
    return chain(rounds, repeat(rounds[-1]))


def test_rounds_agree_within_three_percent_of_the_later() -> None:
    assert agree(1.0, 1.03)
    assert agree(1.029, 1.0)
    assert not agree(1.0, 1.04)
    assert not agree(1.04, 1.0)


def test_a_warm_up_ends_when_two_rounds_agree() -> None:
    assert settle(endless(1.0, 0.5, 0.3, 0.299, 7.0)) == [1.0, 0.5, 0.3, 0.299]


def test_a_warm_up_goes_on_while_too_little_time_has_gone() -> None:
    taken = settle(repeat(0.01))
    assert LEAST_WARM_UP <= sum(taken) < LEAST_WARM_UP + 0.011


def test_a_warm_up_of_rounds_that_never_agree_ends_too() -> None:
    taken = settle(1.0 + index % 2 for index in count())
    assert sum(taken) >= MOST_WARM_UP
    assert sum(taken[:-1]) < MOST_WARM_UP


def test_a_warm_up_of_rounds_that_take_next_to_nothing_ends_too() -> None:
    assert len(settle(repeat(1e-9))) == MOST_ROUNDS


def test_a_warm_up_can_be_left_out() -> None:
    assert settle(repeat(1.0), 0) == []


def test_one_round_that_takes_longer_than_a_warm_up_may_is_all_of_it() -> None:
    assert settle(endless(60.0)) == [60.0]


def test_what_counts_comes_after_the_warm_up() -> None:
    samples = collect(endless(1.0, 0.4, 0.4, 0.3, 0.5, 0.45), Rounds(3))
    assert samples == Samples((1.0, 0.4, 0.4), (0.3, 0.5, 0.45))
    assert (samples.median, samples.least, samples.most) == (0.45, 0.3, 0.5)


def test_what_comes_before_a_round_is_no_part_of_its_time() -> None:
    samples = measure(lambda: sleep(0.3), Rounds(1, 0), lambda: sleep(0.3))
    assert 0.29 < samples.least < 0.58  # and not 0.6, as both would take


@pytest.mark.parametrize("repeats", [1, 4])
def test_as_many_rounds_count_as_were_asked_for(repeats: int) -> None:
    assert len(collect(endless(1.0), Rounds(repeats)).rounds) == repeats
