"""What sampling keeps, in which order it cuts, and that a seed gives the same tokens again."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rwkvgraph.draw import FIRST_GUESS, choose, kept, nearest, nucleus, pick, threefry
from rwkvgraph.errors import ShapeError
from rwkvgraph.sampler import Sampler

Logits = NDArray[np.float64]

DRAWS = 4000
FREQUENCY_TOLERANCE = 0.04  # five standard deviations of a frequency in 4000 draws, 5 * sqrt(0.25 / 4000)
P = np.array([0.5, 0.25, 0.125, 0.125])
"""Exact in binary, as are their sums."""

quarters = st.lists(st.integers(-40, 12), min_size=1, max_size=30).map(lambda numbers: np.array(numbers) / 4)


def frequencies(sampler: Sampler, logits: Logits) -> Logits:
    """How often each id comes in DRAWS draws, (V,)."""
    counts = Counter(sampler.sample(logits) for _ in range(DRAWS))
    return np.array([counts[token] for token in range(len(logits))]) / DRAWS


def expected(logits: Logits, temperature: float, top_p: float, top_k: int) -> Logits:
    """The probability of each id, by web-rwkv's order written down step by step."""
    p = np.exp(logits - logits.max())
    p /= p.sum()
    order = sorted(range(len(p)), key=lambda token: (-p[token], token))
    order = order[:top_k] if top_k else order
    kept, before = [], 0.0
    for token in order:
        if before <= top_p:
            kept.append(token)
        before += p[token]
    result: Logits = np.zeros(len(p))
    result[kept] = p[kept] ** (1 / temperature)
    result /= result.sum()
    return result


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("top_p", "top_k"), [(1.0, 0), (0.6, 0), (0.95, 0), (1.0, 2), (0.9, 3)])
def test_tokens_come_as_often_as_they_should(
    rng: np.random.Generator, temperature: float, top_p: float, top_k: int
) -> None:
    logits = rng.normal(0, 1.5, 8)
    sampler = Sampler(temperature, top_p, top_k, seed=1)
    difference = frequencies(sampler, logits) - expected(logits, temperature, top_p, top_k)
    assert np.abs(difference).max() < FREQUENCY_TOLERANCE


@settings(deadline=None)
@given(
    quarters,
    st.sampled_from([0.0, 0.3, 0.7, 0.99, 1.0]),
    st.integers(0, 31),
    st.sampled_from([0.3, 1.0, 3.0]),
)
def test_only_tokens_that_are_kept_are_drawn(
    logits: Logits, top_p: float, top_k: int, temperature: float
) -> None:
    sampler = Sampler(temperature, top_p, top_k, seed=0)
    possible = set(np.flatnonzero(expected(logits, temperature, top_p, top_k)))
    assert {sampler.sample(logits) for _ in range(20)} <= possible


def test_a_token_is_kept_while_those_before_it_have_at_most_top_p() -> None:
    below = -np.log(P / P.max())
    assert nucleus(below, 0.49, 4).tolist() == [0]
    assert nucleus(below, 0.51, 4).tolist() == [0, 1]
    assert nucleus(below, 0.76, 4).tolist() == [0, 1, 2]
    assert nucleus(below, 0.88, 4).tolist() == [0, 1, 2, 3]


def test_a_token_is_kept_where_those_before_it_have_exactly_top_p() -> None:
    assert nucleus(np.zeros(4), 0.5, 4).tolist() == [0, 1, 2]


def test_top_p_counts_probabilities_among_all_tokens_not_those_that_top_k_kept() -> None:
    assert nucleus(np.zeros(8), 0.25, 3).tolist() == [0, 1, 2]
    assert nucleus(np.zeros(8), 0.125, 3).tolist() == [0, 1]


def test_temperature_comes_after_the_cut_and_keeps_nothing_out_or_in() -> None:
    logits = np.log(P)
    for temperature in (0.1, 1.0, 100.0):
        sampler = Sampler(temperature, top_p=0.6, seed=3)
        assert {sampler.sample(logits) for _ in range(300)} <= {0, 1}
    assert {Sampler(100.0, 0.6, seed=seed).sample(logits) for seed in range(50)} == {0, 1}


