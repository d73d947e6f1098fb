"""Relays and pairs: for a single token, neighbouring passes as one dispatch.

A dispatch that depends on the one before costs a GPU more than most passes of a single token do (NVIDIA
H200: 2.5 µs of waiting, and as much again until the first bytes of its weights arrive). Workgroups that are
all running wait for each other in 1.1 µs, and bring their next weights into the cache meanwhile. They do not
even wait between a row and the product that multiplies it: each works the row out by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rwkvgraph.compiler.plan import Slot
from rwkvgraph.compiler.program import Pass, Relay
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.tuning import tuning_for
from rwkvgraph.compiler.variant import MEETING, NO_ROW, Amount, Grid, Row, Variant
from rwkvgraph.compiler.writer import home_of
from rwkvgraph.op import Buffer
from rwkvgraph.view import B, E, N, O, Sizes, T
from rwkvgraph_codegen import TURNS, Binding, Leg, Source, pair, relay, relay_bytes, starts_of

ONE: Sizes = {T: 1, O: 1, N: 1, B: 1, E: 1}
"""Sizes of a run of one token in one slot."""


@dataclass(frozen=True)
class Step:
    """A pass in a relay: its kernel there and what that binds; whether it runs beside the pass before it."""

    item: Pass
    variant: Variant
    buffers: tuple[Buffer | Slot, ...]
    is_beside: bool = False

    @property
    def side(self) -> Side:
        """What it binds, and its kernel."""
        return self.buffers, self.variant.source


Side = tuple[tuple[Buffer | Slot, ...], Source]
"""What a kernel binds, in order, and the kernel."""

ROW_BYTES = 16
ENDLESS = 1 << 31
"""More than a leg has workgroups: those of a relay take them in turns, and no device has to dispatch them."""

IDLE_BLOCKS = {"row": (8 << 20) // 16, "wkv": (20 << 20) // 16}
"""Blocks of weights that the workgroups that a leg leaves idle read meanwhile: what an NVIDIA H200 brings in
2 and in 5 µs, so that nobody waits for them."""


def fits(passes: Sequence[Pass], target: Target) -> bool:
    """Whether these can be one relay."""
    last = passes[-1]
    if last.leg is None or (last.layer, last.rows, last.needs) != (
        passes[0].layer,
        passes[0].rows,
        passes[0].needs,
    ):
        return False
    if last.rows.at(ONE) != 1 or last.leg.grid.at(ONE, ENDLESS)[1:] != (1, 1):
        return False
    steps = steps_of(passes)
    sides = [step.side for step in steps]
    is_seen = target.coherent or _looks_once(sides)
    return _has_room(sides, target, _rows(steps)) and _agree(sides) and is_seen


def steps_of(passes: Sequence[Pass]) -> list[Step]:
    """The kernels of a relay: a product that can do again what the pass before it does runs beside that."""
    steps: list[Step] = []
    for item in passes:
        assert item.leg is not None, "only passes with one are asked"
        again = item.inlined_leg
        if (
            again is not None
            and steps
            and _are_apart((steps[-1].side, (again.buffers, again.variant.source)))
        ):
            steps.append(Step(item, again.variant, again.buffers, is_beside=True))
        else:
            steps.append(Step(item, item.leg, item.bound(item.leg)))
    return steps


def _is_followed(steps: Sequence[Step], index: int) -> bool:
    """Whether the next kernel runs beside this one."""
    return index + 1 < len(steps) and steps[index + 1].is_beside


def _are_apart(sides: Sequence[Side]) -> bool:
    """Whether two kernels can run at the same time: neither writes anything that the other binds."""
    return not any(_written(one) & set(other[0]) for one, other in (sides, sides[::-1]))


def _has_room(sides: Sequence[Side], target: Target, rows: int = 0) -> bool:
    """Whether a device has what they bind, and their workgroup memory.

    rows: of a relay's table, which is a binding and memory of its own, as is the meeting a binding.
    """
    limits = target.limits
    if len(_buffers(sides)) + (2 if rows else 0) > limits.max_storage_buffers:
        return False
    nbytes = relay_bytes([source for _, source in sides]) + 2 * rows * ROW_BYTES  # and those of the next lap
    return nbytes <= limits.max_workgroup_storage


def _rows(steps: Sequence[Step]) -> int:
    """Rows of a relay's table."""
    return starts_of([Leg(step.variant.source, (), _own_rows(step)) for step in steps])[-1]


