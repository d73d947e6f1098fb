"""Weights on their way from a file to a device: some threads read and convert ahead of who takes them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from math import prod

from rwkvgraph.load.reader import Reader
from rwkvgraph.models.arena import Arena, Upload
from rwkvgraph.op import Array, Buffer

PIECE_BYTES = 4 << 20
"""Most bytes of a weight tensor, as float32, that a thread has in hand. Larger ones only take more memory."""
MOST_THREADS = 4
"""One alone reads 1 GB/s of bfloat16 or 2 of float16, on 2 busy cores of an AMD EPYC; devices take more."""

Piece = tuple[int, Array]
"""The first element in a buffer, and elements from there on."""
Part = tuple[Upload, int, int]
"""Rows of an upload, from one to before another."""


def load_weights(reader: Reader, arena: Arena, load: Callable[[Buffer, Iterator[Piece]], None]) -> None:
    """Let `load` take each buffer's pieces, some megabytes at a time.

    Raises the LoadError of the first that is at fault.
    """
    by_buffer: dict[Buffer, list[Part]] = {buffer: [] for buffer in arena.buffers}
    for upload in arena.uploads:
        by_buffer[upload.buffer] += _parts(reader, upload)
    pieces = _pieces(reader, [part for parts in by_buffer.values() for part in parts])
    for buffer, parts in by_buffer.items():
        load(buffer, islice(pieces, len(parts)))


def _parts(reader: Reader, upload: Upload) -> Iterator[Part]:
    shape = reader.shape(upload.name)
    row = shape[1:] if upload.index is None else shape[2:]
    step = max(1, PIECE_BYTES // max(1, prod(row) * 4))
    for start in range(upload.start, upload.stop, step):
        yield upload, start, min(start + step, upload.stop)


def _pieces(reader: Reader, parts: Sequence[Part]) -> Iterator[Piece]:
    values = ahead(partial(upload.read, reader, start, stop) for upload, start, stop in parts)
    at = 0
    for (upload, start, _), elements in zip(parts, values, strict=True):
        at = upload.offset if start == upload.start else at
        yield at, elements
        at += elements.size


def ahead(jobs: Iterable[Callable[[], Array]]) -> Iterator[Array]:
    """What the jobs give, in order, while threads are at the few that follow."""
    count = min(MOST_THREADS, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(count, "rwkvgraph-load")
    waiting: deque[Future[Array]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