@pytest.mark.parametrize("count", [1, 5, FIRST_GUESS - 1, FIRST_GUESS, FIRST_GUESS + 1, 4999, 5000])
def test_the_nearest_are_found_in_order_and_ties_by_id(rng: np.random.Generator, count: int) -> None:
    below = np.round(abs(rng.normal(0, 3, 5000)), 1)  # a hundred values: many ties
    wanted = sorted(range(5000), key=lambda token: (below[token], token))[:count]
    assert nearest(below, count).tolist() == wanted


@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.9, 0.999, 0.999999])
@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0])
def test_the_nucleus_does_not_depend_on_how_many_tokens_were_sorted(
    rng: np.random.Generator, top_p: float, spread: float
) -> None:
    logits = rng.normal(0, spread, 20_000)
    below = logits.max() - logits
    order = np.argsort(below, kind="stable")
    p = np.exp(-below[order])
    before = np.concatenate([[0], np.cumsum(p[:-1])]) / p.sum()
    assert nucleus(below, top_p, len(below)).tolist() == order[before <= top_p].tolist()


@pytest.mark.parametrize(
    "sampler", [Sampler(temperature=0), Sampler(top_p=0), Sampler(top_k=1), Sampler(temperature=1e-320)]
)
def test_greedy_takes_the_best_and_of_equals_the_lowest_id(sampler: Sampler) -> None:
    assert sampler.sample(np.array([0.0, 2.0, 7.0, 1.0])) == 2
    if sampler.temperature in (0, 1.0):
        assert sampler.sample(np.array([1.0, 5.0, 5.0, 5.0])) == 1


@pytest.mark.parametrize("temperature", [1e-3, 1.0, 1e300])
def test_extreme_logits_and_temperatures_still_pick(temperature: float) -> None:
    logits = np.array([-1e308, 1e308, -np.inf, 0.0])
    assert Sampler(temperature, seed=0).sample(logits) in {0, 1, 3}
    assert Sampler(temperature, top_p=0.9, seed=0).sample(logits) == 1


def test_a_token_of_minus_infinity_is_never_drawn(rng: np.random.Generator) -> None:
    logits = np.full(1000, -np.inf)
    allowed = {3, 500, 999}
    logits[list(allowed)] = rng.normal(size=3)
    for top_k, top_p in ((0, 1.0), (600, 1.0), (0, 0.99), (600, 0.99)):
        sampler = Sampler(2.0, top_p, top_k, seed=5)
        assert {sampler.sample(logits) for _ in range(100)} == allowed


def test_drawing_never_takes_a_weight_of_zero() -> None:
    weights = np.array([0.0, 0.3, 0.0, 0.1, 0.2, 0.0])
    almost_one = float(np.nextafter(1, 0))
    assert pick(weights, 0.0) == 1
    assert pick(weights, almost_one) == 4
    assert pick(np.array([1.0, 1.0, 0.0]), 0.5) == 1


def test_the_last_weight_is_drawn_whatever_the_sum_rounds_to(rng: np.random.Generator) -> None:
    almost_one = float(np.nextafter(1, 0))
    assert {pick(weights, almost_one) for weights in 1 + rng.random((1000, 3))} == {2}
    assert {pick(np.array([2.0**power]), almost_one) for power in range(20)} == {0}


def test_a_seed_gives_the_same_tokens_again_and_another_seed_others(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(50, 300))
    one, again, other = (
        [s.sample(row) for row in logits] for s in (Sampler(seed=7), Sampler(seed=7), Sampler(seed=8))
    )
    assert one == again
    assert one != other


def test_without_a_seed_two_samplers_differ(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(50, 300))
    one, other = Sampler(), Sampler()
    assert [one.sample(row) for row in logits] != [other.sample(row) for row in logits]


def test_the_tokens_of_a_seed_are_these_on_every_machine() -> None:
    logits = np.arange(16) / 4
    sampler = Sampler(0.8, 0.9, 12, seed=2024)
    assert [sampler.sample(logits) for _ in range(12)] == [14, 14, 13, 10, 15, 15, 15, 12, 14, 14, 15, 15]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_logits_of_any_number_type_are_taken_and_an_int_comes_back(dtype: type) -> None:
    token = Sampler(top_k=3, seed=0).sample(np.arange(10).astype(dtype))
    assert type(token) is int
    assert token in {7, 8, 9}


