"""The kernels of a matrix product, from the functions that they call: of a dispatch, and of a relay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rwkvgraph.compiler.matmul_parts import Finish, Part, part_of, set_shares, set_units
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.tuning import tuning_for
from rwkvgraph.compiler.variant import COUNTED, HANDED, LOOK_WORD, LOOKED, SUMS, Amount, Grid, Row, Variant
from rwkvgraph.compiler.writer import Writer
from rwkvgraph.view import LANES
from rwkvgraph_codegen import (
    ADDERS,
    MATRIX_HEADER,
    Parts,
    Shape,
    Source,
    Statement,
    adders,
    adding,
    assemble,
    bring,
    can_keep,
    matmul_main,
    uses_subgroups,
)

NO_PREPARE = """\
fn prepare(thread: u32, subgroup: u32) {
}"""
"""What a share has to prepare where its input is there."""


@dataclass(frozen=True)
class Product:
    """What all kernels of a pass are made of.

    texts: how they read weights and inputs, by these statements. prepares: whether that takes `prepare`, then
    one of the texts.
    """

    label: str
    parts: Sequence[Part]
    writer: Writer
    target: Target
    finish: Finish
    texts: Sequence[str]
    statements: Sequence[Statement] = ()
    prepares: bool = False

    @property
    def tokens(self) -> Amount:
        """Of a run."""
        return Amount.of(self.parts[0].op.shape[0])

    def variant(self, shape: Shape, most_tokens: int | None, tables: str = "") -> Variant:
        """A kernel of a dispatch. tables: the name of the tables' binding, where there is one."""
        units = set_units(self.writer, self.parts, shape)
        later = shape.splits > 1 and not (self.target.coherent and shape.family == "team")
        shares = sharing(self.writer, later) if shape.splits > 1 else ""
        looks = bool(tables) and shape.family == "split" and shape.tokens == 1
        source = self._source(shape, tables if looks else "", shares, later)
        table, after = self._table(units), None
        if later:
            adds = self._assembled(adding(shape), shares, ADDERS, False)
            after = Variant(adds, table, self._grid(shape, units * adders(shape)))
        return Variant(source, table, self._grid(shape, units * shape.splits + looks), most_tokens, after)

    def _grid(self, shape: Shape, workgroups: int) -> Grid:
        """So many workgroups for each tile of tokens.

        Those with the same rows side by side: what one has read of them, the cache has for the others.
        """
        return Grid(Amount(workgroups), 1, self.tokens, shape.group_tokens, deep_first=True)

    def leg(self, workgroups: int) -> Variant:
        """The kernel of a relay, which so many workgroups share."""
        units = set_shares(self.writer, self.parts, workgroups)
        source = self._source(tuning_for(self.target).share, "")
        return Variant(source, self._table(units), Grid(Amount(units)), 1)

    def _table(self, units: int) -> tuple[Row, ...]:
        return (self.tokens, Amount(units), Amount(), Amount()), *self.writer.table

    def _source(self, shape: Shape, tables: str, shares: str = "", later: bool = False) -> Source:
        is_share = shape.family == "share"
        subgroups = uses_subgroups(shape, self.target.subgroups)
        kept = self.finish.ahead if can_keep(shape, subgroups) and not self.prepares else None
        by = self.target.matrices
        main = matmul_main(shape, subgroups, self.prepares, bool(kept), bool(tables), by, later)
        extra = [NO_PREPARE] if is_share and not self.prepares else []
        extra += [bring(shape.threads, 1 if self.prepares else 4)] if is_share else []
        extra += [shares] if shares else []
        extra += [look_ahead(tables, shape.threads, bool(kept))] if tables else []
        header = MATRIX_HEADER if shape.family == "matrix" and by == "native" else ""
        body = "\n".join(extra)
        source = self._assembled(main, body, shape.threads, subgroups, kept or "", header)
        return replace(source, engine=f"{main}\n" if is_share else "", looks_ahead=bool(tables))

    def _assembled(
        self, main: str, extra: str, threads: int, subgroups: bool, finish: str = "", header: str = ""
    ) -> Source:
        """A kernel: its entry point behind the functions that it calls."""
        texts = [part_of(len(self.parts)), *self.texts, finish or self.finish.text]
        body = "\n".join([*texts, *([extra] if extra else []), main])
        functions = tuple(self.writer.functions.values())
        statements = (*self.statements, *self.finish.statements)
        places = len(self.writer.table)
        kernel = Parts(self.writer.bindings(), functions, statements, places, LANES, subgroups, header)
        return assemble(self.label, kernel, body, threads, self.target.dialect)


def sharing(writer: Writer, later: bool) -> str:
    """The functions by which workgroups of a tile hand over what they have.

    later: to a kernel after them; otherwise also those that tell which of them is the last.
    """
    handed = writer.binding(SUMS if later else HANDED).name
    over = f"""\
fn hand_over(at: u32, value: vec4<f32>) {{
    {handed}[at] = value;
}}
fn handed(at: u32) -> vec4<f32> {{
    return {handed}[at];
}}"""
    if later:
        return over
    counted = writer.binding(COUNTED).name
    return f"""\
{over}
fn count(tile: u32) -> u32 {{
    return atomicAdd(&{counted}[tile], 1u);
}}
fn count_anew(tile: u32) {{
    atomicStore(&{counted}[tile], 0u);
}}"""


def look_ahead(tables: str, threads: int, keeps: bool) -> str:
    """The function that brings the tables of the kernels behind this one into the cache that all share."""
    kept = ", keep(part, 0u, 0u)" if keeps else ""
    return f"""\
fn look_ahead(part: u32, thread: u32) {{
    var seen = 0u;
    for (var at = thread * 2u; at < {LOOKED}u; at += {2 * threads}u) {{
        seen ^= {tables}[(here.size.{"xyzw"[LOOK_WORD]} + at) * 4u]; // memory gives 32 bytes
    }}
    if seen == 0x9e3779b9u && here.size.x == 0u {{
        finish(part, 0u, 0u, vec4<f32>(0.0){kept}); // never, but who compiles this cannot know
    }}
}}"""
