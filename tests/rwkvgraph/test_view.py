"""Views against numpy: the same elements, in the same order, from the same memory."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rwkvgraph.errors import ShapeError
from rwkvgraph.interpret import see
from rwkvgraph.op import Array
from rwkvgraph.view import (
    LANES,
    B,
    Dim,
    O,
    T,
    View,
    broadcast_shapes,
    resolve,
    round_up,
    row_width,
    split_rows,
)

SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)
TOKENS = 3


def memory(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """(elements as they lie in memory, numbered, padding too; the array that a whole view of them is)."""
    rows, inner = split_rows(shape)
    assert isinstance(rows, int)
    flat = np.arange(rows * row_width(shape))
    used = int(np.prod(inner))
    return flat, flat.reshape(rows, -1)[:, :used].reshape(shape) if shape else flat[0]


@st.composite
def indexes(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[int | slice, ...]:
    """An index of some leading axes, each an integer or a slice that is not empty."""
    parts: list[int | slice] = []
    for size in shape[: draw(st.integers(1, len(shape)))]:
        start = draw(st.integers(0, size - 1))
        if draw(st.booleans()):
            parts.append(start - size * draw(st.integers(0, 1)))
        else:
            parts.append(slice(start, draw(st.integers(start + 1, size + 2)), draw(st.integers(1, 3))))
    return tuple(parts)


@st.composite
def views(draw: st.DrawFn) -> tuple[View, Array, Array]:
    """A view after some steps of each kind; flat memory; the array that numpy makes by the same steps."""
    shape = draw(SHAPES)
    flat, array = memory(shape)
    view = View.whole(shape)
    for step in draw(st.lists(st.sampled_from(["index", "transpose", "broadcast"]), max_size=3)):
        if step == "index" and array.ndim:
            key = draw(indexes(array.shape))
            view, array = view.index(key), array[key]
        elif step == "transpose" and array.ndim:
            axes = tuple(draw(st.permutations(range(array.ndim))))
            view, array = view.transpose(axes), array.transpose(axes)
        elif step == "broadcast" and array.ndim < 4:
            wider = (
                draw(st.integers(1, 3)),
                *(size if size > 1 else draw(st.integers(1, 3)) for size in array.shape),
            )
            view, array = view.broadcast(wider), np.broadcast_to(array, wider)
    return view, flat, np.asarray(array)


@given(views())
def test_indexing_transposing_and_broadcasting_see_what_numpy_sees(sample: tuple[View, Array, Array]) -> None:
    view, flat, array = sample
    assert view.shape == array.shape
    np.testing.assert_array_equal(see(flat, view, {}), array)


@given(views())
def test_a_span_holds_every_element_that_a_view_sees(sample: tuple[View, Array, Array]) -> None:
    view, _, array = sample
    first, end = view.span()
    assert first == array.min()
    assert end == array.max() + 1


@st.composite
def factors(draw: st.DrawFn, count: int) -> tuple[int, ...]:
    """A shape of `count` elements."""
    shape: list[int] = []
    while count > 1 and len(shape) < 4:
        size = draw(st.sampled_from([n for n in range(1, count + 1) if count % n == 0]))
        shape.append(size)
        count //= size
    return (*shape, count)


@given(st.data(), views())
def test_a_reshape_is_numpys_or_refused_where_numpy_would_copy(
    data: st.DataObject, sample: tuple[View, Array, Array]
) -> None:
    view, flat, _ = sample
    array = see(flat, view, {})
    assume(array.ndim)
    shape = data.draw(factors(array.size))
    wanted = array.reshape(shape)
    if np.shares_memory(wanted, flat):
        np.testing.assert_array_equal(see(flat, view.reshape(shape), {}), wanted)
    else:
        with pytest.raises(ShapeError, match="cannot be viewed as"):
            view.reshape(shape)


@given(SHAPES, SHAPES)
def test_shapes_broadcast_together_as_numpys_do(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    try:
        wanted = np.broadcast_shapes(a, b)
    except ValueError:
        with pytest.raises(ShapeError, match="do not broadcast together"):
            broadcast_shapes(a, b)
        return
    assert broadcast_shapes(a, b) == wanted
    assert View.whole(a).broadcast(wanted).shape == wanted


@pytest.mark.parametrize("shape", [(4,), (2, 3), (T, 6), (T, 2, 5), (B, 3, 3), (T,)])
def test_rows_of_a_whole_view_start_at_whole_lanes(shape: tuple[int | Dim, ...]) -> None:
    view = View.whole(shape)
    assert view.is_whole(shape)
    assert view.strides[-1] == 1 or shape == (T,)
    if len(shape) > 1:
        assert view.strides[0] == row_width(shape)
        assert view.strides[0] % LANES == 0


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        (-1, np.s_[-1]),
        (slice(-1, None), np.s_[-1:]),
        (slice(None), np.s_[:]),
        ((-1, slice(1, 3)), np.s_[-1, 1:3]),
    ],
)
def test_all_tokens_the_last_one_and_a_row_of_it_can_be_seen(key: object, wanted: Any) -> None:
    flat = np.arange(TOKENS * 8)
    view = View.whole((T, 6)).index(key)
    np.testing.assert_array_equal(see(flat, view, {T: TOKENS}, 8), flat.reshape(TOKENS, 8)[:, :6][wanted])


@pytest.mark.parametrize(
    "key", [0, 1, -2, slice(1, None), slice(None, 2), slice(-2, None), slice(None, None, 2)]
)
def test_other_tokens_cannot_be_seen_as_their_number_is_not_known(key: object) -> None:
    with pytest.raises(IndexError, match=r"symbolic axis T: .* only \[:\], \[-1\] and \[-1:\] exist"):
        View.whole((T, 4)).index(key)


def test_a_symbolic_axis_stays_first_and_whole() -> None:
    view = View.whole((T, 6))
    assert view.reshape((T, 2, 3)).strides == (8, 3, 1)
    assert view.reshape((T, 1, 6)).shape == (T, 1, 6)
    shapes: list[tuple[int | Dim, ...]] = [(6, T), (O, 6), (12,), (2, 3)]
    for shape in shapes:
        with pytest.raises(ShapeError):
            view.reshape(shape)
    with pytest.raises(ShapeError, match="only axis 0"):
        view.transpose((1, 0))
    with pytest.raises(ShapeError):
        view.broadcast((O, 6))


def test_padded_rows_cannot_be_seen_as_one() -> None:
    with pytest.raises(ShapeError, match=r"shape \(2, 3\) cannot be viewed as \(6,\); blit it"):
        View.whole((2, 3)).reshape((6,))
    assert View.whole((2, 4)).reshape((8,)).strides == (1,)


@pytest.mark.parametrize(
    "key", [3, -4, slice(2, 2), slice(3, 5), slice(None, None, -1), None, "x", (0, 0, 0)]
)
def test_an_index_that_is_no_view_is_refused(key: object) -> None:
    with pytest.raises(IndexError):
        View.whole((3, 3)).index(key)


def test_a_size_that_nobody_gave_is_named() -> None:
    with pytest.raises(ShapeError, match="dimension O is not known here"):
        resolve(O, {T: 3})
    assert (resolve(O, {O: 2}), resolve(7, {}), round_up(9, 4)) == (2, 7, 12)
