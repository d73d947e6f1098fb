"""Captured values in a file that other programs read: numpy's .npz, or safetensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors.numpy import save as to_bytes

from rwkvgraph.op import Array
from rwkvgraph.sight.reading import Kept
from rwkvgraph.writing import appearing

FORMAT = "rwkvgraph values 1"
SAFETENSORS = (".st", ".safetensors")
ENDINGS = (".npz", *SAFETENSORS)


def save_values(path: Path, kept: Kept, ids: Sequence[int]) -> int:
    """Write the values (n, C) by name, all token `ids` and the `positions` of the n rows. Gives the bytes.

    path ends in one of ENDINGS; safetensors take the memory of the values once more. The file appears when it
    is complete. Raises LoadError for what cannot be written.
    """
    rows = len(next(iter(kept.values.values())))
    arrays: dict[str, Array] = {
        "ids": np.asarray(ids, np.int64),
        "positions": np.arange(kept.start, kept.start + rows, dtype=np.int64),
        **kept.values,
    }
    with appearing(path) as file:
        _write(file, path.suffix.lower(), arrays)
        return file.tell()


def _write(file: BinaryIO, ending: str, arrays: dict[str, Any]) -> None:
    if ending in SAFETENSORS:
        file.write(to_bytes(arrays, {"format": FORMAT}))
    else:
        np.savez(file, **arrays)  # a name may be anything but "file": all but the two have an "@"
