"""web-rwkv's convention of names and shapes, over whatever convention a file has.

BlinkDL's training code ("raw") names some tensors otherwise, has the low-rank matrices the other way round,
and in RWKV-5.1 one decay a head. The rules are those of web-rwkv's convert_safetensors.py, for versions 4 to
7; what a model needs, and in which shapes, is for models/ to check.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np

from rwkvgraph.errors import LoadError
from rwkvgraph.load.arrays import Reader, as_halves, lacking
from rwkvgraph.op import Array

RENAMES = {"time_faaaa": "time_first", "time_maa": "time_mix", "lora_A": "lora.0", "lora_B": "lora.1"}
"""Parts of raw names, and what stands for them after conversion; all letters then become small."""

SWAPPED = ("w1", "w2", "a1", "a2", "g1", "g2", "v1", "v2", "time_state", "lora.0")
"""Tensors whose name has one of these anywhere have their last two axes swapped.

In files of versions 4 to 7 those are V6's `time_mix_w1`, `time_mix_w2`, `time_decay_w1`, `time_decay_w2`, and
V7's `w1` to `v2`, states (H, S, S) and LoRA's A; no vector's and no other matrix's name has any of them.
"""

INNER = ("w1", "a1", "g1", "v1", "time_mix_w1", "time_decay_w1")
"""Low-rank matrices that are (rank, C) after conversion."""
OUTER = ("w2", "a2", "g2", "v2", "time_mix_w2", "time_decay_w2")
"""Low-rank matrices that are (C, rank) after conversion, or (5, C, rank)."""

PER_HEAD = ("att.time_decay", "att.time_first")
"""Vectors (H,) of RWKV-5.1 that are (H, S) after conversion."""

CHOICES = (None, "raw", "converted")
MOST_BYTES = 16 << 20
"""Read at a time of a matrix whose columns are wanted."""


class Change(Enum):
    """What a tensor undergoes besides renaming."""

    NONE = "none"
    SWAP = "its last two axes are swapped"
    EXPAND = "each number is repeated for all channels of a head"


@dataclass(frozen=True)
class Entry:
    """A tensor as presented: its name in the file, its shape after the change."""

    name: str
    shape: tuple[int, ...]
    change: Change


class ConventionReader:
    """Another reader's tensors in web-rwkv's names and shapes.

    names: "raw" or "converted" for a file whose shapes do not tell; None refuses one whose names do not
    either. prefers_raw: where names and low-rank matrices say nothing, as in files of states alone, take it
    as raw. with_states: the orientation of states (`time_state`) matters; a model does not read them. Raises
    LoadError for what the convention cannot express, and where square matrices are among others that
    contradict each other.
    """

    def __init__(
        self, inner: Reader, names: str | None = None, prefers_raw: bool = False, with_states: bool = False
    ) -> None:
        if names not in CHOICES:
            raise ValueError(f'names is {names!r}; it is "raw", "converted" or None')
        self.path = inner.path
        self._inner = inner
        found = inner.names()
        width = _width(inner, found)
        per_head = _per_head(inner, found, width)
        swapped = _swapped(inner, found, width, names, prefers_raw, with_states)
        self._entries: dict[str, Entry] = {}
        for name in found:
            entry = _entry(inner, name, width if name in per_head else None, name in swapped)
            if renamed(name) in self._entries:
                other = self._entries[renamed(name)].name
                raise LoadError(f"{self.path}: {other} and {name} would both be {renamed(name)}")
            self._entries[renamed(name)] = entry

    def names(self) -> list[str]:
        """Every tensor's name."""
        return list(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape. Raises LoadError if the file lacks it."""
        return self._entry(name).shape

    def rows(self, name: str, start: int, stop: int) -> Array:
        """Rows `start` to `stop` of a tensor's first axis, as the inner reader has their type."""
        entry = self._entry(name)
        if entry.change is Change.EXPAND:
            rows = self._inner.rows(entry.name, start, stop).reshape(-1, 1)
            return np.repeat(rows, entry.shape[1], axis=1)
        if entry.change is Change.NONE:
            return self._inner.rows(entry.name, start, stop)
        if len(entry.shape) > 2:
            return np.ascontiguousarray(self._inner.rows(entry.name, start, stop).swapaxes(-1, -2))
        return self._columns(entry, start, stop)

    def halves(self, name: str, start: int, stop: int) -> Array:
        """Rows as float16."""
        entry = self._entry(name)
        if entry.change is Change.NONE:
            return self._inner.halves(entry.name, start, stop)
        return as_halves(self.rows(name, start, stop))

    def _columns(self, entry: Entry, start: int, stop: int) -> Array:
        """Columns of the file's matrix, which are rows of what is presented."""
        width, height = entry.shape
        step = max(1, MOST_BYTES // (4 * max(1, width)))
        parts = [
            self._inner.rows(entry.name, first, min(first + step, height))[:, start:stop].T
            for first in range(0, max(1, height), step)
        ]
        return np.ascontiguousarray(np.concatenate(parts, axis=1))

    def _entry(self, name: str) -> Entry:
        if name not in self._entries:
            raise lacking(self.path, name)
        return self._entries[name]


def renamed(name: str) -> str:
    """A raw name after conversion; a converted name is its own."""
    for part, new in RENAMES.items():
        name = name.replace(part, new)
    return name.lower()


def _entry(reader: Reader, name: str, width: int | None, is_swapped: bool) -> Entry:
    """width: C for a vector that becomes (H, S)."""
    shape = reader.shape(name)
    if width is not None:
        heads = shape[0]
        if not heads or width % heads:
            raise LoadError(f"{reader.path}: {name} has {heads} heads, which do not divide {width} channels")
        return Entry(name, (heads, width // heads), Change.EXPAND)
    if is_swapped:
        return Entry(name, (*shape[:-2], shape[-1], shape[-2]), Change.SWAP)
    return Entry(name, shape, Change.NONE)


def _width(reader: Reader, names: Iterable[str]) -> int | None:
    """C, as most of the tensors have it that say it: one may be at fault, and is to be named for that."""
    found: Counter[int] = Counter()
    for end, axes in (("emb.weight", 2), ("ln1.weight", 1), ("ln_out.weight", 1), ("ln2.weight", 1)):
        found.update(
            shape[-1]
            for name in names
            if name.lower().endswith(end) and len(shape := reader.shape(name)) == axes
        )
    return found.most_common(1)[0][0] if found else None


def _per_head(reader: Reader, names: list[str], width: int | None) -> set[str]:
    """The vectors to expand. Raises LoadError for a bonus of RWKV-5.0 that the convention cannot express."""
    new = [renamed(name) for name in names]
    is_later = any("time_mix_w1" in name or ".r_k" in name for name in new)
    if is_later or width is None or not any(name.endswith("att.ln_x.weight") for name in new):
        return set()
    if not any(name.endswith("att.gate.weight") for name in new):
        faaaa = next((name for name in names if "time_faaaa" in name), None)
        if faaaa is not None:
            raise LoadError(
                f"{reader.path}: {faaaa} in RWKV-5.0 (no att.gate.weight) is used as it is; converted names "
                "have time_first, of which the exponential is used: it can be neither run nor converted"
            )
        return set()
    found = {name for name in names if renamed(name).endswith(PER_HEAD)}
    return {
        name for name in found if len(shape := reader.shape(name)) in (1, 2) and math.prod(shape[1:]) == 1
    }


def _swapped(
    reader: Reader,
    names: list[str],
    width: int | None,
    choice: str | None,
    prefers_raw: bool,
    with_states: bool,
) -> set[str]:
    """The names of the tensors whose last two axes are to be swapped.

    A low-rank matrix tells by its shape, whatever its name: there are files with converted names that were
    not transposed. Where it is square, the other matrices tell, or else the choice or the file's names.
    """
    candidates = [name for name in names if has_swap(renamed(name)) and len(reader.shape(name)) >= 2]
    told = {name: is_raw(name, reader.shape(name), width) for name in candidates}
    rest = [name for name, raw in told.items() if raw is None]
    read = [name for name in rest if with_states or "time_state" not in name]
    if rest:
        votes = {name: raw for name, raw in told.items() if raw is not None and "lora" not in renamed(name)}
        if read and len(set(votes.values())) > 1:
            raise _half(reader, votes, read[0])
        if len(set(votes.values())) == 1:
            common = next(iter(votes.values()))
        elif choice is not None:
            common = choice == "raw"
        elif any(part in name for name in names for part in RENAMES):
            common = True
        elif any(".lora." in name for name in names):
            common = False
        elif prefers_raw and not any(_kind(name) for name in rest):
            common = True
        elif not read:
            common = False  # nobody reads the states
        else:
            raise ambiguous(reader.path, read[0], reader.shape(read[0]))
        told |= dict.fromkeys(rest, common)
    return {name for name, raw in told.items() if raw}


def has_swap(name: str) -> bool:
    """Whether the convention swaps the last two axes of a tensor with this converted name."""
    return any(part in name for part in SWAPPED)


def is_raw(name: str, shape: tuple[int, ...], width: int | None) -> bool | None:
    """Whether a tensor is still to be swapped, as far as it tells that itself."""
    if "lora.0" in renamed(name):
        return "lora_A" in name
    last = _kind(name)
    if not last or width is None or (shape[-1] == width) == (shape[-2] == width):
        return None
    return (shape[-1] == width) == (last in OUTER)


def _kind(name: str) -> str:
    """The last part of a low-rank matrix's converted name; "" for other tensors."""
    last = renamed(name).rpartition(".")[2]
    return last if last in INNER or last in OUTER else ""


def _half(reader: Reader, votes: Mapping[str, bool], name: str) -> LoadError:
    """The error for a file of which some matrices are as in one convention, and some as in the other."""
    raw, converted = (
        next(name for name, vote in votes.items() if vote is wanted) for wanted in (True, False)
    )
    return LoadError(
        f"{reader.path} is half raw, half converted: {raw} {reader.shape(raw)} is as in BlinkDL's files, "
        f"{converted} {reader.shape(converted)} as in web-rwkv's, and {name} {reader.shape(name)} may be "
        "either; convert the file that it was made from"
    )


def ambiguous(path: str, name: str, shape: tuple[int, ...]) -> LoadError:
    """The error for a file that may be in either convention."""
    return LoadError(
        f"{path}: {name} has shape {shape}, and neither names nor other shapes tell whether its last two "
        'axes are as in BlinkDL\'s files or swapped, as in web-rwkv\'s; choose: names="raw" or "converted" '
        "(--names)"
    )
