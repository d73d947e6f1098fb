"""Telling models apart: a short digest of a model's numbers and of a sample of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from rwkvgraph.load.reader import Reader
from rwkvgraph.models.common import ModelInfo

VOCABULARY_ROWS = 5
"""Rows of the embedding and of the head that are looked at, evenly apart."""


def fingerprint(reader: Reader, info: ModelInfo) -> str:
    """32 hexadecimal digits that are the same for the same model, whatever file it is in.

    SHA-256 of the model's numbers and, as float16, of both norms of every layer and of the ends, the first
    row of every layer's two output matrices, and a few rows of the embedding and the head: all of them have
    one orientation in every format, and training moves all of them. Reads some kilobytes a layer.
    """
    digest = hashlib.sha256()
    numbers = (info.num_layer, info.num_emb, info.num_hidden, info.num_vocab, info.num_head)
    digest.update(f"{info.version} {numbers} {sorted(info.custom.items())}".encode())
    known = set(reader.names())
    for name, start, stop in _samples(info):
        if name in known:
            digest.update(f"{name} {start}".encode())
            with np.errstate(over="ignore"):
                digest.update(np.ascontiguousarray(reader.rows(name, start, stop), np.float16).tobytes())
    return digest.hexdigest()[:32]


def _samples(info: ModelInfo) -> Iterator[tuple[str, int, int]]:
    """(tensor, first row, row after the last) of what is looked at."""
    for row in np.linspace(0, info.num_vocab - 1, VOCABULARY_ROWS).astype(int).tolist():
        yield "emb.weight", row, row + 1
        yield "head.weight", row, row + 1
    layers = [f"blocks.{layer}" for layer in range(info.num_layer)]
    for norm in ["ln_out", "blocks.0.ln0", *(f"{layer}.ln{number}" for layer in layers for number in (1, 2))]:
        yield f"{norm}.weight", 0, info.num_emb
        yield f"{norm}.bias", 0, info.num_emb
    for layer in layers:
        yield f"{layer}.att.output.weight", 0, 1
        yield f"{layer}.ffn.value.weight", 0, 1
