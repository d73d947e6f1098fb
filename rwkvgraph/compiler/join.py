"""Which passes become relays and pairs, for a single token, and which relays the laps of one.

Layers that are alike are laps of one relay: the same text, told other places. NVIDIA H200, RWKV-7 of 24
layers of 1024: a relay a layer takes 2 % longer, a text for two layers 28 %, for four 45 %, as it no longer
stays in the cache for instructions. Coherent bindings cost 0.6 %. Bringing the next vectors and tables into
the cache while waiting changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rwkvgraph.compiler.program import Pass, Relay
from rwkvgraph.compiler.relay import fits, pair_of, relay_of
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.variant import Amount, Row
from rwkvgraph.compiler.writer import home_of
from rwkvgraph.op import Buffer
from rwkvgraph.view import B, row_width

FEWEST = 4
"""Passes that are worth a relay, maps aside.

NVIDIA H200, RWKV-7, microseconds a token with relays of all passes, and with pairs alone: 410 and 446 for
12 layers of 768, 858 and 928 for 24 of 1024. 24 layers of 2048: 1,586 with all matrices in them and 512
threads a workgroup, 1,509 with pairs.
"""


def join(passes: Sequence[Pass], target: Target) -> tuple[Relay, ...]:
    """The relays of a program: neighbouring passes of a layer, as many as fit, where `resident`; else pairs.

    They stand beside the passes, and do the same: which of them run is decided for each run.
    """
    relays: list[Relay] = []
    first = 0
    while first < len(passes):
        stop = first
        while target.resident and stop < len(passes) and fits(passes[first : stop + 1], target):
            stop += 1
        if sum(item.group.kind != "map" for item in passes[first:stop]) >= FEWEST:
            relays.append(relay_of(first, passes[first:stop], _after(passes, stop), target))
            first = stop
            continue
        is_last = first + 1 == len(passes)
        two = None if is_last else pair_of(first, passes[first], passes[first + 1], target)
        if two is not None:
            relays.append(two)
        first += 1 if two is None else 2
    return tuple(_laps(relays, passes, target)) if target.coherent else tuple(relays)


def _laps(relays: Sequence[Relay], passes: Sequence[Pass], target: Target) -> Iterator[Relay]:
    """The relays; neighbours of the same text, which differ in layers alone, as laps of one."""
    waiting: list[Relay] = []
    for item in relays:
        if waiting and not _goes_on(waiting[-1], item):
            yield _lapped(waiting, passes, target)
            waiting = []
        waiting.append(item)
    if waiting:
        yield _lapped(waiting, passes, target)


def _goes_on(one: Relay, other: Relay) -> bool:
    """Whether a relay can be the next lap of the one before it."""
    if not (one.meets and other.meets and one.span.stop == other.first):
        return False
    if one.variant.source.text != other.variant.source.text:
        return False
    pairs = zip(one.buffers, other.buffers, strict=True)
    return all(a is b or (home_of(a) is not None and home_of(a) is home_of(b)) for a, b in pairs)


def _lapped(relays: Sequence[Relay], passes: Sequence[Pass], target: Target) -> Relay:
    """Relays as laps of one: places in what differs are said in the memory that all of it is part of."""
    if len(relays) == 1:
        return relays[0]
    laps = [relay_of(lap.first, lap.passes, _after(passes, lap.span.stop), target, True) for lap in relays]
    first, texts = laps[0], {lap.variant.source.text for lap in laps}
    assert len(texts) == 1, "their texts are the same while each binds its own buffers"
    rows = [_at_home(row) for lap in laps for row in lap.variant.table]
    head = (*rows[0][:3], Amount(len(laps)))
    every = tuple(item for lap in laps for item in lap.passes)
    whole = frozenset(item for item in first.buffers if isinstance(item, Buffer) and item.home is not None)
    variant = replace(first.variant, table=(head, *rows[1:]))
    return Relay(first.first, every, variant, first.buffers, laps=len(laps), whole=whole, apart=tuple(relays))


def _at_home(row: Row) -> Row:
    """A row of a table, for a run of one token, with its places in the memory that buffers share."""
    x, y, z, w = map(_place_at_home, row)
    return x, y, z, w


def _place_at_home(amount: Amount) -> Amount:
    buffer = amount.within
    if buffer is None:
        return amount
    assert amount.size in (None, B), "slots are all that a state has a last one of"
    before = buffer.place * row_width(buffer.shape)  # of each slot, in the layers before
    return replace(amount, factor=amount.factor + before, size=B)


def _after(passes: Sequence[Pass], stop: int) -> list[Pass]:
    """The other passes of the layer before position `stop`, from there on."""
    layer = passes[stop - 1].layer
    return [item for item in passes[stop:] if item.layer == layer]