def _own_rows(step: Step) -> int:
    """Rows of a kernel's own table behind `size`, of which there is at least one."""
    return max(1, len(step.variant.table) - 1)


def pair_of(first: int, row: Pass, product: Pass, target: Target) -> Relay | None:
    """A pass and the product that does it again, as one dispatch of both; None where they cannot be."""
    if not target.pairs or product.inlined is None or row.leg is None:
        return None
    if (row.rows, row.needs) != (product.rows, product.needs):
        return None
    leg, inlined = row.leg, product.inlined.variant
    sides = [(row.buffers, leg.source), (product.inlined.buffers, inlined.source)]
    if not _are_apart(sides):
        return None
    if leg.source.threads != inlined.source.threads or not _agree(sides) or not _has_room(sides, target):
        return None
    buffers = _buffers(sides)
    legs = _leg(sides[0], buffers), _leg(sides[1], buffers)
    source = pair(f"{row.label} | {product.label}", legs, _bindings(sides))
    one_more = replace(inlined.grid.items, constant=inlined.grid.items.constant + 1)
    table = tuple(line for variant in (leg, inlined) for line in _padded(variant.table, 2))
    variant = Variant(source, table, replace(inlined.grid, items=one_more), 1)
    return Relay(first, (row, product), variant, buffers, meets=False)


def _padded(table: Sequence[Row], rows: int) -> list[Row]:
    """A kernel's table, with at least so many rows."""
    return [*table, *[NO_ROW] * (rows - len(table))]


def _agree(sides: Iterable[Side]) -> bool:
    """Whether all see each buffer as an array of the same."""
    stored: dict[Buffer | Slot, str] = {}
    for buffers, source in sides:
        for buffer, binding in zip(buffers, source.bindings, strict=True):
            if binding.is_texture or stored.setdefault(buffer, binding.stored) != binding.stored:
                return False
    return True


def _looks_once(sides: Sequence[Side]) -> bool:
    """Whether no kernel reads what an earlier one has written over: a cache may hold what was there.

    Slots are written by one pass, before others read them; state and hooks' buffers by the last that does.
    """
    seen: set[Buffer | Slot] = set()
    written: set[Buffer | Slot] = set()
    for side in sides:
        own, writes = set(side[0]), _written(side)
        if any(isinstance(buffer, Buffer) for buffer in own & written):
            return False
        if any(isinstance(buffer, Slot) for buffer in writes & seen):
            return False
        seen |= own
        written |= writes
    return True


def _written(side: Side) -> set[Buffer | Slot]:
    """What a kernel writes."""
    buffers, source = side
    return {buffer for buffer, own in zip(buffers, source.bindings, strict=True) if own.writable}


def _buffers(sides: Iterable[Side]) -> tuple[Buffer | Slot, ...]:
    """What they bind, each once."""
    return tuple(dict.fromkeys(buffer for buffers, _ in sides for buffer in buffers))


def _bindings(sides: Sequence[Side], coherent: bool = False) -> tuple[Binding, ...]:
    """What they bind together, in the order of `_buffers`: writable where one of them writes it.

    coherent: whether they are to see what others write.
    """
    found: dict[Buffer | Slot, Binding] = {}
    for buffers, source in sides:
        for buffer, binding in zip(buffers, source.bindings, strict=True):
            writable = binding.writable or (buffer in found and found[buffer].writable)
            found[buffer] = replace(binding, writable=writable)
    written = {home_of(buffer) for buffer, binding in found.items() if binding.writable} - {None}
    every: list[Binding] = []
    for at, buffer in enumerate(_buffers(sides), 1):
        writable = found[buffer].writable or home_of(buffer) in written
        every.append(replace(found[buffer], index=at, writable=writable, is_coherent=writable and coherent))
    return tuple(every)


