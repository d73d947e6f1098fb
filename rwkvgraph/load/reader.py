"""Opening what tensors are read from: files of any kind, arrays at hand, readers of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rwkvgraph.errors import LoadError
from rwkvgraph.load.arrays import ArrayReader as ArrayReader
from rwkvgraph.load.arrays import Reader as Reader
from rwkvgraph.load.convention import ConventionReader
from rwkvgraph.load.formats import open_file
from rwkvgraph.load.mapped import MappedReader, shown
from rwkvgraph.load.prefixes import without_prefix
from rwkvgraph.op import Array

READER_PARTS = ("path", "names", "shape", "rows")

Source = str | Path | Mapping[str, Array] | Reader


def open_tensors(source: Source) -> Reader:
    """A reader of a path or of a dict of arrays, or the reader itself: names and shapes as they are there.

    Raises LoadError for what cannot be read.
    """
    if isinstance(source, Mapping):
        return ArrayReader(source)
    if isinstance(source, (str, Path)):
        return open_file(Path(source))
    given: object = source
    if isinstance(given, type) or not all(hasattr(given, name) for name in READER_PARTS):
        raise LoadError(f"no model is loaded from {shown(given)}; give a path, a dict of arrays or a Reader")
    return source


def open_model(source: Source, names: str | None = None, with_states: bool = False) -> Reader:
    """As `open_tensors`, in web-rwkv's names and shapes whichever the source has, without wrappers' prefixes.

    names: "raw" (BlinkDL's) or "converted" (web-rwkv's), for a source that does not tell. with_states: the
    file's tuned states are read too, and their orientation has to be known. Raises LoadError
    for what cannot be read, has no tensors, does not tell, or cannot be expressed so; ValueError for other
    names.
    """
    reader = open_tensors(source)
    if isinstance(reader, ConventionReader):
        return reader
    is_torch = isinstance(reader, MappedReader) and reader.is_torch
    found = ConventionReader(without_prefix(reader), names, is_torch, with_states)
    if not found.names():
        raise LoadError(f"{reader.path} has no tensors, so it is not a model that can be run")
    return found
