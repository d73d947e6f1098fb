"""States as other programs hold them: BlinkDL's list, web-rwkv's tensor. Ours is what `State.read` gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rwkvgraph.models.common import ModelInfo
from rwkvgraph.op import Array

BLINKDL_NOTHING = np.float32(-1e30)
"""RWKV-4's pp before the first token, in BlinkDL's code; ours, as web-rwkv's, is the lowest f32."""
PP = 3
"""Its row."""

Shape = tuple[int, int, int]


def to_blinkdl(rows: Array, info: ModelInfo) -> list[Array]:
    """The list of arrays of the `rwkv` package's model.py from (L, R, C): see `State.from_blinkdl`."""
    result: list[Array] = []
    for layer in rows:
        if info.version == "V4":
            parts = [row.copy() for row in layer]
            parts[PP] = np.maximum(parts[PP], BLINKDL_NOTHING)
            result += parts
        else:
            result += [layer[0].copy(), _to_heads(layer[1:-1], info), layer[-1].copy()]
    return result


def from_blinkdl(arrays: Any, shape: Shape, info: ModelInfo) -> Array:
    """(L, R, C) from a list of the `rwkv` package. Raises ValueError, naming what is wrong."""
    layers, count, width = shape
    heads = (width // (count - 2), count - 2, count - 2)
    wanted: list[tuple[int, ...]] = [(width,), heads, (width,)]
    wanted = [(width,)] * count if info.version == "V4" else wanted
    if not isinstance(arrays, Sequence) or len(arrays) != layers * len(wanted):
        given = f"{len(arrays)} entries" if isinstance(arrays, Sequence) else f"a {type(arrays).__name__}"
        raise ValueError(
            f"the rwkv package's state of this model is a list of {layers * len(wanted)} arrays, "
            f"{len(wanted)} a layer; given {given}"
        )
    rows = []
    for index, item in enumerate(arrays):
        part = as_numbers(item, f"entry {index} of the state")
        form = wanted[index % len(wanted)]
        if part.shape != form:
            raise ValueError(f"entry {index} of the state has shape {part.shape}; it is {form}")
        rows.append(_from_heads(part, info) if part.ndim == 3 else part[None])
    result: Array = np.concatenate(rows).reshape(shape)
    if info.version == "V4":
        pp = result[:, PP]
        pp[pp <= BLINKDL_NOTHING] = np.finfo(np.float32).min
    return result


def to_web_rwkv(rows: Array, info: ModelInfo) -> Array:
    """web-rwkv's tensor in numpy's order of axes: (L, S + 2, C), for RWKV-4 (5 L, C)."""
    return rows.reshape(-1, rows.shape[2]) if info.version == "V4" else rows


def from_web_rwkv(array: Any, shape: Shape, info: ModelInfo) -> Array:
    """(L, R, C) from web-rwkv's tensor. Raises ValueError for one of another shape."""
    values = as_numbers(array, "the state")
    wanted = (shape[0] * shape[1], shape[2]) if info.version == "V4" else shape
    given = values.shape
    while len(given) > len(wanted) and given[0] == 1:
        given = given[1:]
    if given != wanted:
        raise ValueError(
            f"web-rwkv's state of this model is {wanted} in numpy's order of axes; given {values.shape}"
        )
    return values.reshape(shape)


def from_matrices(matrices: Array) -> Array:
    """Rows (S, C) with row key, column h * S + value, from matrices (H, key, value)."""
    heads, size, _ = matrices.shape
    return matrices.swapaxes(0, 1).reshape(size, heads * size)


def _to_heads(rows: Array, info: ModelInfo) -> Array:
    """Rows (S, C) as the package's matrices of this version."""
    matrices = rows.reshape(info.head_size, info.num_head, info.head_size).swapaxes(0, 1)
    return (matrices.swapaxes(1, 2) if info.version == "V7" else matrices).copy()


def _from_heads(matrices: Array, info: ModelInfo) -> Array:
    return from_matrices(matrices.swapaxes(1, 2) if info.version == "V7" else matrices)


def as_numbers(item: Any, name: str) -> Array:
    """A numpy array or a PyTorch tensor, of any type and on any device, as float32. Raises ValueError."""
    if hasattr(item, "detach"):  # PyTorch, which need not be installed
        item = item.detach().float().cpu().numpy()
    try:
        values = np.asarray(item)
        if values.dtype.kind not in "fiub":
            raise TypeError
        with np.errstate(over="ignore"):
            return values.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is {item!r:.60}, which is no array of real numbers") from error
