"""Telling models apart: a short digest of a model's numbers and of a sample of its weights."""

from __future__ import annotations

import hashlib
from math import prod

import numpy as np

from rwkvgraph.load.reader import Reader
from rwkvgraph.models.common import ModelInfo
from rwkvgraph.models.stack import is_unread

TABLES = ("emb.weight", "head.weight")
TABLE_ROWS = 5
"""Rows of a table that are looked at, evenly apart."""
MOST_NUMBERS = 1 << 16
"""Of a tensor that is looked at as a whole, and of a row of others."""


def fingerprint(reader: Reader, info: ModelInfo) -> str:
    """32 hexadecimal digits that are the same for the same model, whatever file it is in.

    SHA-256 of the model's numbers and, as float16, of every vector, the first row of every matrix and a few
    rows of the embedding and the head, in web-rwkv's names and shapes, which is how any file is read. So
    training of any tensor shows, unless it spares those rows. Reads some kilobytes a layer.
    """
    digest = hashlib.sha256()
    numbers = (info.num_layer, info.num_emb, info.num_hidden, info.num_vocab, info.num_head)
    digest.update(f"{info.version} {numbers} {sorted(info.custom.items())}".encode())
    for name in sorted(reader.names()):
        if is_unread(name):
            continue
        for start, stop in _rows(name, reader.shape(name)):
            values = reader.rows(name, start, stop).reshape(-1)[:MOST_NUMBERS]
            digest.update(f"{name} {start}".encode())
            with np.errstate(over="ignore"):
                digest.update(np.ascontiguousarray(values, np.float16).tobytes())
    return digest.hexdigest()[:32]


def _rows(name: str, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """(first, end) of the rows of a tensor that are looked at."""
    if name in TABLES:
        rows = np.linspace(0, max(shape[0] - 1, 0), TABLE_ROWS).astype(int).tolist()
        return [(row, row + 1) for row in rows]
    is_vector = len([size for size in shape if size != 1]) < 2
    return [(0, shape[0] if shape and is_vector and prod(shape) <= MOST_NUMBERS else 1)]
