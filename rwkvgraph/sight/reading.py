"""Running a prompt through a model and taking values on the way: which, in which order, how many at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rwkvgraph.capture import choose, name_of
from rwkvgraph.errors import HookError, LoadError
from rwkvgraph.graph import Graph
from rwkvgraph.hook import LayerHook, Site
from rwkvgraph.load.reader import open_model
from rwkvgraph.model import Model
from rwkvgraph.models import detect
from rwkvgraph.models.common import ModelInfo
from rwkvgraph.op import Array, DType
from rwkvgraph.sight.drift import NO_DRIFT, NO_LOGITS, Drift, Logits, drift_of, logits_of
from rwkvgraph.sight.values import NOTHING, Statistics, statistics_of

MAIN = (
    "x@PostEmbedLayerNorm",
    "*.att_x@PostAttTimeMix",
    "*.att_o@PostAttOut",
    "*.ffn_k@PostFfnActivate",
    "*.ffn_x@PostFfnChannelMix",
    "*.x@PostFfn",
    "head_x@PostHeadLayerNorm",
    "head_o@PostHead",
)
"""What to look at first, in every version: what the state gives, what both blocks add to the stream, the
hidden layer, which has the largest numbers, and the stream."""

MOST_KEPT = 4 << 30
"""Bytes of values that are kept in host memory where they themselves are asked for."""

PIECE_BYTES = 128 << 20
"""Of values and logits that a piece of the prompt has."""


@dataclass(frozen=True)
class Value:
    """A slot at a site, and how many channels it has. layer: None outside of the layers."""

    name: str
    layer: int | None
    slot: str
    site: str
    width: int


@dataclass(frozen=True)
class Piece:
    """Consecutive tokens of a prompt. start: position of the first. values: (n, C) by name. logits (n, V)."""

    start: int
    values: Mapping[str, Array]
    logits: Array


def values_of(
    graph: Graph,
    patterns: Sequence[str] | None = None,
    layers: Collection[int] | None = None,
) -> list[Value]:
    """The values that are meant, in order of execution.

    patterns: as `Model.run_with_cache` has them; None for every slot once, at each site where it is new.
    layers: only values of these. Raises HookError where nothing is meant.
    """
    chosen = choose(graph, patterns) if patterns is not None else list(_new(graph))
    position = {id(op): index for index, op in enumerate(graph.ops)}
    order = {id(site): index for index, site in enumerate(graph.sites())}
    chosen.sort(key=lambda item: (order[id(item[1])], position.get(id(item[1].slots[item[2]].source), -1)))
    found = [_value(*item) for item in chosen]
    kept = [value for value in found if layers is None or value.layer in layers]
    if not kept:
        there = sorted({value.layer for value in found if value.layer is not None})
        raise HookError(
            f"none of these {len(found)} values is in layers {', '.join(map(str, sorted(layers or ())))}; "
            f"they are in {', '.join(map(str, there)) or 'no layer'}"
        )
    return kept


def _new(graph: Graph) -> Iterator[tuple[str, Site, str]]:
    """Every slot at the sites where it is another tensor than at the site before."""
    before: Mapping[str, Any] = {}
    for site in graph.sites():
        for slot, tensor in site.slots.items():
            if tensor.dtype is DType.F32 and before.get(slot) is not tensor:
                yield name_of(site, slot), site, slot
        before = site.slots


def _value(name: str, site: Site, slot: str) -> Value:
    width = site.slots[slot].shape[-1]
    assert isinstance(width, int), "slots are (T, C) or (O, C)"
    layer = site.hook.layer if isinstance(site.hook, LayerHook) else None
    return Value(name, layer, slot, type(site.hook).__name__, width)


def read(model: Model, ids: Sequence[int], values: Sequence[Value], only_last: bool) -> Iterator[Piece]:
    """Run a prompt and give the values, a piece at a time; only_last: those of its last token alone."""
    names = [value.name for value in values]
    rule = frozenset(names).__contains__  # one object, so that the captures are compiled once
    state = model.state()
    start = len(ids) - 1 if only_last else 0
    before = [list(ids[:start])]
    while any(before):
        model.run(before, state)
    step = _tokens_at_once(model, values)
    for at in range(start, len(ids), step):
        (logits,), cache = model.run_with_cache([list(ids[at : at + step])], state, rule, "full")
        assert logits is not None, "every piece has tokens"
        yield Piece(at, {name: _there(cache[name][0]) for name in names}, logits)


def _tokens_at_once(model: Model, values: Sequence[Value]) -> int:
    width = sum(value.width for value in values) + model.info.num_vocab
    return max(1, min(model.token_chunk_size, PIECE_BYTES // (4 * width)))


def _there(rows: Array | None) -> Array:
    assert rows is not None, "every value is of tokens"
    return rows


def check_kept(values: Sequence[Value], tokens: int) -> int:
    """The bytes that `keep` takes. Raises ValueError where that is too much."""
    count = 4 * tokens * sum(value.width for value in values)
    if count > MOST_KEPT:
        raise ValueError(
            f"{len(values)} values of {tokens} tokens take {count / 1e9:.1f} GB, and at most "
            f"{MOST_KEPT / 1e9:.1f} GB are kept; name fewer (--values, --layers), take --tokens last or a "
            "shorter prompt"
        )
    return count


@dataclass(frozen=True)
class Kept:
    """Values of a prompt, (n, C) by name in order of execution, and what is kept of its logits.

    start: position of the first row.
    """

    start: int
    values: Mapping[str, Array]
    logits: Logits

    def pieces(self) -> Iterator[Piece]:
        """All as one piece, with the logits of the last token alone."""
        yield Piece(self.start, self.values, self.logits.last[None])


def keep(pieces: Iterator[Piece]) -> Kept:
    """All pieces, of which there is at least one."""
    parts: dict[str, list[Array]] = {}
    logits, start = NO_LOGITS, -1
    for piece in pieces:
        start = piece.start if start < 0 else start
        logits += logits_of(piece.logits)
        for name, rows in piece.values.items():
            parts.setdefault(name, []).append(rows)
    # pop, so that the pieces of one value at a time are there twice
    return Kept(start, {name: np.concatenate(parts.pop(name)) for name in list(parts)}, logits)


def statistics(pieces: Iterator[Piece]) -> dict[str, Statistics]:
    """Of each value, over all pieces, of which none is kept."""
    found: dict[str, Statistics] = {}
    for piece in pieces:
        for name, rows in piece.values.items():
            found[name] = found.get(name, NOTHING) + statistics_of(rows, piece.start)
    return found


def drifts(first: Kept, pieces: Iterator[Piece]) -> tuple[dict[str, Drift], Logits]:
    """How far each value of a second model is from the first's; of the second only the logits are kept."""
    found: dict[str, Drift] = {}
    logits = NO_LOGITS
    for piece in pieces:
        logits += logits_of(piece.logits)
        at = piece.start - first.start
        for name, rows in piece.values.items():
            before = first.values[name][at : at + len(rows)]
            found[name] = found.get(name, NO_DRIFT) + drift_of(before, rows, piece.start)
    return found, logits


NUMBERS = {
    "version": "version",
    "num_layer": "layers",
    "num_emb": "channels",
    "num_hidden": "hidden channels",
    "num_vocab": "logits",
    "num_head": "heads",
    "custom": "ranks",
}
"""What the fields of ModelInfo are called in errors."""


def check_alike(first: Path, second: Path, names: str | None, other_names: str | None) -> None:
    """Raise LoadError unless both files are of models with the same numbers; nothing else is read of them."""
    one, other = _info(first, names), _info(second, other_names)
    unlike = [
        f"{label} {_shown(getattr(one, field))} and {_shown(getattr(other, field))}"
        for field, label in NUMBERS.items()
        if getattr(one, field) != getattr(other, field)
    ]
    if unlike:
        raise LoadError(
            f"{first} and {second} are no two forms of one model, so there is nothing to compare: "
            f"{', '.join(unlike)}"
        )


def _info(path: Path, names: str | None) -> ModelInfo:
    reader = open_model(path, names)
    info: ModelInfo = detect(reader).read_info(reader)
    return info


def _shown(number: Any) -> str:
    return (
        " ".join(f"{key} {size}" for key, size in number.items()) if isinstance(number, dict) else str(number)
    )
