"""Cutting tokens into passes, and what the device is told about them."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwkvgraph.batch import BATCH_WORDS, Batch, Run, cut, split, stack

lengths = st.lists(st.integers(0, 400), min_size=1, max_size=12)
chunks = st.integers(1, 600)


def runs_of(counts: Sequence[int], lefts: Sequence[int]) -> list[Run]:
    """Runs whose token ids tell slot and place; a slot is finished where it takes all that it has left."""
    return [
        Run(slot, [1000 * slot + at for at in range(count)], count == left)
        for slot, (count, left) in enumerate(zip(counts, lefts, strict=True))
        if count
    ]


@st.composite
def some_runs(draw: st.DrawFn) -> list[Run]:
    left = draw(lengths)
    return runs_of(cut(left, draw(chunks)), left)


def test_passes_are_cut_as_web_rwkv_cuts_them() -> None:
    # Its own known answers; it rounds the second pass to 60 + 1 + 3 = 64, a multiple of 32, and we do not.
    left = [139, 1, 0, 65]
    passes = []
    for _ in range(4):
        taken = cut(left, 128)
        passes.append(taken)
        left = [max(have - took, 1) if took else 0 for have, took in zip(left, taken, strict=True)]
    assert passes == [[65, 1, 0, 62], [74, 1, 0, 3], [1, 1, 0, 1], [1, 1, 0, 1]]


def test_eight_slots_share_a_small_pass_evenly() -> None:
    left = [11, 8, 9, 4, 11, 8, 9, 4]
    taken = cut(left, 32)
    assert taken == [4] * 8
    batch = stack(runs_of(taken, left))
    assert batch.slots == (3, 7)
    assert batch.words[: batch.outputs, 5].tolist() == [15, 31]


@pytest.mark.parametrize(
    ("left", "chunk", "taken"),
    [
        ([], 8, []),
        ([0, 0], 8, [0, 0]),
        ([5], 8, [5]),
        ([9], 8, [8]),
        ([300], 1000, [300]),  # more than the 255 that web-rwkv's cursors hold
        ([1] * 300, 1000, [1] * 300),  # and more slots than its 256
        ([3, 3, 3], 4, [3, 1, 0]),
        ([5, 2], 4, [2, 2]),
        ([5, 2], 5, [3, 2]),
    ],
)
def test_small_cuts(left: list[int], chunk: int, taken: list[int]) -> None:
    assert cut(left, chunk) == taken


@given(lengths, chunks)
def test_a_pass_is_as_full_as_it_can_be(left: list[int], chunk: int) -> None:
    taken = cut(left, chunk)
    assert all(0 <= took <= have for took, have in zip(taken, left, strict=True))
    assert sum(taken) == min(chunk, sum(left))


@given(lengths, chunks)
def test_the_shortest_slots_are_served_first(left: list[int], chunk: int) -> None:
    taken = cut(left, chunk)
    unfinished = [took for took, have in zip(taken, left, strict=True) if took < have]
    assert unfinished == sorted(unfinished, reverse=True)  # the last round may run out on its way
    level = min(unfinished, default=400)
    assert all(took >= min(have, level) for took, have in zip(taken, left, strict=True))


@given(lengths, chunks)
def test_every_token_is_taken_once(left: list[int], chunk: int) -> None:
    passes, rest = 0, left
    while any(rest):
        taken = cut(rest, chunk)
        assert sum(taken) > 0
        rest = [have - took for have, took in zip(rest, taken, strict=True)]
        passes += 1
    assert passes == -(-sum(left) // chunk)


def check_words(batch: Batch, runs: Sequence[Run]) -> None:
    """The words mean those runs, by a reader that knows only their description."""
    slot, first, count, zero, token, row, start, unused = batch.words.T
    assert batch.words.dtype == np.uint32
    assert batch.words.shape == (sum(len(run.tokens) for run in runs), BATCH_WORDS)
    assert not zero.any()
    assert not unused.any()
    at = 0
    for number, run in enumerate(runs):
        here = slice(at, at + len(run.tokens))
        assert start[number] == at
        assert (slot[here] == run.slot).all()
        assert (first[here] == at).all()
        assert (count[here] == len(run.tokens)).all()
        assert token[here].tolist() == list(run.tokens)
        at = here.stop
    ends = np.cumsum([len(run.tokens) for run in runs]) - 1
    wanted = [(run.slot, int(end)) for run, end in zip(runs, ends, strict=True) if run.is_last]
    assert list(zip(batch.slots, row[: batch.outputs].tolist(), strict=True)) == wanted
    assert (batch.tokens, batch.outputs, batch.starts) == (at, len(wanted), len(runs))


@given(some_runs())
def test_the_words_of_a_pass_mean_its_runs(runs: list[Run]) -> None:
    check_words(stack(runs), runs)


def test_large_slots_tokens_and_ids_fit_their_words() -> None:
    runs = [Run(70_000, [1 << 31, 2] * 40_000, True), Run(3, [5], False)]
    check_words(stack(runs), runs)


@given(some_runs(), st.integers(1, 50), st.integers(1, 4))
def test_a_split_keeps_order_and_caps(runs: list[Run], most_tokens: int, most_outputs: int) -> None:
    groups = list(split(runs, most_tokens, most_outputs))
    for group in groups:
        assert 0 < sum(len(run.tokens) for run in group) <= most_tokens
        assert sum(run.is_last for run in group) <= most_outputs
        assert len({run.slot for run in group}) == len(group)
        assert all(run.tokens for run in group)
    parts = [run for group in groups for run in group]
    assert [(run.slot, token) for run in parts for token in run.tokens] == [
        (run.slot, token) for run in runs for token in run.tokens
    ]
    for run in runs:
        ends = [part.is_last for part in parts if part.slot == run.slot]
        assert ends == [False] * (len(ends) - 1) + [run.is_last]


@given(some_runs())
def test_what_fits_is_not_split(runs: list[Run]) -> None:
    groups = list(split(runs, 1 << 30, 1 << 30))
    assert groups == ([runs] if runs else [])
