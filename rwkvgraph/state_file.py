"""Files of states: one slot saved, and tuned initial states."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from rwkvgraph import state_forms
from rwkvgraph.errors import LoadError
from rwkvgraph.load.reader import Reader, open_tensors
from rwkvgraph.models.common import ModelInfo
from rwkvgraph.op import Array
from rwkvgraph.writing import appearing

FORMAT = "rwkvgraph state 1"
TENSOR = "state"
CONVERTED = (".st", ".safetensors")

Shape = tuple[int, int, int]


def save(path: Path, rows: Array, info: ModelInfo, fingerprint: str) -> None:
    """Write (L, R, C) f32 with what it belongs to, under another name first. Raises LoadError.

    A safetensors file of one tensor; its metadata: `format`, `version`, `shape` as in "6x66x256",
    `fingerprint` of the model and `sha256` of the tensor's bytes.
    """
    if not np.isfinite(rows).all():
        raise LoadError(f"{path} was not written: the slot has NaN or infinity, which no state goes on from")
    facts = {**_facts(rows.shape, info, fingerprint), "sha256": _digest(rows)}
    with appearing(path) as file:
        file.write(to_bytes({TENSOR: np.ascontiguousarray(rows)}, facts))


def load(path: Path, shape: Shape, info: ModelInfo, fingerprint: str) -> Array:
    """The values of a file that `save` wrote for this model. Raises LoadError."""
    reader = open_tensors(path)  # says what is wrong with the file as a whole
    try:
        with safe_open(path, framework="numpy") as file:
            facts = file.metadata() or {}
            _check_facts(path, facts, _facts(shape, info, fingerprint))
    except (SafetensorError, OSError) as error:
        raise LoadError(f"{path} cannot be read as a state file; damaged or cut off? ({error})") from error
    if reader.names() != [TENSOR] or reader.shape(TENSOR) != shape:
        raise LoadError(f"{path} is damaged: its values are not those that were saved")
    rows = reader.rows(TENSOR, 0, shape[0])
    if rows.dtype != np.float32 or facts.get("sha256") != _digest(rows):
        raise LoadError(f"{path} is damaged: its values are not those that were saved")
    return rows


def load_tuned(path: Path, shape: Shape, info: ModelInfo, key_first: bool | None) -> Array:
    """A slot (L, S + 2, C) from a tuned initial state; rows 0 and S + 1 are zeros. Raises LoadError."""
    if info.version == "V4":
        raise LoadError(f"{path}: RWKV-4 has no tuned initial states; its state has no matrices")
    reader = open_tensors(path)
    swapped = path.suffix.lower() not in CONVERTED if key_first is None else not key_first
    wanted = (info.num_head, info.head_size, info.head_size)
    rows = np.zeros(shape, np.float32)
    for layer in range(info.num_layer):
        matrices = _matrices(reader, f"blocks.{layer}.att.time_state", wanted)
        rows[layer, 1:-1] = state_forms.from_matrices(matrices.swapaxes(1, 2) if swapped else matrices)
    beyond = f"blocks.{info.num_layer}.att.time_state"
    if beyond in reader.names():
        raise LoadError(f"{path} has {beyond}, and the model {info.num_layer} layers; of a larger model?")
    if not np.isfinite(rows).all():
        raise LoadError(f"{path} has NaN or infinity in its states; trained too hot, or damaged")
    return rows


def _matrices(reader: Reader, name: str, wanted: tuple[int, int, int]) -> Array:
    if name not in reader.names():
        raise LoadError(
            f"{reader.path} has no {name}, so it is no tuned initial state of this model; it has "
            f"{', '.join(sorted(reader.names())[:3])} … (what State.save wrote is read by State.load)"
        )
    if reader.shape(name) != wanted:
        raise LoadError(f"{reader.path}: {name} has shape {reader.shape(name)}; this model's is {wanted}")
    return reader.rows(name, 0, wanted[0]).astype(np.float32)


def _facts(shape: tuple[int, ...], info: ModelInfo, fingerprint: str) -> dict[str, str]:
    """What a file says of the model that its state belongs to."""
    return {
        "format": FORMAT,
        "version": info.version,
        "shape": "x".join(map(str, shape)),
        "fingerprint": fingerprint,
    }


def _check_facts(path: Path, given: Mapping[str, Any], wanted: Mapping[str, str]) -> None:
    """Raise LoadError unless the file is a state of this model."""
    if not str(given.get("format")).startswith(FORMAT.rpartition(" ")[0]):
        raise LoadError(
            f"{path} is not a state that State.save wrote; tuned initial states are read by State.load_tuned"
        )
    if given["format"] != FORMAT:
        raise LoadError(
            f"{path} is a {given['format']!r}, wanted {FORMAT!r}; use the rwkvgraph that wrote it"
        )
    for key in ("version", "shape", "fingerprint"):
        if given.get(key) != wanted[key]:
            raise LoadError(
                f"{path} is the state of another model: its {key} is {given.get(key)}, this model's "
                f"{wanted[key]}; load the model that it was saved with"
            )


def _digest(rows: Array) -> str:
    """SHA-256 of the values as little-endian f32."""
    return hashlib.sha256(np.ascontiguousarray(rows, "<f4").tobytes()).hexdigest()
