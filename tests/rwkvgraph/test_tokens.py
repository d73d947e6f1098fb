"""What callers give a run: ids and vectors are told apart, and what is neither is named."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwkvgraph.tokens import check_lists, check_rest, flatten, full_slots

WIDTH, VOCAB = 4, 100

some_ids = st.integers(0, VOCAB - 1)
some_vectors = st.sampled_from([np.float16, np.float32, np.float64]).flatmap(
    lambda kind: st.integers(-9, 9).map(lambda value: np.full(WIDTH, value, kind))
)
some_tokens = st.lists(st.lists(some_ids | some_ids.map(np.int32) | some_vectors, max_size=9), max_size=5)


@given(some_tokens, st.data())
def test_ids_and_vectors_are_told_apart(tokens: list[list[Any]], data: st.DataObject) -> None:
    counts = [data.draw(st.integers(0, len(slot))) for slot in tokens]
    given_tokens = [token for slot, count in zip(tokens, counts, strict=True) for token in slot[:count]]
    ids, picks, vectors = flatten(tokens, counts, WIDTH, VOCAB)
    assert vectors.dtype == np.float32
    assert vectors.shape == (sum(isinstance(token, np.ndarray) for token in given_tokens), WIDTH)
    assert picks[picks > 0].tolist() == list(range(1, len(vectors) + 1))
    for token, number, pick in zip(given_tokens, ids, picks, strict=True):
        if isinstance(token, np.ndarray):
            assert number == 0
            np.testing.assert_array_equal(vectors[pick - 1], token)
        else:
            assert (number, pick) == (token, 0)


def test_the_lists_are_left_as_they_are() -> None:
    vector = np.ones(WIDTH)
    tokens: list[list[Any]] = [[1, vector, 2]]
    flatten(tokens, [3], WIDTH, VOCAB)
    assert tokens[0][0] == 1
    assert tokens[0][1] is vector


NO_VECTORS = [
    np.zeros(WIDTH + 1),
    np.zeros((1, WIDTH)),
    np.zeros(WIDTH, np.int64),
    np.array(3),
    np.full(WIDTH, np.nan),
    np.full(WIDTH, -np.inf, np.float16),
    np.full(WIDTH, 1e300),
    np.zeros(WIDTH, np.complex64),
]


@pytest.mark.parametrize("bad", NO_VECTORS, ids=repr)
def test_an_array_that_is_no_vector_is_named(bad: Any) -> None:
    tokens: list[list[Any]] = [[], [5, np.ones(WIDTH), bad, 200]]
    wanted = r"token 2 of slot 1 is an array of .*of floats of shape \(4,\)"
    with pytest.raises(ValueError, match=wanted):
        flatten(tokens, [0, 3], WIDTH, VOCAB)
    with pytest.raises(ValueError, match=wanted):
        check_rest(tokens[1], 0, 1, WIDTH, VOCAB)


@pytest.mark.parametrize(
    "bad", [-1, VOCAB, 1 << 70, True, 1.0, "7", None, [3], np.bool_(True), np.float32(1)]
)
def test_what_is_no_id_is_named(bad: Any) -> None:
    wanted = r"token 1 of slot 0 is .*; ids are integers from 0 to 99 .* or numpy arrays of shape \(4,\)"
    with pytest.raises(ValueError, match=wanted):
        flatten([[1, bad]], [2], WIDTH, VOCAB)
    with pytest.raises(ValueError, match=wanted):
        check_rest([1, bad], 1, 0, WIDTH, VOCAB)


def test_what_is_not_taken_yet_is_checked_apart() -> None:
    tokens: list[list[Any]] = [[1, -5]]
    flatten(tokens, [1], WIDTH, VOCAB)
    with pytest.raises(ValueError, match="token 1 of slot 0 is -5"):
        check_rest(tokens[0], 1, 0, WIDTH, VOCAB)


def test_an_option_is_for_all_slots_or_for_each() -> None:
    assert full_slots("last", 3).tolist() == [False] * 3
    assert full_slots("full", 2).tolist() == [True] * 2
    assert full_slots(["last", "full"], 2).tolist() == [False, True]
    assert full_slots(("full",), 1).tolist() == [True]


@pytest.mark.parametrize("option", ["Full", "", "none", None, 1, True, b"last", {"last"}])
def test_an_unknown_option_is_refused(option: Any) -> None:
    with pytest.raises(ValueError, match='it is "last", "full", or a list of these'):
        full_slots(option, 1)


def test_an_unknown_option_of_a_slot_is_named() -> None:
    with pytest.raises(ValueError, match="the option of slot 1 is 'all'"):
        full_slots(["last", "all"], 2)
    with pytest.raises(ValueError, match="1 options for a state of 2 slots"):
        full_slots(["last"], 2)


@pytest.mark.parametrize("tokens", ["ab", [1, 2], [(1,), (2,)], [None, []], None, {1: []}], ids=repr)
def test_what_is_no_list_of_lists_is_refused(tokens: Any) -> None:
    with pytest.raises(ValueError, match="tokens is a list of lists"):
        check_lists(tokens, 2)


def test_lists_of_a_kind_are_lists() -> None:
    class Ids(list[int]):
        """A list that knows more."""

    check_lists((Ids([1]), []), 2)
