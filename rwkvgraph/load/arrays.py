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

        float16 where it is stored so, float32 for all else. Only what is asked for is read.
        """


class ArrayReader:
    """Arrays at hand, by name, as a model: for tests and converters."""

    def __init__(self, tensors: Mapping[str, Array], path: str = "arrays in memory") -> None:
        self.path = path
        self._tensors = tensors

    def names(self) -> list[str]:
        """Every tensor's name."""
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape. Raises LoadError if there is none of that name."""
        if name not in self._tensors:
            raise lacking(self.path, name)
        return tuple(self._tensors[name].shape)

    def rows(self, name: str, start: int, stop: int) -> Array:
        """Rows `start` to `stop` of a tensor's first axis. Raises LoadError for arrays of no floats."""
        self.shape(name)
        values = np.asarray(self._tensors[name])
        if values.dtype.kind != "f":
            raise LoadError(f"{self.path}: tensor {name} is {values.dtype}; a model's tensors are floats")
        part = values.reshape(values.shape or (1,))[start:stop]
        return np.array(part, np.float16 if values.itemsize <= 2 else np.float32)


def lacking(path: str, name: str) -> LoadError:
    """The error for a tensor that is not there."""
    return LoadError(f"{path} has no tensor {name}; it is needed for this model version")
