"""Weights that threads read ahead of a device: in order, and what is at fault is said."""

import threading
from collections.abc import Callable
from functools import partial
from time import sleep

import numpy as np
import pytest

from rwkvgraph.errors import LoadError
from rwkvgraph.model import Model
from rwkvgraph.models import loading
from rwkvgraph.models.loading import MOST_THREADS, ahead
from rwkvgraph.op import Array


def number(at: int, begun: list[int]) -> Array:
    begun.append(at)
    sleep(0.002 * (at % 3))
    if at == 7:
        raise LoadError("the seventh is at fault")
    return np.array(at)


def jobs(count: int, begun: list[int]) -> list[Callable[[], Array]]:
    return [partial(number, at, begun) for at in range(count)]


def test_what_is_read_ahead_comes_in_order() -> None:
    assert [int(value) for value in ahead(jobs(7, []))] == list(range(7))


def test_only_a_few_are_read_ahead() -> None:
    begun: list[int] = []
    for at, _ in enumerate(ahead(jobs(7, begun))):
        assert len(begun) <= at + MOST_THREADS + 2


def test_a_fault_comes_in_its_place_and_ends_the_threads() -> None:
    came: list[Array] = []
    begun: list[int] = []
    before = threading.active_count()
    with pytest.raises(LoadError, match="the seventh"):
        came.extend(ahead(jobs(100, begun)))
    assert len(came) == 7
    assert len(begun) < 20
    assert threading.active_count() == before


@pytest.mark.parametrize("size", [1, 1 << 10])
def test_pieces_of_any_size_make_the_same_model(
    small_tensors: dict[str, Array], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    whole = Model.load(small_tensors, "cpu")
    monkeypatch.setattr(loading, "PIECE_BYTES", size)
    cut = Model.load(small_tensors, "cpu")
    one, other = (model.run([[1, 2, 3]], model.state())[0] for model in (whole, cut))
    np.testing.assert_array_equal(one, other)
