"""Cutting tokens into passes, and what the device is told about them."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwkvgraph.batch import BATCH_WORDS, Answers, Batch, Stack, cut, split, stack
from rwkvgraph.op import Array
from rwkvgraph.view import B, E, N, O, T

MANY = 1 << 30
WIDTH = 3

lengths = st.lists(st.integers(0, 400), min_size=1, max_size=12)
chunks = st.integers(1, 600)


def work_of(counts: list[int], lefts: list[int], full: Sequence[bool], every: int = 0) -> Stack:
    """Tokens whose ids tell slot and place; in place of each `every`th stands a vector that does."""
    ids = np.array([1000 * slot + at for slot, count in enumerate(counts) for at in range(count)], np.int64)
    is_vector = np.arange(len(ids)) % every == 0 if every else np.zeros(len(ids), np.bool_)
    vectors = np.repeat(ids[is_vector, None], WIDTH, axis=1).astype(np.float32)
    picks = np.where(is_vector, np.cumsum(is_vector), 0)
    return stack(counts, np.array(full), np.equal(counts, lefts), np.where(is_vector, 0, ids), picks, vectors)


@st.composite
def some_work(draw: st.DrawFn) -> Stack:
    left = draw(lengths)
    full = draw(st.lists(st.booleans(), min_size=len(left), max_size=len(left)))
    return work_of(cut(left, draw(chunks)), left, full, draw(st.integers(0, 5)))


def cut_by_rounds(left: Sequence[int], chunk: int) -> list[int]:
    """The rule as it is told: rounds in which every slot gets what the shortest has left."""
    taken = [0] * len(left)
    room = min(sum(left), chunk)
    while room > 0:
        least = min(have - took for have, took in zip(left, taken, strict=True) if have > took)
        for slot, have in enumerate(left):
            give = min(least, room) if have > taken[slot] else 0
            taken[slot] += give
            room -= give
    return taken


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
    (batch,) = split(work_of(taken, left, [False] * 8), MANY, MANY, MANY)
    assert batch.slots.tolist() == [3, 7]
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
def test_a_pass_is_cut_in_rounds(left: list[int], chunk: int) -> None:
    assert cut(left, chunk) == cut_by_rounds(left, chunk)


@given(lengths, chunks)
def test_every_token_is_taken_once(left: list[int], chunk: int) -> None:
    passes, rest = 0, left
    while any(rest):
        taken = cut(rest, chunk)
        assert sum(taken) > 0
        rest = [have - took for have, took in zip(rest, taken, strict=True)]
        passes += 1
    assert passes == -(-sum(left) // chunk)


def check_words(batch: Batch, work: Stack, start: int, block_slots: int) -> None:
    """The words of a pass mean the tokens from `start` on, by a reader that knows only their description."""
    end = start + batch.tokens
    slot, first, count, zero, token, row, starts, pick = batch.words.T
    assert batch.words.dtype == np.uint32
    assert batch.words.shape == (end - start, BATCH_WORDS)
    assert not zero.any()
    slots = work.slots[start:end].tolist()
    assert (slot + batch.block * block_slots).tolist() == slots
    at = 0
    for number, (_, run) in enumerate(groupby(slots)):
        here = slice(at, at + len(list(run)))
        assert starts[number] == at
        assert (first[here] == at).all()
        assert (count[here] == here.stop - at).all()
        at = here.stop
    assert batch.starts == number + 1
    wanted = np.flatnonzero(work.wanted[start:end])
    assert row[: batch.outputs].tolist() == wanted.tolist()
    assert batch.slots.tolist() == work.slots[start:end][wanted].tolist()
    assert [given_token(batch.vectors, *pair) for pair in zip(token, pick, strict=True)] == [
        given_token(work.vectors, *pair)
        for pair in zip(work.ids[start:end], work.picks[start:end], strict=True)
    ]


def given_token(vectors: Array, token: int, pick: int) -> float:
    """What `work_of` put there."""
    if not pick:
        return float(token)
    assert token == 0
    assert (vectors[pick - 1] == vectors[pick - 1, 0]).all()
    return float(vectors[pick - 1, 0])


@given(some_work(), st.integers(1, 50), st.integers(1, 4), st.integers(1, 13))
def test_the_words_of_passes_mean_the_tokens(
    work: Stack, most_tokens: int, most_outputs: int, block_slots: int
) -> None:
    at = 0
    for batch in split(work, most_tokens, most_outputs, block_slots):
        assert 0 < batch.tokens <= most_tokens
        assert batch.outputs <= most_outputs
        assert len(batch.vectors) <= batch.tokens
        assert (batch.words[:, 0] < block_slots).all()
        check_words(batch, work, at, block_slots)
        at += batch.tokens
    assert at == len(work.slots)


@given(some_work(), st.integers(1, 40))
def test_what_fits_is_not_split(work: Stack, block_slots: int) -> None:
    blocks = sorted({int(slot) // block_slots for slot in work.slots})
    assert [batch.block for batch in split(work, MANY, MANY, block_slots)] == blocks


def test_logits_are_wanted_after_the_last_token_or_after_each() -> None:
    work = work_of([2, 0, 3, 1, 2], [2, 0, 9, 1, 7], [False, True, False, True, True])
    assert work.wanted.tolist() == [False, True, False, False, False, True, True, True]


def test_large_slots_tokens_and_ids_fit_their_words() -> None:
    ids = np.array([1 << 31, 2] * 40_000 + [5])
    nothing = np.zeros(len(ids), np.int64)
    counts = [0] * 70_000 + [80_000, 1]
    no = np.zeros(len(counts), np.bool_)
    work = stack(counts, no, ~no, ids, nothing, np.zeros((0, WIDTH), np.float32))
    (batch,) = split(work, MANY, MANY, MANY)
    check_words(batch, work, 0, MANY)
    assert batch.sizes(70_002) == {T: 80_001, O: 2, N: 2, B: 70_002, E: 1}


@given(some_work(), st.integers(1, 50), st.integers(1, 9), st.integers(1, 13))
def test_answers_are_the_same_however_the_passes_are_split(
    work: Stack, most_tokens: int, most_outputs: int, block_slots: int
) -> None:
    slots = int(work.slots.max(initial=0)) + 1
    counts = np.bincount(work.slots, minlength=slots).tolist()
    wants = np.bincount(work.slots[work.wanted], minlength=slots)
    full = np.array([want > 1 or (want and count == 1) for want, count in zip(wants, counts, strict=True)])
    answers = Answers(counts, full, WIDTH)
    at = 0
    for batch in split(work, most_tokens, most_outputs, block_slots):
        rows = np.flatnonzero(work.wanted[at : at + batch.tokens]) + at
        if len(rows):
            answers.add(batch.slots, np.repeat(rows[:, None], WIDTH, axis=1).astype(np.float32))
        at += batch.tokens
    for slot, found in enumerate(answers.rows):
        rows = np.flatnonzero(work.wanted & (work.slots == slot))
        if not len(rows):
            assert found is None
        else:
            assert found is not None
            assert found[..., 0].tolist() == (rows.tolist() if full[slot] else int(rows[-1]))
