"""Passes to relays: for a single token, the passes of a layer become one dispatch.

A dispatch that depends on the one before costs a GPU more than most passes of a single token do (NVIDIA
H200: 2.5 µs of waiting, and as much again until the first bytes of its weights arrive). Workgroups that are
all running wait for each other in 1.2 µs, and have their next weights under way meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rwkvgraph.compiler.plan import Slot
from rwkvgraph.compiler.program import MEETING, Amount, Grid, Pass, Relay, Row, Variant
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.tuning import tuning_for
from rwkvgraph.op import Buffer
from rwkvgraph.view import B, E, N, O, Sizes, T
from rwkvgraph_codegen import TURNS, Binding, Leg, pair, relay, relay_bytes, starts_of

ONE: Sizes = {T: 1, O: 1, N: 1, B: 1, E: 1}
"""Sizes of a run of one token in one slot."""

IDLE_BLOCKS = {"row": (8 << 20) // 16, "wkv": (20 << 20) // 16}
"""Blocks of weights that the workgroups that a leg leaves idle read meanwhile: what an NVIDIA H200 brings in
2 and in 5 µs, so that nobody waits for them."""

FEWEST = 4
"""Passes that are worth a relay, maps aside.

NVIDIA H200, RWKV-7, microseconds a token with relays of all passes, and with pairs alone: 490 and 526 for
12 layers of 768, 1,016 and 1,031 for 24 of 1024. 24 layers of 2048: 1,808 with matrices of up to 32 MiB in
them, 1,598 with three small passes of each layer, 1,578 with pairs.
"""


def join(passes: Sequence[Pass], target: Target) -> tuple[Relay, ...]:
    """The relays of a program: neighbouring passes of a layer, as many as fit, where `resident`; else pairs.

    They stand beside the passes, and do the same: which of them run is decided for each run.
    """
    relays: list[Relay] = []
    first = 0
    while first < len(passes):
        stop = first
        while target.resident and stop < len(passes) and _fits(passes[first : stop + 1], target):
            stop += 1
        if sum(item.group.kind != "map" for item in passes[first:stop]) >= FEWEST:
            relays.append(_relay(first, passes[first:stop], _after(passes, stop), target))
            first = stop
            continue
        is_last = first + 1 == len(passes)
        two = None if is_last else _pair(first, passes[first], passes[first + 1], target)
        if two is not None:
            relays.append(two)
        first += 1 if two is None else 2
    return tuple(relays)


def _fits(passes: Sequence[Pass], target: Target) -> bool:
    """Whether these can be one relay."""
    last = passes[-1]
    if last.leg is None or (last.layer, last.rows, last.needs) != (
        passes[0].layer,
        passes[0].rows,
        passes[0].needs,
    ):
        return False
    if relay_bytes([item.leg.source for item in passes if item.leg]) > target.limits.max_workgroup_storage:
        return False
    return (
        len(_buffers(passes)) < target.limits.max_storage_buffers and _agree(passes) and _looks_once(passes)
    )


def _pair(first: int, row: Pass, product: Pass, target: Target) -> Relay | None:
    """A pass and the product that does it again, as one dispatch of both; None where they cannot be."""
    inlined, again = product.inlined, row.leg
    if (
        not target.pairs
        or inlined is None
        or again is None
        or row.rows != product.rows
        or row.needs != product.needs
    ):
        return None
    if again.source.threads != inlined.variant.source.threads:
        return None
    both = (row.buffers, again.source.bindings), (inlined.buffers, inlined.variant.source.bindings)
    buffers = tuple(dict.fromkeys((*row.buffers, *inlined.buffers)))
    at = {buffer: index for index, buffer in enumerate(buffers)}
    bindings: dict[int, Binding] = {}
    for own, found in both:
        for buffer, binding in zip(own, found, strict=True):
            known = bindings.setdefault(at[buffer], replace(binding, index=at[buffer] + 1))
            # Both run at the same time: nothing may be written that anybody reads.
            if (known.stored, known.writable) != (binding.stored, binding.writable) or (
                binding.writable and own is inlined.buffers and buffer in row.buffers
            ):
                return None
    limits, sources = target.limits, [again.source, inlined.variant.source]
    if len(buffers) > limits.max_storage_buffers or relay_bytes(sources) > limits.max_workgroup_storage:
        return None
    legs = [
        Leg(source, tuple(at[buffer] for buffer in own), 0)
        for source, (own, _) in zip(sources, both, strict=True)
    ]
    label = f"{row.label} | {product.label}"
    source = pair(label, (legs[0], legs[1]), tuple(bindings[index] for index in range(len(buffers))))
    grid = inlined.variant.grid
    one_more = replace(grid, items=replace(grid.items, constant=grid.items.constant + 1))
    table = (*_whole(again), *_whole(inlined.variant))
    return Relay(first, (row, product), Variant(source, table, one_more, 1), buffers, meets=False)


def _whole(variant: Variant) -> tuple[Row, ...]:
    """A kernel's table: `size` and at least one row behind it."""
    none = Amount()
    return (*variant.table, *[(none, none, none, none)] * (2 - len(variant.table)))


