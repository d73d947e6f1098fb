"""Writing a model anew as web-rwkv's converter does: safetensors, its names and shapes, one element type.

Tensor by tensor, a few megabytes at a time: the model is never in memory as a whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from rwkvgraph.errors import LoadError
from rwkvgraph.load.arrays import Reader
from rwkvgraph.load.mapped import ELEMENTS
from rwkvgraph.load.reader import Source, open_model
from rwkvgraph.load.safetensors_file import LENGTH
from rwkvgraph.op import Array
from rwkvgraph.writing import appearing

PIECE_BYTES = 16 << 20
"""Of a tensor in float32 that are in memory at once."""

METADATA = {"format": "pt"}
"""What torch's safetensors puts into a header, and web-rwkv's converter so too."""

ALIGNMENT = 8
"""The header ends in spaces, so that the data begins at a multiple of this."""

INFINITE = {"F16": 0x7C00, "BF16": 0x7F80}
"""The bits of infinity, where rounding can end there."""

LARGEST = {"F16": 65504.0, "BF16": 3.3895313892515355e38}
"""The largest number below it."""


def convert(
    source: Source,
    target: str | Path,
    dtype: str = "F16",
    names: str | None = None,
    force: bool = False,
    advance: Callable[[int], None] = lambda count: None,
) -> Reader:
    """Write a model of any file to `target` (.st), in web-rwkv's names and shapes. Gives the source's reader.

    dtype: F16, BF16 or F32. names: see `open_model`. force: overwrite. advance is told the bytes written, of
    `converted_bytes`. The file appears when it is complete. Raises LoadError for what cannot be read or
    written, for NaN and infinity, and for numbers that are too large for dtype.
    """
    if dtype not in ELEMENTS:
        raise ValueError(f"dtype is {dtype!r}; it is one of {', '.join(ELEMENTS)}")
    reader = open_model(source, names, with_states=True)
    with appearing(target, force) as file:
        file.write(header(reader, dtype))
        for name in sorted(reader.names()):
            for values in _pieces(reader, name):
                data = narrowed(values, dtype, f"{reader.path}: tensor {name}")
                file.write(data.data)
                advance(data.nbytes)
    return reader


def converted_bytes(reader: Reader, dtype: str) -> int:
    """Bytes of all tensors in an element type."""
    count = sum(math.prod(reader.shape(name)) for name in reader.names())
    return count * ELEMENTS[dtype].itemsize


def header(reader: Reader, dtype: str) -> bytes:
    """The file's first bytes. Tensors of one type are in the order of their names, as safetensors has it."""
    entries: dict[str, object] = {"__metadata__": METADATA}
    end = 0
    for name in sorted(reader.names()):
        shape = reader.shape(name)
        start, end = end, end + math.prod(shape) * ELEMENTS[dtype].itemsize
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return LENGTH.pack(len(text)) + text


def narrowed(values: Array, dtype: str, what: str) -> Array:
    """Numbers in an element type, rounded to nearest, ties to even. Raises LoadError, beginning with `what`.

    That is for NaN and infinity, and for numbers that would become infinite.
    """
    if not np.isfinite(values).all():
        raise LoadError(f"{what} holds NaN or infinity; trained too hot, or damaged")
    with np.errstate(over="ignore"):
        result = np.ascontiguousarray(_rounded(values, dtype))
    if values.dtype == result.dtype or dtype not in INFINITE:
        return result
    lost = (result.view(np.uint16) & 0x7FFF) == INFINITE[dtype]
    if lost.any():
        value, largest = values[lost][0], LARGEST[dtype]
        raise LoadError(
            f"{what} holds {value:g}; the largest {dtype} is {largest:g}: take another dtype (--dtype)"
        )
    return result


def _rounded(values: Array, dtype: str) -> Array:
    if dtype != "BF16":
        return values.astype(ELEMENTS[dtype])
    bits = values.astype(np.float32).view(np.uint32)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return nearest.astype(ELEMENTS[dtype])


def _pieces(reader: Reader, name: str) -> Iterator[Array]:
    """A tensor's rows, a few at a time."""
    shape = reader.shape(name) or (1,)
    step = max(1, PIECE_BYTES // max(1, 4 * math.prod(shape[1:])))
    for start in range(0, shape[0], step):
        yield reader.rows(name, start, min(start + step, shape[0]))
