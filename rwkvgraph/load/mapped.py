"""Tensors of a file that is mapped into memory: nothing is read before it is asked for.

The formats' modules say where in the file each tensor lies; here that is checked, and read.
"""

from __future__ import annotations

import math
import mmap
import os
import stat
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rwkvgraph.errors import LoadError
from rwkvgraph.load.arrays import as_halves, lacking
from rwkvgraph.load.narrowing import narrowed
from rwkvgraph.op import Array

MAPPED_BYTES = 64 << 20
"""Bytes read before a file is mapped anew: what was read of a mapping counts as this process's memory."""

ELEMENTS: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "BF16": np.dtype("<u2"), "F32": np.dtype("<f4")}
"""Element types that are read, by safetensors' names, and as what numpy sees them: it has no bfloat16."""

MOST_TENSORS = 10_000
"""A model of 61 layers has 2,500; so many are opened in a tenth of a second."""
MOST_AXES = 8
MOST_NAME = 256


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies in a file: its element type, shape, strides in elements and first byte."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @property
    def element(self) -> np.dtype[Any]:
        """Its elements as numpy sees them."""
        return ELEMENTS[self.dtype]

    @property
    def end(self) -> int:
        """The byte after its last."""
        if 0 in self.shape:
            return self.offset
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return self.offset + (last + 1) * self.element.itemsize


class MappedReader:
    """A model file. is_torch: it was written by `torch.save`."""

    def __init__(self, file: MappedFile, tensors: Mapping[str, Stored], is_torch: bool) -> None:
        self.path = file.path
        self.is_torch = is_torch
        self._file = file
        self._tensors = dict(tensors)

    def names(self) -> list[str]:
        """Every tensor's name."""
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape. Raises LoadError if the file lacks it."""
        return self._stored(name).shape

    def rows(self, name: str, start: int, stop: int) -> Array:
        """Rows `start` to `stop` of a tensor's first axis: float16 for F16, float32 for BF16 and F32."""
        part = self._part(name, start, stop)
        return widened(self._file.view(part), part.dtype)

    def halves(self, name: str, start: int, stop: int) -> Array:
        """Rows as float16."""
        part = self._part(name, start, stop)
        view = self._file.view(part)
        if part.dtype != "BF16":
            return as_halves(widened(view, part.dtype))
        return narrowed(np.ascontiguousarray(view).reshape(-1)).reshape(part.shape)

    def _part(self, name: str, start: int, stop: int) -> Stored:
        stored = self._stored(name)
        shape, strides = stored.shape or (1,), stored.strides or (1,)
        start, stop, _ = slice(start, stop).indices(shape[0])
        return Stored(
            stored.dtype,
            (max(0, stop - start), *shape[1:]),
            strides,
            stored.offset + start * strides[0] * stored.element.itemsize,
        )

    def _stored(self, name: str) -> Stored:
        if name not in self._tensors:
            raise lacking(self.path, name)
        return self._tensors[name]


class MappedFile:
    """A file, opened once and mapped anew after every `MAPPED_BYTES` that were read. Raises LoadError."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._descriptor = _open(path)
        weakref.finalize(self, os.close, self._descriptor)
        self.bytes = os.fstat(self._descriptor).st_size
        self._read = 0
        if not self.bytes:
            raise LoadError(f"{path} has 0 bytes; nothing was written to it, or it was not fetched")
        self.data = self._map()

    def view(self, part: Stored) -> Array:
        """What lies there, in the file's own element type. Copy it: while it lives, so does its mapping."""
        if 0 in part.shape:
            return np.empty(part.shape, part.element)
        if self._read > MAPPED_BYTES:
            self.data, self._read = self._map(), 0
        self._read += part.end - part.offset
        strides = [stride * part.element.itemsize for stride in part.strides]
        return np.ndarray(part.shape, part.element, self.data, part.offset, strides)

    def _map(self) -> mmap.mmap:
        return mmap.mmap(self._descriptor, self.bytes, access=mmap.ACCESS_READ)


def widened(values: Array, dtype: str) -> Array:
    """A copy to calculate with: float16 and float32 as they are, bfloat16 as float32, exactly."""
    if dtype != "BF16":
        return values.astype(np.float16 if dtype == "F16" else np.float32, order="C")
    bits = values.astype(np.uint32, order="C")
    bits <<= 16
    return bits.view(np.float32)


def check_name(path: str, name: str) -> None:
    """Raise LoadError for a name that could not be said in an error."""
    if not name or len(name) > MOST_NAME or not name.isprintable():
        raise LoadError(f"{path}: {shown(name)} is no tensor's name; damaged?")


def check_count(path: str, count: int) -> None:
    """Raise LoadError for so many tensors that opening the file would take noticeable time."""
    if count > MOST_TENSORS:
        raise LoadError(f"{path} has {count} tensors; a model has at most {MOST_TENSORS}")


def check_element(path: str, name: str, dtype: str) -> None:
    """Raise LoadError for an element type that no model is made of."""
    if dtype not in ELEMENTS:
        known = ", ".join(ELEMENTS)
        hint = "; cast it before it is saved: x.float()" if dtype == "F64" else ""
        raise LoadError(
            f"{path}: tensor {name} is {shown(dtype)[1:-1]}; a model's tensors are one of {known}{hint}"
        )


def check_sizes(path: str, name: str, sizes: object) -> tuple[int, ...]:
    """A shape or strides as a tuple. Raises LoadError unless they are few integers from 0 up."""
    if not isinstance(sizes, (tuple, list)) or len(sizes) > MOST_AXES:
        raise LoadError(f"{path}: tensor {name} has no shape of at most {MOST_AXES} axes; damaged?")
    if any(type(size) is not int or size < 0 for size in sizes):
        raise LoadError(f"{path}: the shape or strides of tensor {name} are not all integers from 0 up")
    if math.prod(size or 1 for size in sizes) > 1 << 48:
        raise LoadError(f"{path}: the shape of tensor {name} has more elements than any file; damaged?")
    return tuple(sizes)


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a tensor that lies in row-major order without gaps."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def shown(text: object) -> str:
    """A foreign text, as an error can hold it: short, printable, on one line."""
    kind = type(text).__name__
    whole = ascii(text) if isinstance(text, (str, bytes)) else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
    return whole if len(whole) <= 64 else f"{whole[:60]} …{whole[-1]}"


def _open(path: Path) -> int:
    """A descriptor of a file to be read. Raises LoadError for what is no file; a pipe would never open."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise LoadError(f"{path} is a folder; give the model file in it")
        if not stat.S_ISREG(mode):
            raise LoadError(f"{path} is no regular file, and only those can be mapped")
        return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise LoadError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
