"""Reading values of a model as it runs: which, where they are kept on the device, and what comes of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from itertools import pairwise
from typing import Any, Protocol, cast

import numpy as np

from rwkvgraph import ops
from rwkvgraph.batch import Batch
from rwkvgraph.errors import HookError
from rwkvgraph.graph import Graph
from rwkvgraph.hook import Frame, LayerHook, Site
from rwkvgraph.hooks import Hooks
from rwkvgraph.op import Array, Buffer, DType, Role
from rwkvgraph.view import LANES, Dim, O, T, round_up

MOST_BYTES = 256 << 20
"""Of captured values on the device at once; where a run has more, fewer tokens go into a pass."""

Names = str | Sequence[str] | Callable[[str], bool]
"""Which values: patterns such as "*.x@PostFfn" (as file names have them), or a function of a name."""


class Fetches(Protocol):
    """A compiled program."""

    def fetch(self, buffer: Buffer, rows: int) -> Array:
        """The first rows of an output buffer after a run."""


@dataclass(frozen=True)
class Column:
    """A captured value: its place in the rows of a buffer."""

    site: Site
    slot: str
    buffer: Buffer
    start: int
    width: int


class Capture:
    """Hooks that copy values into buffers: one for those of each token, one for those of each output row."""

    def __init__(self, graph: Graph, names: Names) -> None:
        chosen = choose(graph, names)
        self.columns: dict[str, Column] = {}
        self.buffers = {dim: Buffer(f"captured.{dim}", (dim, 0), DType.F32, Role.OUTPUT) for dim in (T, O)}
        for name, site, slot in chosen:
            rows, width = site.slots[slot].shape
            assert isinstance(rows, Dim) and isinstance(width, int), "slots are (T, …) or (O, …)"
            buffer = self.buffers[rows]
            start = round_up(int(str(buffer.shape[1])), LANES)
            buffer.shape = (rows, start + width)
            self.columns[name] = Column(site, slot, buffer, start, width)
        self.hooks = Hooks()
        for column in self.columns.values():
            self.hooks.add(column.site.hook, partial(_copy, column))

    def most_rows(self, limit: int) -> int:
        """Tokens of a pass whose values fit into `limit` bytes. Raises HookError where one does not."""
        widest = max(int(str(buffer.shape[1])) for buffer in self.buffers.values()) * 4
        room = min(limit, MOST_BYTES)
        if widest > room:
            raise HookError(
                f"{len(self.columns)} values are {widest / 1e6:.0f} MB a token, and {room / 1e6:.0f} MB "
                "can be captured at once; name fewer"
            )
        return room // max(widest, 1)

    def collect(self, program: Fetches, batch: Batch, first_slot: int, cache: Cache) -> None:
        """Take what a pass captured into the cache. first_slot: of the batch's block of slots."""
        slots = {T: batch.words[:, 0].astype(np.int64) + first_slot, O: batch.slots}
        for dim, buffer in self.buffers.items():
            columns = {name: item for name, item in self.columns.items() if item.buffer is buffer}
            if columns and len(slots[dim]):
                cache.add(program.fetch(buffer, len(slots[dim])), slots[dim], columns)


def _copy(column: Column, frame: Frame) -> None:
    """The hook that captures a value."""
    end = column.start + column.width
    ops.blit(frame.get(column.slot), column.buffer[:, column.start : end])


