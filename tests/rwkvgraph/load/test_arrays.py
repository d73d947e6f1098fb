"""Arrays at hand are read as a file is; what is neither a path, arrays nor a reader is refused in a line."""

from typing import Any

import numpy as np
import pytest

from rwkvgraph.errors import LoadError
from rwkvgraph.load import open_model
from rwkvgraph.load.mapped import MappedReader
from tests.rwkvgraph.load.test_faults import check_line


@pytest.mark.parametrize(
    ("given", "found"), [("f2", "f2"), ("f4", "f4"), ("f8", "f4"), (">f2", "f2"), (">f4", "f4")]
)
def test_arrays_are_read_in_their_precision(given: str, found: str) -> None:
    rows = open_model({"x": np.arange(4).astype(given)}).rows("x", 1, 3)
    np.testing.assert_array_equal(rows, np.array([1, 2], found), strict=True)


BAD_ARRAYS = {
    "a list": ({"x": [1.0]}, "tensor x is of type list; give a numpy array"),
    "None": ({"x": None}, "tensor x is of type NoneType; give a numpy array"),
    "a number as a name": ({1: np.zeros(3)}, "a tensor's name is a str; given int 1"),
    "bytes as a name": ({b"x": np.zeros(3)}, "a tensor's name is a str; given bytes b'x'"),
    "nothing": ({}, "has no tensors, so it is not a model that can be run"),
}


@pytest.mark.parametrize(("given", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_a_dict_of_something_else_is_refused(given: Any, message: str) -> None:
    with pytest.raises(LoadError, match=f"arrays in memory.*{message}") as caught:
        open_model(given)
    check_line(caught.value)


@pytest.mark.parametrize("given", [None, 5, b"x.pth", [1], {1}, object(), MappedReader])
def test_what_is_no_source_is_refused(given: Any) -> None:
    message = "no model is loaded from .*; give a path, a dict of arrays or a Reader"
    with pytest.raises(LoadError, match=message) as caught:
        open_model(given)
    check_line(caught.value)


@pytest.mark.filterwarnings("error")
def test_a_number_that_float32_cannot_hold_is_named() -> None:
    reader = open_model({"x": np.array([1, -1e300]), "y": np.array([np.inf, 1e-300])})
    with pytest.raises(LoadError, match=r"tensor x holds -1e\+300, too large for float32"):
        reader.rows("x", 0, 2)
    assert reader.rows("x", 0, 1).tolist() == [1]
    assert reader.rows("y", 0, 2).tolist() == [np.inf, 0]


def test_arrays_of_integers_are_refused() -> None:
    with pytest.raises(LoadError, match="tensor x is int64; a model's tensors are floats"):
        open_model({"x": np.arange(4)}).rows("x", 0, 1)
