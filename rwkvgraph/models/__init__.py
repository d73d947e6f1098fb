"""The model versions, and which of them a file holds."""

from __future__ import annotations

from types import ModuleType

from rwkvgraph.errors import LoadError
from rwkvgraph.load.reader import Reader
from rwkvgraph.models import v4, v5, v6, v7

VERSIONS: tuple[ModuleType, ...] = (v7, v6, v5, v4)
"""Latest first: each is recognised by what those before it in time lack."""


def detect(reader: Reader) -> ModuleType:
    """The module of the version a file holds. Raises LoadError where none does."""
    names = set(reader.names())
    for version in VERSIONS:
        if version.detect(names):
            return version
    known = ", ".join(sorted(version.__name__.rpartition(".")[2].upper() for version in VERSIONS))
    raise LoadError(
        f"{reader.path} is not a model that can be run: known versions are {known}, recognised by their "
        f"tensors; it has {len(names)} tensors, such as {', '.join(sorted(names)[:3])}"
    )
