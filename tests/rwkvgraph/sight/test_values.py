"""Statistics and drifts of values: what numpy says of all tokens at once, wherever a prompt is cut."""

import math
from functools import reduce
from itertools import pairwise
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from rwkvgraph.op import Array
from rwkvgraph.sight.drift import (
    NO_DRIFT,
    NO_LOGITS,
    Drift,
    Jump,
    Logits,
    divergence,
    drift_of,
    first_above,
    first_unlike,
    largest_jump,
    logits_of,
    probability,
    same_tops,
)
from rwkvgraph.sight.values import NOTHING, Place, statistics_of

ROUNDING = 1e-12
"""Relative, of sums of at most 64 float64 numbers taken in another order."""

SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8)
ANY = arrays(np.float32, SHAPES, elements=st.floats(width=32))
NUMBERS = st.floats(-(2.0**60), 2.0**60, width=32)  # squares of all sizes, no overflow in a float64 sum


@st.composite
def cut(draw: st.DrawFn) -> tuple[Array, list[int]]:
    """Rows, and where they are cut."""
    rows = draw(ANY)
    return rows, sorted(draw(st.sets(st.integers(1, len(rows)))))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Array, Array, int]:
    """Two arrays of one shape, and where both are cut."""
    shape = draw(SHAPES)
    a, b = (draw(arrays(np.float32, shape, elements=NUMBERS)) for _ in range(2))
    return a, b, draw(st.integers(0, shape[0]))


def pieces(rows: Array, cuts: list[int]) -> list[tuple[int, Array]]:
    edges = [0, *cuts, len(rows)]
    return [(start, rows[start:end]) for start, end in pairwise(edges) if end > start]


@given(cut())
def test_statistics_do_not_depend_on_where_a_prompt_is_cut(case: tuple[Array, list[int]]) -> None:
    rows, cuts = case
    whole = statistics_of(rows)
    joined = reduce(add, (statistics_of(part, start) for start, part in pieces(rows, cuts)), NOTHING)
    assert (joined.count, joined.nans, joined.infinities) == (whole.count, whole.nans, whole.infinities)
    assert joined.largest == whole.largest
    assert repr(joined.first_not_finite) == repr(whole.first_not_finite)  # as text, in which NaN equals NaN
    scale = float(np.abs(rows[np.isfinite(rows)].astype(np.float64)).sum())
    assert joined.total == pytest.approx(whole.total, abs=ROUNDING * scale)
    assert joined.squares == pytest.approx(whole.squares, rel=ROUNDING)


def test_statistics_are_those_of_numpy(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((7, 30)).astype(np.float32)
    found = statistics_of(rows, 100)
    token, channel = np.unravel_index(np.abs(rows).argmax(), rows.shape)
    assert found.mean == pytest.approx(rows.astype(np.float64).mean(), rel=ROUNDING)
    assert found.rms == pytest.approx(np.sqrt((rows.astype(np.float64) ** 2).mean()), rel=ROUNDING)
    assert found.largest == Place(float(rows[token, channel]), 100 + int(token), int(channel))
    assert (found.nans, found.infinities, found.first_not_finite) == (0, 0, None)


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    rows = np.array([[1, -3, 2], [np.inf, 0, np.nan], [-np.inf, np.nan, 2]], np.float32)
    found = statistics_of(rows, 10)
    assert (found.count, found.nans, found.infinities, found.finite) == (9, 2, 2, 5)
    assert found.mean == pytest.approx(2 / 5)
    assert found.rms == pytest.approx(math.sqrt(18 / 5))
    assert found.largest == Place(-3.0, 10, 1)
    assert found.first_not_finite == Place(math.inf, 11, 0)


def test_a_value_without_any_number_has_no_statistics() -> None:
    found = statistics_of(np.full((2, 2), np.nan, np.float32))
    assert math.isnan(found.mean)
    assert math.isnan(found.rms)
    assert found.largest is None


def test_the_largest_squares_of_float32_do_not_overflow() -> None:
    largest = np.finfo(np.float32).max
    assert statistics_of(np.full((1, 4), largest, np.float32)).rms == pytest.approx(float(largest))


@given(pairs())
def test_drift_does_not_depend_on_where_a_prompt_is_cut(case: tuple[Array, Array, int]) -> None:
    a, b, at = case
    whole, joined = drift_of(a, b), NO_DRIFT + drift_of(a[:at], b[:at]) + drift_of(a[at:], b[at:], at)
    assert joined.relative == pytest.approx(whole.relative, rel=1e-9)
    assert joined.largest == whole.largest
    assert joined.unlike == whole.unlike == 0


def test_drift_is_that_of_numpy(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((2, 5, 20))
    found = drift_of(a.astype(np.float32), b.astype(np.float32))
    a, b = (x.astype(np.float32).astype(np.float64) for x in (a, b))
    token, channel = np.unravel_index(np.abs(b - a).argmax(), a.shape)
    assert found.relative == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), rel=ROUNDING)
    assert found.cosine == pytest.approx(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-9)
    assert found.largest == Place((b - a)[token, channel], int(token), int(channel))


