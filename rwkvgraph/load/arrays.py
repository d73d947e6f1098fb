"""What tensors are read from: the protocol, and arrays at hand. Files that are mapped are in `mapped.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from rwkvgraph.errors import LoadError
from rwkvgraph.op import Array


class Reader(Protocol):
    """A source of tensors: a file, or a dict of arrays behind `ArrayReader`."""

    path: str

    def names(self) -> list[str]:
        """Every tensor's name."""

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape. Raises LoadError if the file lacks it."""

    def rows(self, name: str, start: int, stop: int) -> Array:
        """Rows `start` to `stop` of a tensor's first axis; of a single number, that number as (1,).

        float16 where it is stored so, float32 for all else. Only what is asked for is read. Several threads
        may ask at once.
        """

    def halves(self, name: str, start: int, stop: int) -> Array:
        """The same as float16, rounded to nearest: infinite where float16 ends."""


class ArrayReader:
    """Arrays at hand, by name, as a model: for tests and converters."""

    def __init__(self, tensors: Mapping[str, Array], path: str = "arrays in memory") -> None:
        self.path = path
        self._tensors = tensors

    def names(self) -> list[str]:
        """Every tensor's name. Raises LoadError for one that is no text."""
        for name in self._tensors:
            if not isinstance(name, str):
                raise LoadError(
                    f"{self.path}: a tensor's name is a str; given {type(name).__name__} {name!r:.40}"
                )
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape. Raises LoadError if there is none of that name, or it is no array."""
        if name not in self._tensors:
            raise lacking(self.path, name)
        array: object = self._tensors[name]
        if not (hasattr(array, "shape") and hasattr(array, "dtype")):
            raise LoadError(
                f"{self.path}: tensor {name} is of type {type(array).__name__}; give a numpy array"
            )
        return tuple(self._tensors[name].shape)

    def rows(self, name: str, start: int, stop: int) -> Array:
        """Rows `start` to `stop` of a tensor's first axis.

        Raises LoadError for arrays of no floats, and numbers that float32 cannot hold.
        """
        self.shape(name)
        values = np.asarray(self._tensors[name])
        if values.dtype.kind != "f":
            raise LoadError(f"{self.path}: tensor {name} is {values.dtype}; a model's tensors are floats")
        part = values.reshape(values.shape or (1,))[start:stop]
        with np.errstate(over="ignore"):
            rows = np.array(part, np.float16 if values.itemsize <= 2 else np.float32)
        if values.itemsize > rows.itemsize and (lost := np.isinf(rows) & np.isfinite(part)).any():
            raise LoadError(f"{self.path}: tensor {name} holds {part[lost][0]:g}, too large for float32")
        return rows

    def halves(self, name: str, start: int, stop: int) -> Array:
        """Rows as float16."""
        return as_halves(self.rows(name, start, stop))


def as_halves(rows: Array) -> Array:
    """Numbers as float16, rounded to nearest; themselves, if they are that."""
    with np.errstate(over="ignore"):
        return rows.astype(np.float16, copy=False)


def lacking(path: str, name: str) -> LoadError:
    """The error for a tensor that is not there."""
    return LoadError(f"{path} has no tensor {name}; it is needed for this model version")
