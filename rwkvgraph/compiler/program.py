"""A program: passes, each with its shaders and the numbers they need, as values that know no device."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from rwkvgraph.compiler.group import Group
from rwkvgraph.compiler.plan import Plan, Slot
from rwkvgraph.op import Buffer, DType, Role
from rwkvgraph.show import Line, fold_layers
from rwkvgraph.view import Dim, Size, Sizes, T, resolve
from rwkvgraph_codegen import MEETING_WORDS, MOST_GROUPS, MOST_HANDED, Source

MEETING = Buffer("meeting", (MEETING_WORDS,), DType.U32, Role.STATE)
"""Where the workgroups of a relay count themselves. A runner has its own."""


TABLES = Buffer("tables", (4,), DType.U32, Role.STATE)
"""The uniforms of a program's kernels, as rows of four words. A runner has its own."""

HANDED = Buffer("handed", (MOST_HANDED // 4,), DType.F32, Role.STATE)
"""What workgroups that share a tile hand over to the last of them. A runner has its own."""

SUMS = Buffer("sums", (MOST_HANDED // 4,), DType.F32, Role.STATE)
"""The same for a kernel after them to add up."""

COUNTED = Buffer("counted", (MOST_GROUPS,), DType.U32, Role.STATE)
"""How many of a tile's workgroups have done so. A runner has its own, zeros between kernels."""

FOR_TILES = (HANDED, SUMS, COUNTED)

LOOKED = 192
"""Rows of those at which a kernel looks ahead: those of the next five kernels of RWKV-7, about."""

LOOK_WORD = 2
"""The word of a kernel's first row that says where it looks: behind its own rows. Runners fill it in."""


@dataclass(frozen=True)
class Amount:
    """A number that may grow with one of the sizes of a run: constant + factor * size.

    within: the buffer in which it is a place, where others share its memory.
    """

    constant: int = 0
    factor: int = 0
    size: Dim | None = None
    within: Buffer | None = None

    @staticmethod
    def of(size: Size) -> Amount:
        """A size as an amount."""
        return Amount(size) if isinstance(size, int) else Amount(0, 1, size)

    def at(self, sizes: Sizes) -> int:
        """Its value for a run."""
        return self.constant + (self.factor * resolve(self.size, sizes) if self.size else 0)

    def times(self, number: int) -> Amount:
        """This amount, multiplied."""
        return Amount(self.constant * number, self.factor * number, self.size, self.within)


@dataclass(frozen=True)
class Grid:
    """How many workgroups a kernel takes.

    ceil(items / per_group) in x and y together, ceil(deep / per_deep) in z; or, where `deep_first`, in x,
    with the items in y and z: workgroups that differ in `deep` alone then run at about the same time.
    """

    items: Amount
    per_group: int = 1
    deep: Amount = Amount(1)
    per_deep: int = 1
    deep_first: bool = False

    def at(self, sizes: Sizes, limit: int) -> tuple[int, int, int]:
        """(x, y, z) for a run, each within `limit`: the deep one is, as runners cap rows by it."""
        count = -(-self.items.at(sizes) // self.per_group)
        turns = max(1, -(-count // limit))
        items, deep = (-(-count // turns), turns), -(-self.deep.at(sizes) // self.per_deep)
        return (deep, *items) if self.deep_first else (*items, deep)


Row = tuple[Amount, Amount, Amount, Amount]


NO_ROW: Row = (Amount(), Amount(), Amount(), Amount())


@dataclass(frozen=True, eq=False)
class Variant:
    """One kernel that can run a pass: its shader, its uniform's rows (the first is `size`), its grid.

    max_rows: the most rows it is chosen for; None for any number. one_each: whether only where every slot, of
    which its grid is as deep, has a single row. after: the kernel that goes on with what this one leaves, of
    the same bindings and table.
    """

    source: Source
    table: tuple[Row, ...]
    grid: Grid
    max_rows: int | None = None
    after: Variant | None = None
    one_each: bool = False

    def takes(self, rows: int, sizes: Sizes) -> bool:
        """Whether it can run a pass of so many rows."""
        if self.one_each and rows != self.grid.deep.at(sizes):
            return False
        return self.max_rows is None or rows <= self.max_rows

    @property
    def kernels(self) -> tuple[Variant, ...]:
        """It, and the kernel after it."""
        return (self,) if self.after is None else (self, self.after)

    def __str__(self) -> str:
        return self.source.text

    def __repr__(self) -> str:
        rows = "any number of rows" if self.max_rows is None else f"up to {self.max_rows} rows"
        return f"Variant({self.source.text.count(chr(10)) + 1} lines of WGSL, for {rows})"


@dataclass(frozen=True)
class Region:
    """Neighbouring blocks of 16 bytes in a buffer."""

    buffer: Buffer
    first: int
    blocks: int


@dataclass(frozen=True, eq=False)
class Inlined:
    """A kernel for one token that does again, for itself, what the pass before its own does."""

    variant: Variant
    buffers: tuple[Buffer | Slot, ...]


@dataclass(frozen=True, eq=False)
class Pass:
    """One dispatch, or two where a kernel goes on with what another leaves.

    `buffers` are bound in order after the uniform; `rows` decides which variant runs.

    group: the operations that it runs, or a part of: a matrix in many parts takes several passes. leg: its
    kernel for a single row in a relay or pair, where it can be in one. reads: the matrices that
    it multiplies by. inlined: its kernel that does again what the pass before does; inlined_leg: that in a
    relay.
    """

    group: Group
    variants: tuple[Variant, ...]
    buffers: tuple[Buffer | Slot, ...]
    rows: Amount
    leg: Variant | None = None
    reads: tuple[Region, ...] = ()
    inlined: Inlined | None = None
    inlined_leg: Inlined | None = None

    @property
    def label(self) -> str:
        """Its operations, as dumps name it."""
        return self.group.label

    @property
    def layer(self) -> int | None:
        """The layer it is counted in."""
        return self.group.layer

    @property
    def needs(self) -> frozenset[Dim]:
        """The symbolic axes without which it does not run: it reads their last row."""
        return self.group.needs

    def runs(self, sizes: Sizes) -> bool:
        """Whether there is anything to do in a run: rows, and the last rows that it reads."""
        return bool(self.rows.at(sizes)) and all(sizes[dim] for dim in self.needs)

    def variant(self, sizes: Sizes) -> Variant:
        """The kernel for a run: the first that takes so many rows."""
        rows = self.rows.at(sizes)
        return next(item for item in self.variants if item.takes(rows, sizes))

    def bound(self, variant: Variant) -> tuple[Buffer | Slot, ...]:
        """What one of its kernels binds: some have no use for the last of them."""
        return self.buffers[: len(variant.source.bindings)]

    def __str__(self) -> str:
        binds = ", ".join(buffer.name for buffer in self.buffers)
        return f"{self.label}   binds {binds}"

    def __repr__(self) -> str:
        where = "" if self.layer is None else f", layer {self.layer}"
        return f"Pass({self.label}{where}; {len(self.buffers)} buffers, {len(self.variants)} shaders)"


@dataclass(frozen=True, eq=False)
class Relay:
    """Neighbouring passes that one dispatch runs where each has a single row.

    One after another: its workgroups all run at the same time, and wait for each other between two passes,
    save a row and a product that does it again (`meets`). Or a pair at the same time, of which the second
    does again, for itself, what the first does.
    first: where its passes begin among the program's. variant: the one kernel, and its table's rows: where
    workgroups meet, for each lap those that `codegen/prelude/relay.wgsl` lists, then its passes' tables.
    laps: how often it goes through its legs, each time for another layer. whole: what it binds of these
    buffers is all that shares their memory; apart: a relay a lap, for memory that is not shared.
    """

    first: int
    passes: tuple[Pass, ...]
    variant: Variant
    buffers: tuple[Buffer | Slot, ...]
    meets: bool = True
    laps: int = 1
    whole: frozenset[Buffer] = frozenset()
    apart: tuple[Relay, ...] = ()

    @property
    def legs(self) -> int:
        """Passes of a lap."""
        return len(self.passes) // self.laps

    @property
    def label(self) -> str:
        """How dumps name it."""
        return self.variant.source.label

    @property
    def span(self) -> range:
        """Where its passes are among the program's."""
        return range(self.first, self.first + len(self.passes))

    def runs(self, sizes: Sizes) -> bool:
        """Whether it can stand for its passes in a run."""
        return sizes[T] == 1 and all(item.rows.at(sizes) == 1 and item.runs(sizes) for item in self.passes)

    def __str__(self) -> str:
        last = self.span[-1]
        if not self.meets:
            return f"for one token passes {self.first} and {last} are one dispatch, side by side"
        how = f"{self.legs} legs" if self.laps == 1 else f"{self.laps} laps of {self.legs} legs"
        return f"for one token passes {self.first} to {last} are one dispatch, in {how}"

    def __repr__(self) -> str:
        return f"Relay({len(self.passes)} passes from {self.first}, {len(self.buffers)} buffers)"


def _span_of(relay: Relay) -> str:
    """The passes that it stands for."""
    laps = f" in {relay.laps} laps" if relay.laps > 1 else ""
    return f"{relay.first}-{relay.span[-1]}{laps}"


@dataclass(frozen=True, eq=False)
class Program:
    """What a model and its hooks were compiled to. Serves every T, O and number of slots; knows no device."""

    passes: tuple[Pass, ...]
    plan: Plan
    relays: tuple[Relay, ...] = ()

    @property
    def every_relay(self) -> tuple[Relay, ...]:
        """The relays, and those that stand for them where memory is not shared."""
        return (*self.relays, *(item for relay in self.relays for item in relay.apart))

    def sources(self) -> Iterator[Source]:
        """Every distinct shader, in order of first use."""
        seen: set[str] = set()
        for variant in self.variants():
            if variant.source.text not in seen:
                seen.add(variant.source.text)
                yield variant.source

    def variants(self) -> Iterator[Variant]:
        """Every kernel with its uniform: those of each pass, then the relays'."""
        for step in self.passes:
            for variant in step.variants:
                yield from variant.kernels
        for relay in self.every_relay:
            yield relay.variant

    def dispatched(self, relays: Collection[Relay]) -> Iterator[tuple[int, Pass | Relay]]:
        """The passes by their numbers, where these relays stand for theirs: by the first of them."""
        first = {relay.first: relay for relay in relays}
        joined = {at for relay in relays for at in relay.span}
        for at, item in enumerate(self.passes):
            if at in first:
                yield at, first[at]
            elif at not in joined:
                yield at, item

    def passes_of(self, layer: int | None) -> tuple[Pass, ...]:
        """The passes of a layer (None: of no layer)."""
        return tuple(step for step in self.passes if step.layer == layer)

    def __str__(self) -> str:
        lines = [Line(str(step), step.layer) for step in self.passes]
        joined = ""
        for meets, how in ((True, "one after another"), (False, "side by side")):
            own = [relay for relay in self.relays if relay.meets == meets]
            spans = ", ".join(map(_span_of, own))
            joined += f"for one token these passes are one dispatch each, {how}: {spans}\n" if spans else ""
        return f"{fold_layers(lines)}\n\n{joined}{self.plan}\n\n{self!r}"

    def __repr__(self) -> str:
        layers = {step.layer for step in self.passes} - {None}
        each = [len(self.passes_of(layer)) for layer in layers]
        most = f", at most {max(each)} a layer" if each else ""
        kernels = len(list(self.sources()))
        slots = len(self.plan.slots)
        relays = sum(relay.meets for relay in self.relays)
        pairs = len(self.relays) - relays
        joined = "".join(
            f", {n} {what} for one token" for n, what in ((relays, "relays"), (pairs, "pairs")) if n
        )
        return f"Program({len(self.passes)} passes{most}{joined}, {kernels} shaders, {slots} scratch slots)"
