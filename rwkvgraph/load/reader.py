"""Model files as named arrays, mapped into memory: nothing is read before it is asked for."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open

from rwkvgraph.errors import LoadError
from rwkvgraph.op import Array

MAPPED_BYTES = 64 << 20
"""Bytes read before a file is mapped anew: what was read of a mapping counts as this process's memory."""

_LFS = b"version https://git-lfs"


class Reader(Protocol):
    """A source of tensors: a file, or a dict of arrays behind `ArrayReader`."""

    path: str

    def names(self) -> list[str]:
        """Every tensor's name."""

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape. Raises LoadError if the file lacks it."""

    def rows(self, name: str, start: int, stop: int) -> Array:
        """Rows `start` to `stop` of a tensor's first axis, as float16."""


class SafetensorsReader:
    """A `.st` / `.safetensors` file in web-rwkv's naming. Tensors are float16."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        _check_file(path)
        self._file = _map(self.path)
        self._read = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        for name in self._file.keys():  # noqa: SIM118 - not a dict
            part = self._file.get_slice(name)
            if part.get_dtype() != "F16":
                raise LoadError(f"{path}: tensor {name} is {part.get_dtype()}; a model's tensors are F16")
            self._shapes[name] = tuple(part.get_shape())

    def names(self) -> list[str]:
        """Every tensor's name."""
        return list(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape. Raises LoadError if the file lacks it."""
        if name not in self._shapes:
            raise LoadError(f"{self.path} has no tensor {name}; it is needed for this model version")
        return self._shapes[name]

    def rows(self, name: str, start: int, stop: int) -> Array:
        """Rows `start` to `stop` of a tensor's first axis, as float16; only they are read."""
        self.shape(name)
        if self._read > MAPPED_BYTES:
            self._file, self._read = _map(self.path), 0
        values = np.asarray(self._file.get_slice(name)[start:stop])
        self._read += values.nbytes
        return values


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
            raise LoadError(f"{self.path}: no tensor {name}; it is needed for this model version")
        return tuple(self._tensors[name].shape)

    def rows(self, name: str, start: int, stop: int) -> Array:
        """Rows `start` to `stop` of a tensor's first axis, as float16."""
        self.shape(name)
        return np.asarray(self._tensors[name][start:stop], np.float16)


def open_model(source: str | Path | Mapping[str, Array] | Reader) -> Reader:
    """A reader of a path, of a dict of arrays, or the reader itself.

    Raises LoadError for what cannot be read.
    """
    if isinstance(source, Mapping):
        return ArrayReader(source)
    if isinstance(source, (str, Path)):
        return SafetensorsReader(Path(source))
    return source


def _map(path: str) -> Any:
    """A safetensors file, mapped into memory. Raises LoadError."""
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise LoadError(f"{path} is not a safetensors file: {error}") from error


def _check_file(path: Path) -> None:
    """Raise LoadError for the faults that a user can mend: one line saying which."""
    if path.is_dir():
        raise LoadError(f"{path} is a folder; give the model file in it")
    try:
        with path.open("rb") as file:
            head = file.read(64)
            size = path.stat().st_size
    except OSError as error:
        raise LoadError(f"cannot read {path}: {error.strerror}") from error
    if head.startswith(_LFS):
        raise LoadError(f"{path} is a git-lfs pointer, not the model; run `git lfs pull` where it came from")
    if head.startswith(b"PK\x03\x04"):
        raise LoadError(f"{path} is a zip file, as .pth models are; convert it to safetensors first")
    if size < 8:
        raise LoadError(f"{path} has {size} bytes; a safetensors file has at least 8")
    (length,) = struct.unpack("<Q", head[:8])
    if length > size - 8:
        raise LoadError(
            f"{path}: its header would have {length} bytes, and the file has {size}; damaged or cut off?"
        )