def _leg(side: Side, buffers: tuple[Buffer | Slot, ...], rows: int = 0) -> Leg:
    """A kernel as the linker takes it, with the places of what it binds."""
    own, source = side
    return Leg(source, tuple(map(buffers.index, own)), rows)


def relay_of(
    first: int, passes: Sequence[Pass], after: Sequence[Pass], target: Target, by_home: bool = False
) -> Relay:
    """The relay of passes that fit, the first of them number `first`.

    after: those behind it whose weights its idle workgroups may read. by_home: what shares its memory is one
    binding.
    """
    steps = steps_of(passes)
    sides = [step.side for step in steps]
    if by_home:
        firsts = {home_of(item): item for item in reversed(_buffers(sides))}
        sides = [
            (tuple(firsts[home_of(item)] if home_of(item) else item for item in own), source)
            for own, source in sides
        ]
    buffers = _buffers(sides)
    legs = [_leg(side, buffers, _own_rows(step)) for side, step in zip(sides, steps, strict=True)]
    label = " | ".join(item.label for item in passes)
    source = relay(label, legs, _bindings(sides, target.coherent), tuning_for(target).share.threads)
    table = _table(steps, legs, _touched(steps, after))
    variant = Variant(source, table, Grid(Amount(target.resident)), 1)
    return Relay(first, tuple(passes), variant, (*buffers, MEETING))


def _touched(steps: Sequence[Step], after: Sequence[Pass]) -> list[Row]:
    """Twice (first block, blocks) of weights for each leg: its idle workgroups read them for later ones."""
    every = (*(step.item for step in steps), *after)
    waiting = [(at, *span) for at, item in enumerate(every) if (span := _span(item)) is not None]
    is_one = len({region.buffer for item in every for region in item.reads}) == 1
    rows: list[Row] = []
    for index, step in enumerate(steps):
        waiting = [entry for entry in waiting if entry[0] > index]
        room, words = IDLE_BLOCKS.get(step.item.group.kind, 0) if is_one else 0, [0, 0, 0, 0]
        if _is_followed(steps, index):
            room = 0  # the others have work of their own
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


def _table(steps: Sequence[Step], legs: Sequence[Leg], touched: Sequence[Row]) -> tuple[Row, ...]:
    """The rows of the relay's table, as the shader reads them."""
    words: list[Row] = []
    own: list[Row] = []
    for at, (step, leg, start) in enumerate(zip(steps, legs, starts_of(legs), strict=False)):
        count = step.variant.grid.count(ONE)
        kind = bool(leg.source.engine), start + 1, step.is_beside, _is_followed(steps, at)
        soon = at + kind[3]
        shares = steps[soon].variant.grid.items.constant if legs[soon].source.engine else 0
        asked = _row(soon, shares, 0, 0)
        words += [_row(count, 1, 1, count), _row(*map(int, kind)), touched[at], asked]
        own += _padded(step.variant.table, leg.rows + 1)
    return (_row(TURNS, len(legs), _quiet(steps, legs), 1), *words, *own)


def _quiet(steps: Sequence[Step], legs: Sequence[Leg]) -> int:
    """Before which leg workgroups have time to read what is next: where they ask for no weights, or the last.

    There is one: legs that do not meet the one before them come in pairs, and a relay has more.
    """
    meeting = [at for at, step in enumerate(steps) if at and not step.is_beside]
    asking = [at for at in meeting if legs[at + _is_followed(steps, at)].source.engine]
    return next((at for at in meeting if at not in asking), meeting[-1])


def _row(x: int, y: int, z: int, w: int) -> Row:
    return Amount(x), Amount(y), Amount(z), Amount(w)