def _agree(passes: Iterable[Pass]) -> bool:
    """Whether all see each buffer as an array of the same."""
    stored: dict[Buffer | Slot, str] = {}
    for item in passes:
        for buffer, binding in _bound(item):
            if binding.is_texture or stored.setdefault(buffer, binding.stored) != binding.stored:
                return False
    return True


def _looks_once(passes: Sequence[Pass]) -> bool:
    """Whether no pass reads what an earlier one has written over: a cache may hold what was there.

    Slots are written by one pass, before others read them; state and hooks' buffers by the last that does.
    """
    seen: set[Buffer | Slot] = set()
    written: set[Buffer | Slot] = set()
    for item in passes:
        for buffer, binding in _bound(item):
            is_over = buffer in written and isinstance(buffer, Buffer)
            if is_over or (buffer in seen and isinstance(buffer, Slot) and binding.writable):
                return False
        seen |= set(item.buffers)
        written |= {buffer for buffer, binding in _bound(item) if binding.writable}
    return True


def _bound(item: Pass) -> Iterable[tuple[Buffer | Slot, Binding]]:
    assert item.leg is not None, "only passes with one are asked"
    return zip(item.buffers, item.leg.source.bindings, strict=True)


def _buffers(passes: Iterable[Pass]) -> tuple[Buffer | Slot, ...]:
    """What they bind, each once."""
    return tuple(dict.fromkeys(buffer for item in passes for buffer in item.buffers))


def _after(passes: Sequence[Pass], stop: int) -> list[Pass]:
    """The other passes of the layer before position `stop`, from there on."""
    layer = passes[stop - 1].layer
    return [item for item in passes[stop:] if item.layer == layer]


def _relay(first: int, passes: Sequence[Pass], after: Sequence[Pass], target: Target) -> Relay:
    buffers = _buffers(passes)
    at = {buffer: index for index, buffer in enumerate(buffers)}
    bindings: dict[int, Binding] = {}
    legs: list[Leg] = []
    for item in passes:
        for buffer, binding in _bound(item):
            known = bindings.get(at[buffer], binding)
            writable = known.writable or binding.writable
            bindings[at[buffer]] = replace(binding, index=at[buffer] + 1, writable=writable)
        assert item.leg is not None, "they fit"
        rows = max(1, len(item.leg.table) - 1)  # a uniform has at least one row behind `size`
        legs.append(Leg(item.leg.source, tuple(at[buffer] for buffer in item.buffers), rows))
    label = " | ".join(item.label for item in passes)
    ordered = [bindings[index] for index in range(len(buffers))]
    source = relay(label, legs, ordered, tuning_for(target).share.threads)
    variant = Variant(
        source, _table(passes, legs, _touched(passes, after), target), Grid(Amount(target.resident)), 1
    )
    return Relay(first, tuple(passes), variant, (*buffers, MEETING))


def _touched(passes: Sequence[Pass], after: Sequence[Pass]) -> list[Row]:
    """Twice (first block, blocks) of weights for each leg: its idle workgroups read them for later ones."""
    every = (*passes, *after)
    waiting = [(at, *span) for at, item in enumerate(every) if (span := _span(item)) is not None]
    is_one = len({region.buffer for item in every for region in item.reads}) == 1
    rows: list[Row] = []
    for index, item in enumerate(passes):
        waiting = [entry for entry in waiting if entry[0] > index]
        room, words = IDLE_BLOCKS.get(item.group.kind, 0) if is_one else 0, [0, 0, 0, 0]
        for place in (0, 2):
            if waiting and room:
                at, first, blocks = waiting.pop(0)
                taken = min(room, blocks)
                words[place : place + 2] = first, taken
                room -= taken
                if taken < blocks:
                    waiting.insert(0, (at, first + taken, blocks - taken))
        rows.append((Amount(words[0]), Amount(words[1]), Amount(words[2]), Amount(words[3])))
    return rows


def _span(item: Pass) -> tuple[int, int] | None:
    """(first block, blocks) around all that a pass multiplies by; None for nothing, or much beside it."""
    if not item.reads:
        return None
    first = min(region.first for region in item.reads)
    blocks = max(region.first + region.blocks for region in item.reads) - first
    return (first, blocks) if blocks <= 1.5 * sum(region.blocks for region in item.reads) else None


def _table(
    passes: Sequence[Pass], legs: Sequence[Leg], touched: Sequence[Row], target: Target
) -> tuple[Row, ...]:
    """The rows of the uniform, as the shader declares them; legs with an engine have no row `size`."""
    none = Amount()
    grids: list[Row] = []
    kinds: list[Row] = []
    joint: list[Row] = []
    apart: list[Row] = []
    for item, leg, start in zip(passes, legs, starts_of(legs), strict=True):
        assert item.leg is not None, "they fit"
        x, y, z = item.leg.grid.at(ONE, target.limits.max_workgroups_per_dimension)
        grids.append((Amount(x), Amount(y), Amount(z), Amount(x * y * z)))
        kinds.append((Amount(int(bool(leg.source.engine))), Amount(start), none, none))
        table = [*item.leg.table, *[(none, none, none, none)] * (leg.rows + 1 - len(item.leg.table))]
        if leg.source.engine:
            joint += table[1:]
        else:
            apart += table
    limit = Amount(TURNS), Amount(len(legs)), none, none
    return (limit, *grids, *kinds, *touched, *(joint or [(none, none, none, none)]), *apart)
