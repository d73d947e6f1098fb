"""Models that are only shapes: every tensor's name and size, no weights. To look at graphs of any size."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from rwkvgraph.load.arrays import lacking
from rwkvgraph.op import Array

Shapes = dict[str, tuple[int, ...]]

VERSIONS = ("v4", "v5.0", "v5.1", "v5.2", "v6", "v7")
HEAD_SIZE = 64
NOISE = 1 << 16
"""Random numbers that rows are cut from, again and again."""


class ShapeReader:
    """A source of tensors by their shapes alone. Rows, where somebody asks for them, are small noise.

    Zeros would do for shapes, but not for measuring: a machine may keep pages of zeros in one place.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], path: str) -> None:
        self.path = path
        self._shapes = dict(shapes)
        self._noise = np.random.default_rng(0).normal(0.0, 0.02, NOISE).astype(np.float16)

    def names(self) -> list[str]:
        """Every tensor's name."""
        return list(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape. Raises LoadError if there is none of that name."""
        if name not in self._shapes:
            raise lacking(self.path, name)
        return self._shapes[name]

    def rows(self, name: str, start: int, stop: int) -> Array:
        """Noise in the shape of rows `start` to `stop`."""
        shape = (stop - start, *self.shape(name)[1:])
        return np.resize(self._noise, prod(shape)).reshape(shape)

    def halves(self, name: str, start: int, stop: int) -> Array:
        """The same, which is float16."""
        return self.rows(name, start, stop)


def shapes_of(version: str, layers: int, width: int, vocab: int, head_size: int = HEAD_SIZE) -> Shapes:
    """Every tensor of a model by name, as in files of web-rwkv's names; ranks as in the released models.

    Raises ValueError for a version that there is not and for sizes that no model has.
    """
    if version not in VERSIONS:
        raise ValueError(f"there is no version {version!r}, only {', '.join(VERSIONS)}")
    for name, size in {"layers": layers, "width": width, "vocab": vocab, "head-size": head_size}.items():
        if size < 1:
            raise ValueError(f"--{name} is {size}; it is at least 1")
    if version != "v4" and width % head_size:
        raise ValueError(f"a width of {width} cannot be cut into heads of {head_size} (--head-size)")
    found: Shapes = {"emb.weight": (vocab, width), **_norm("blocks.0.ln0", width)}
    for layer in range(layers):
        block = f"blocks.{layer}"
        found |= _norm(f"{block}.ln1", width) | _norm(f"{block}.ln2", width)
        found |= _time_mix(version, f"{block}.att", width, head_size, is_first=layer == 0)
        found |= _channel_mix(version, f"{block}.ffn", width)
    return found | _norm("ln_out", width) | {"head.weight": (vocab, width)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _time_mix(version: str, att: str, width: int, head_size: int, is_first: bool) -> Shapes:
    by_head = (width // head_size, head_size)
    matrices = ["receptance", "key", "value", "output"]
    if version in ("v5.1", "v5.2", "v6"):
        matrices.append("gate")
    found: Shapes = {f"{att}.{name}.weight": (width, width) for name in matrices}
    if version == "v7":
        return found | _time_mix_v7(att, width, by_head, is_first)
    letters = {"v4": "kvr", "v5.0": "kvr", "v6": "xwkvrg"}.get(version, "kvrg")
    found |= {f"{att}.time_mix_{letter}": (width,) for letter in letters}
    if version == "v4":
        return found | {f"{att}.time_decay": (width,), f"{att}.time_first": (width,)}
    found |= _norm(f"{att}.ln_x", width)
    if version == "v6":
        return found | _low_rank_v6(att, width) | {f"{att}.time_first": by_head}
    numbers = by_head[:1] if version == "v5.0" else by_head
    return found | {f"{att}.time_decay": numbers, f"{att}.time_first": numbers}


def _low_rank_v6(att: str, width: int) -> Shapes:
    mixing, decay = (32, 64) if width < 4096 else (64, 128)
    return {
        f"{att}.time_mix_w1": (5 * mixing, width),
        f"{att}.time_mix_w2": (5, width, mixing),
        f"{att}.time_decay": (width,),
        f"{att}.time_decay_w1": (decay, width),
        f"{att}.time_decay_w2": (width, decay),
    }


def _time_mix_v7(att: str, width: int, by_head: tuple[int, int], is_first: bool) -> Shapes:
    ranks = {"w": 1.8 * width**0.5, "a": 1.8 * width**0.5, "v": 1.3 * width**0.5, "g": 0.6 * width**0.8}
    found: Shapes = {f"{att}.x_{letter}": (width,) for letter in "rwkvag"}
    for name, size in ranks.items():
        if name == "v" and is_first:
            continue
        rank = max(32, 32 * round(size / 32))
        found |= {f"{att}.{name}1": (rank, width), f"{att}.{name}2": (width, rank)}
        found |= {} if name == "g" else {f"{att}.{name}0": (width,)}
    found |= {f"{att}.k_k": (width,), f"{att}.k_a": (width,), f"{att}.r_k": by_head}
    return found | _norm(f"{att}.ln_x", width)


def _channel_mix(version: str, ffn: str, width: int) -> Shapes:
    hidden = 4 * width if version in ("v4", "v7") else 7 * width // 2
    found: Shapes = {f"{ffn}.key.weight": (hidden, width), f"{ffn}.value.weight": (width, hidden)}
    if version == "v7":
        return found | {f"{ffn}.x_k": (width,)}
    mixes: Shapes = {f"{ffn}.time_mix_{letter}": (width,) for letter in "kr"}
    return found | mixes | {f"{ffn}.receptance.weight": (width, width)}
