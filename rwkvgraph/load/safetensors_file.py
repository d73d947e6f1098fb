"""The safetensors format: eight bytes of length, a JSON header of so many bytes, then the tensors.

Format: https://github.com/huggingface/safetensors, "Format"; as its own reader does, gaps between tensors and
bytes after the last are refused.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from typing import Any

from rwkvgraph.errors import LoadError
from rwkvgraph.load.mapped import (
    Stored,
    check_count,
    check_element,
    check_name,
    check_sizes,
    contiguous,
    shown,
)

MOST_HEADER = 1 << 20
"""Bytes. A model of 61 layers has a quarter of that; parsing takes many times the header's memory."""

LENGTH = struct.Struct("<Q")


def read_safetensors(path: str, data: mmap.mmap) -> dict[str, Stored]:
    """Where the tensors of a safetensors file lie, in the header's order. Raises LoadError."""
    header, start = _header(path, data)
    check_count(path, len(header))
    size = len(data) - start
    tensors = {name: _tensor(path, name, entry, start, size) for name, entry in header.items()}
    _check_order(path, tensors, start, len(data))
    return tensors


def _header(path: str, data: mmap.mmap) -> tuple[dict[str, Any], int]:
    """The header without its metadata, and the first byte after it."""
    if len(data) < LENGTH.size:
        raise LoadError(f"{path} has {len(data)} bytes; a safetensors file has at least {LENGTH.size}")
    (length,) = LENGTH.unpack(data[: LENGTH.size])
    end = LENGTH.size + length
    if end > len(data):
        raise LoadError(
            f"{path}: its header would have {length} bytes, and the file has {len(data)}; damaged or cut off?"
        )
    if length > MOST_HEADER:
        raise LoadError(f"{path}: its header would have {length} bytes; a model's has at most {MOST_HEADER}")
    try:
        header = json.loads(data[LENGTH.size : end].decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise LoadError(
            f"{path} is not a safetensors file: its header is no JSON: {_reason(error)}"
        ) from error
    if not isinstance(header, dict):
        raise LoadError(f"{path} is not a safetensors file: its header is {shown(header)}, not an object")
    header.pop("__metadata__", None)
    return header, end


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{shown(name)} stands there twice")
        found[name] = value
    return found


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:80]


def _tensor(path: str, name: str, entry: object, start: int, size: int) -> Stored:
    """An entry of the header, checked against the `size` bytes that there are."""
    check_name(path, name)
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise LoadError(f"{path}: tensor {name} lacks its dtype, shape or data_offsets in the header")
    check_element(path, name, entry["dtype"] if isinstance(entry["dtype"], str) else "of no type")
    shape = check_sizes(path, name, entry["shape"])
    offsets = entry["data_offsets"]
    if not isinstance(offsets, list) or [type(offset) for offset in offsets] != [int, int]:
        raise LoadError(f"{path}: the data_offsets of tensor {name} are not two integers")
    first, last = offsets
    if not 0 <= first <= last <= size:
        place = shown(f"{first} to {last}")[1:-1]
        raise LoadError(f"{path}: tensor {name} lies in bytes {place} of {size}; damaged or cut off?")
    stored = Stored(entry["dtype"], shape, contiguous(shape), start + first)
    wanted = math.prod(shape) * stored.element.itemsize
    if last - first != wanted:
        raise LoadError(
            f"{path}: tensor {name} has {last - first} bytes; {entry['dtype']} {shape} takes {wanted}"
        )
    return stored


def _check_order(path: str, tensors: dict[str, Stored], start: int, end: int) -> None:
    """Raise LoadError unless the tensors follow each other, without a gap, to the end of the file."""
    at, before = start, "the header"
    for name, stored in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].end)):
        if stored.offset != at:
            fault = "overlaps" if stored.offset < at else "leaves a gap after"
            raise LoadError(f"{path}: tensor {name} {fault} {before}; damaged?")
        at, before = stored.end, name
    if at != end:
        raise LoadError(
            f"{path}: {end - at} bytes follow the last tensor; the file is damaged or another kind"
        )
