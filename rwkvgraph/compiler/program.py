"""A program: passes, each with its shaders and the numbers they need, as values that know no device."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from rwkvgraph.compiler.group import Group
from rwkvgraph.compiler.plan import Plan, Slot
from rwkvgraph.compiler.variant import Amount, Variant
from rwkvgraph.op import Buffer
from rwkvgraph.show import Line, fold_layers
from rwkvgraph.view import Dim, Sizes, T
from rwkvgraph_codegen import Source


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

    `buffers` are bound in order after the uniform; `rows`, and slots, decide which variant runs.

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
