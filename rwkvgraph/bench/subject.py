"""Which model is measured: a file's, or one that is only sizes, `v7:24x2048`, with noise for weights."""

from __future__ import annotations

import os
import re
from math import prod

from rwkvgraph.errors import DeviceError
from rwkvgraph.load.reader import Reader
from rwkvgraph.sight.shapes import HEAD_SIZE, VERSIONS, ShapeReader, shapes_of

VOCAB = 65536
SYNTHETIC = re.compile(r"(v[\d.]+):(\d+)x(\d+)(?::(\d+)(?::(\d+))?)?")


def synthetic(text: str) -> ShapeReader:
    """The model that `VERSION:LAYERSxWIDTH[:VOCAB[:HEAD]]` asks for. Raises ValueError for what is none."""
    found = SYNTHETIC.fullmatch(text)
    if found is None or found[1] not in VERSIONS:
        raise ValueError(
            f"--synthetic is {text!r}; it is VERSION:LAYERSxWIDTH[:VOCAB[:HEAD]], such as v7:24x2048 or "
            f"v6:12x768:4096:32; versions are {', '.join(VERSIONS)}"
        )
    layers, width = int(found[2]), int(found[3])
    vocab, head_size = int(found[4] or VOCAB), int(found[5] or HEAD_SIZE)
    return ShapeReader(shapes_of(found[1], layers, width, vocab, head_size), text)


def counts(text: str, option: str, least: int) -> tuple[int, ...]:
    """The numbers of `1,8,32`, each once. Raises ValueError for other text, and for numbers below `least`."""
    parts = text.split(",")
    if not all(re.fullmatch(r"-?\d+", part) for part in parts):
        raise ValueError(f"{option} is {text!r}; it is a number, or several with commas between: 1,8,32")
    found = dict.fromkeys(int(part) for part in parts)
    if min(found) < least:
        raise ValueError(f"{option} has {min(found)}; it is at least {least}")
    return tuple(found)


def weight_bytes(reader: Reader) -> int:
    """Bytes of all tensors as a device holds them: f16, save vectors, which are f32."""
    shapes = [reader.shape(name) for name in reader.names()]
    return sum(prod(shape) * (2 if len(shape) > 1 else 4) for shape in shapes)


def check_host(what: str, nbytes: int) -> None:
    """Raise DeviceError for more bytes than this machine has.

    For devices whose memory that is: software adapters hand out more than there is, and die of using it.
    """
    memory = host_memory()
    if memory is not None and nbytes > memory:
        raise DeviceError(
            f"{what} takes {nbytes / 1e9:.1f} GB; this machine has {memory / 1e9:.1f} GB. "
            "Take a smaller model, fewer slots (-b), or an adapter with memory of its own."
        )


def host_memory() -> int | None:
    """Bytes of this machine's memory; None where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