def test_logits_are_left_as_they_were(rng: np.random.Generator) -> None:
    logits = rng.normal(size=2000)
    before = logits.copy()
    Sampler(0.7, 0.9, 50, seed=0).sample(logits)
    np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    ("logits", "complaint"),
    [
        ([0.0, np.nan, 1.0], "logit 1 of 3 is NaN.*new state"),
        ([0.0, np.nan, np.inf], "logit 1 of 3 is NaN"),
        ([0.0, np.inf], "the largest of 2 logits is inf.*overflowed"),
        ([-np.inf, -np.inf], "the largest of 2 logits is -inf.*at least one token"),
    ],
)
def test_logits_that_say_nothing_are_refused(temperature: float, logits: list[float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Sampler(temperature).sample(logits)


@pytest.mark.parametrize("shape", [(), (0,), (1, 5)])
def test_logits_are_one_row(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"wanted \(V,\)"):
        Sampler().sample(np.zeros(shape))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("temperature", value) for value in (-0.1, np.nan, np.inf)),
        *(("top_p", value) for value in (-0.1, 1.1, np.nan)),
        *(("top_k", value) for value in (-1, 2.5, np.inf)),
        *(("seed", value) for value in (-1, 1 << 64)),
        *(("min_p", value) for value in (-0.1, 1.1, np.nan)),
        *((name, value) for name in ("presence", "frequency") for value in (np.inf, np.nan)),
        *(("decay", value) for value in (-0.1, 1.1, np.nan)),
    ],
)
def test_parameters_out_of_range_are_refused_when_they_are_given(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name} is {value}, wanted"):
        Sampler(**{name: value})  # type: ignore[arg-type]  # some are floats where ints are wanted


def test_a_sampler_prints_its_parameters() -> None:
    cuts = "temperature=0.5, top_p=0.9, top_k=3, seed=7, min_p=0.1"
    wanted = f"Sampler({cuts}, presence=0.0, frequency=0.2, decay=1)"
    assert repr(Sampler(0.5, 0.9, 3, 7, 0.1, frequency=0.2, decay=1)) == wanted


@pytest.mark.parametrize(
    ("key", "counter", "words"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_random_words_are_those_of_the_papers_own_library(
    key: tuple[int, int], counter: tuple[int, int], words: tuple[int, int]
) -> None:
    assert threefry(key, counter) == words


def test_a_token_is_kept_down_to_min_p_of_the_best() -> None:
    below = -np.log(np.array([0.5, 1.0, 0.25, 0.125]))
    for min_p, wanted in ((0.26, [0, 1]), (0.24, [0, 1, 2]), (0.0, [0, 1, 2, 3]), (1.0, [1])):
        assert kept(below, 0, 1.0, Sampler(min_p=min_p).reach).tolist() == wanted


def test_a_word_says_how_far_along_the_kept_tokens_in_order_of_their_ids() -> None:
    below = -np.log(np.array([0.5, 1.0, 0.25, 0.25]))
    drawn = [choose(below, 1.0, 0, 1.0, np.inf, word << 29) for word in range(8)]
    assert drawn == [0, 0, 1, 1, 1, 1, 2, 3]


def test_penalties_are_those_of_chat_rwkv() -> None:
    """Against its loop over a dictionary, written down again."""
    sampler = Sampler(presence=0.3, frequency=0.5, decay=0.9)
    seen = np.zeros(6, np.float32)
    logits = np.arange(6, dtype=np.float32)
    occurrence: dict[int, float] = {}
    for token in (3, 1, 3, 5, 0, 3, 3):
        wanted = logits.copy()
        for known, count in occurrence.items():
            wanted[known] -= 0.3 + count * 0.5
        np.testing.assert_allclose(sampler.penalise(logits, seen), wanted, rtol=1e-6)
        occurrence = {known: count * 0.9 for known, count in occurrence.items()}
        occurrence[token] = occurrence.get(token, 0.0) + 1
        sampler.remember(seen, token)


def test_a_token_of_long_ago_is_forgotten() -> None:
    sampler = Sampler(presence=1.0, decay=0.5)
    seen = np.zeros(3, np.float32)
    sampler.remember(seen, 0)
    for _ in range(101):
        sampler.remember(seen, 1)
    assert seen[0] == 0
    assert seen[1] > 0


def test_each_text_has_random_numbers_of_its_own(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(50, 300))
    sampler = Sampler(seed=7)
    texts = [sampler.begin(), sampler.begin()]
    first, second = ([text.sample(row) for row in logits] for text in texts)
    again = [Sampler(seed=7).begin()]
    assert first == [again[0].sample(row) for row in logits] != second
