"""Rows as float16: the same numbers as over float32, from every kind of file."""

from pathlib import Path

import numpy as np
import pytest

from rwkvgraph.load import convert, open_tensors
from rwkvgraph.load.narrowing import TOGETHER, narrowed


def over_float32(bits: np.ndarray) -> np.ndarray:
    """What numpy makes of bfloat16's bits."""
    with np.errstate(over="ignore"):
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float16)


def test_every_bfloat16_becomes_the_float16_that_numpy_makes_of_it() -> None:
    every = np.arange(1 << 16, dtype=np.uint16)
    np.testing.assert_array_equal(narrowed(every).view(np.uint16), over_float32(every).view(np.uint16))


@pytest.mark.parametrize("count", [0, 1, TOGETHER - 1, TOGETHER, TOGETHER + 1, 2 * TOGETHER + 7])
def test_any_number_of_them_is_taken(count: int) -> None:
    bits = np.random.default_rng(0).integers(0, 0x7F80, count).astype(np.uint16)
    np.testing.assert_array_equal(narrowed(bits), over_float32(bits))


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_halves_of_a_file_are_its_rows_rounded(dtype: str, tmp_path: Path, rng: np.random.Generator) -> None:
    values = {"x": rng.standard_normal((60, 7), np.float32), "y": rng.standard_normal((3, 4, 5), np.float32)}
    convert(values, tmp_path / "a.st", dtype)
    reader = open_tensors(tmp_path / "a.st")
    for name, (start, stop) in {"x": (5, 33), "y": (1, 3)}.items():
        halves = reader.halves(name, start, stop)
        assert halves.dtype == np.float16
        np.testing.assert_array_equal(halves, reader.rows(name, start, stop).astype(np.float16))