@pytest.mark.parametrize(
    ("first", "second", "relative"),
    [
        ([0, 0], [0, 0], 0.0),
        ([0, 0], [0, 1], math.inf),
        ([3, 4], [3, 4], 0.0),
        ([3, 4], [0, 0], 1.0),
        ([np.nan, 1], [np.nan, 1], 0.0),
        ([np.inf, 1], [np.inf, 1], 0.0),
        ([np.inf, 1], [-np.inf, 1], math.inf),
        ([np.nan, 1], [0, 1], math.inf),
        ([1, 1], [1, np.inf], math.inf),
    ],
)
def test_zeros_and_what_is_not_finite_drift_only_where_they_differ(
    first: list[float], second: list[float], relative: float
) -> None:
    a, b = np.array([first], np.float32), np.array([second], np.float32)
    assert drift_of(a, b).relative == relative


def drifting(**relative: float) -> dict[str, Drift]:
    """Values of size 1 that drift so much."""
    return {name: Drift(1.0, 1.0, 1.0, much * much, None, 0) for name, much in relative.items()}


def test_the_first_above_the_threshold_is_the_first_in_order() -> None:
    found = drifting(a=0.0, b=0.02, c=0.5, d=0.9)
    assert first_unlike(found) == "b"
    assert first_above(found, 0.1) == "c"
    assert first_above(found, 0.9) is None


def test_a_jump_is_the_largest_growth_and_none_where_all_is_even() -> None:
    assert largest_jump(drifting(a=0.25, b=0.5, c=4.0, d=6.0), "abcd") == Jump("b", "c", 8.0)
    assert largest_jump(drifting(a=0.01, b=0.012, c=0.015), "abc") is None
    assert largest_jump(drifting(a=0.0, b=0.4), "ab") is None  # the first drift says that already


def test_divergence_is_zero_for_the_same_and_else_that_of_the_definition() -> None:
    a, b = np.log(np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]], np.float32))
    assert divergence(a, a + 3) == pytest.approx(0, abs=1e-6)  # softmax of float32 logits, moved by 3
    assert divergence(a, b) == pytest.approx(0.25 * math.log(2), rel=1e-6)  # logits were rounded to float32
    assert probability(a, 0) == pytest.approx(0.5, rel=1e-6)


def test_logits_that_are_not_finite_have_no_divergence() -> None:
    a, b = np.zeros(3, np.float32), np.array([0, np.nan, 0], np.float32)
    assert math.isnan(divergence(a, b))
    assert math.isnan(probability(b, 0))


def test_top_tokens_are_compared_position_by_position() -> None:
    a = NO_LOGITS + logits_of(np.eye(3, dtype=np.float32)) + logits_of(np.eye(3, dtype=np.float32)[1:2])
    assert a.tops == (0, 1, 2, 1)
    assert same_tops(a, Logits((0, 2, 2, 1), a.last)) == 3