class Cache(Mapping[str, list[Array | None]]):
    """Captured values by name: a list with an entry a slot, None for slots that had no tokens.

    An entry is (n, C), a row a token, or (C,), those of the last token, as the run was asked for.
    """

    def __init__(self, capture: Capture, slots: int, is_full: bool) -> None:
        self._names = list(capture.columns)
        self._slots = slots
        self._is_full = is_full
        self._pieces: dict[tuple[str, int], list[Array]] = defaultdict(list)

    def add(self, rows: Array, slots: Array, columns: Mapping[str, Column]) -> None:
        """Take rows of several slots, side by side; of the last token's option only each slot's last."""
        edges = [0, *(np.flatnonzero(slots[1:] != slots[:-1]) + 1).tolist(), len(slots)]
        for start, end in pairwise(edges):
            for name, column in columns.items():
                part = rows[start:end, column.start : column.start + column.width]
                pieces = self._pieces[name, int(slots[start])]
                if self._is_full:
                    pieces.append(part.copy())
                else:
                    pieces[:] = [part[-1:].copy()]

    def __getitem__(self, name: str) -> list[Array | None]:
        if name not in self._names:
            raise KeyError(f"{name!r} was not captured; {len(self)} values were, such as {self._names[:3]}")
        return [self._of(name, slot) for slot in range(self._slots)]

    def _of(self, name: str, slot: int) -> Array | None:
        pieces = self._pieces.get((name, slot))
        if not pieces:
            return None
        if len(pieces) > 1:
            pieces[:] = [np.concatenate(pieces)]
        return pieces[0] if self._is_full else pieces[0][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    @property
    def nbytes(self) -> int:
        """Bytes that the values take."""
        return sum(piece.nbytes for pieces in self._pieces.values() for piece in pieces)

    def __repr__(self) -> str:
        lines = [f"Cache({len(self)} values, {self._slots} slots, {self.nbytes / 1e6:.1f} MB)"]
        lines += [f"  {name}: {_shapes(self[name])}" for name in self._names[:20]]
        return "\n".join([*lines, *(["  …"] if len(self) > 20 else [])])


def _shapes(values: Sequence[Array | None]) -> str:
    some = [str(list(value.shape)) if value is not None else "-" for value in values[:4]]
    return " ".join([*some, *(["…"] if len(values) > 4 else [])])


def name_of(site: Site, slot: str) -> str:
    """`3.x@PostFfn`: the layer, the slot, the site; outside of the layers `head_o@PostHead`."""
    kind = type(site.hook).__name__
    return f"{site.hook.layer}.{slot}@{kind}" if isinstance(site.hook, LayerHook) else f"{slot}@{kind}"


def choose(graph: Graph, names: Names) -> list[tuple[str, Site, str]]:
    """(name, site, slot) of every value that is meant. Raises HookError for a pattern that means none."""
    there = [
        (name_of(site, slot), site, slot)
        for site in graph.sites()
        for slot, tensor in site.slots.items()
        if tensor.dtype is DType.F32
    ]
    if callable(names):
        rule = names
        chosen = [item for item in there if rule(item[0])]
        if not chosen:
            raise HookError(f"the function of names says no to all {len(there)}, such as {there[-1][0]}")
        return chosen
    patterns = [names] if isinstance(names, str) else list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name, _, _ in there):
            raise HookError(_no_such(pattern, [name for name, _, _ in there]))
    return [item for item in there if any(fnmatchcase(item[0], pattern) for pattern in patterns)]


def _no_such(pattern: str, names: Sequence[str]) -> str:
    layer, _, rest = pattern.rpartition(".")
    slot, _, kind = rest.partition("@")
    kinds = dict.fromkeys(name.partition("@")[2] for name in names)
    layers = sorted({int(name.partition(".")[0]) for name in names if name[0].isdecimal()})
    if layer.isdecimal() and int(layer) > layers[-1]:
        return f"no value {pattern!r}: layers are 0 to {layers[-1]}"
    if kind and kind in kinds:
        have = dict.fromkeys(
            name.partition("@")[0].rpartition(".")[2] for name in names if name.endswith(f"@{kind}")
        )
        return f"no value {pattern!r}: at {kind} there is no {slot}, but {', '.join(have)}"
    return f"no value {pattern!r}; names are layer.slot@Site, such as {names[-1]}; sites: {', '.join(kinds)}"


def patterns_of(names: Any) -> Names:
    """Names as captures are kept by: a function, or a tuple of patterns. Raises HookError for others."""
    if isinstance(names, str):
        return (names,)
    if callable(names) and not isinstance(names, type):
        return cast(Callable[[str], bool], names)
    patterns = tuple(names) if isinstance(names, Iterable) and not isinstance(names, type) else ()
    if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise HookError(
            f'names are patterns such as "*.x@PostFfn", at least one, or a function; given {names!r:.70}'
        )
    return patterns
