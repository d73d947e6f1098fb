"""The parts of a matrix product, side by side in a pass, and the functions that its kernels call for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rwkvgraph.compiler.domain import matmul_domain
from rwkvgraph.compiler.scope import Scope
from rwkvgraph.compiler.variant import Amount
from rwkvgraph.compiler.writer import Writer
from rwkvgraph.op import Buffer, Tensor, TensorOp
from rwkvgraph.ops.matmul import Matmul
from rwkvgraph.quant import BLOCK
from rwkvgraph.view import LANES, resolve
from rwkvgraph_codegen import TEAM_BITS, Shape, Statement, hold

WORDS = 3
"""Rows of the uniform's table that each part takes: its shape, its weights' place, its input's place."""

QUAD_BLOCKS = 16
"""What four rows cost a workgroup of a relay besides their blocks of columns, in such blocks."""


@dataclass(frozen=True)
class Part:
    """Some rows of one matrix, side by side with others in a pass. `first`: its first row in the result."""

    op: Matmul
    weights: Tensor
    first: int
    after: tuple[TensorOp, ...]

    @property
    def rows(self) -> int:
        """Rows of the matrix in this part."""
        return resolve(self.weights.shape[0], {})

    @property
    def columns(self) -> int:
        """Columns of the matrix."""
        return resolve(self.op.x.shape[1], {})


def set_units(writer: Writer, parts: Sequence[Part], shape: Shape) -> int:
    """Write where each part's workgroups start, their teams and the threads of one; gives their number."""
    teams = [shape.teams_for(part.columns) for part in parts]
    rows = [shape.group_rows * count for count in teams]
    units = [-(-part.rows // each) for part, each in zip(parts, rows, strict=True)]
    return _set_starts(writer, units, [count | shape.threads // count << TEAM_BITS for count in teams])


def _set_starts(writer: Writer, units: Sequence[int], words: Sequence[int]) -> int:
    """Write each part's first workgroup, of so many, and the word that says how they share; gives the sum."""
    first = 0
    for index, (count, word) in enumerate(zip(units, words, strict=True)):
        at, source = WORDS * index, WORDS * index + 2
        writer.table[at] = (Amount(first), *writer.table[at][1:])
        writer.table[source] = (*writer.table[source][:2], Amount(word), writer.table[source][3])
        first += count
    return first


def set_shares(writer: Writer, parts: Sequence[Part], workgroups: int) -> int:
    """Write which workgroups each part has, of as many as run at once, and their quads; gives the number.

    Each part has at least one, and the next goes to the part whose workgroups have the most to do.
    """
    quads = [-(-part.rows // LANES) for part in parts]
    work = [-(-part.columns // BLOCK) + QUAD_BLOCKS for part in parts]
    shares = [1] * len(parts)
    for _ in range(workgroups - len(parts)):
        index = max(range(len(parts)), key=lambda at: -(-quads[at] // shares[at]) * work[at])
        if shares[index] < quads[index]:
            shares[index] += 1
    each = [-(-count // own) for count, own in zip(quads, shares, strict=True)]
    used = [-(-count // own) for count, own in zip(quads, each, strict=True)]
    return _set_starts(writer, used, each)


def weight_of(writer: Writer, part: Part) -> str:
    """The expression for a block of a part's weights by its number."""
    assert isinstance(part.weights.source, Buffer), "weights live in buffers"
    return writer.binding(part.weights.source).block("index")


def set_place(writer: Writer, index: int, part: Part) -> None:
    """Write the size of a part's matrix, and where it lies."""
    view, columns = part.weights.view, part.columns
    size = (Amount(), Amount(part.rows), Amount(-(-columns // BLOCK)), Amount(columns))
    spot = (view.offset // BLOCK, view.strides[0] // BLOCK, part.first // LANES, 0)
    writer.table[WORDS * index] = size
    writer.table[WORDS * index + 1] = (Amount(spot[0]), Amount(spot[1]), Amount(spot[2]), Amount(spot[3]))


COLUMNS_ONLY = """\
// A row of the input may end inside a block of weights: what lies behind it belongs to others.
fn last_lane(part: u32, lane: u32) -> u32 {
    return min(lane, (here.at[part * 3u].w - 1u) / 4u);
}
fn columns_only(part: u32, lane: u32, value: vec4<f32>) -> vec4<f32> {
    let inside = lane * 4u + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(here.at[part * 3u].w);
    return select(vec4<f32>(0.0), value, inside);
}"""


def switch(head: str, cases: Sequence[str], before: Sequence[str] = ()) -> str:
    """A function with one statement a part; parts with the same statement share it.

    `before`: its first lines.
    """
    if len(set(cases)) == 1:
        text = cases[0].replace("\n            ", "\n    ")
        return "\n".join([f"{head} {{", *before, f"    {text}", "}"])
    lines = [f"{head} {{", *before, "    switch part {"]
    for text in dict.fromkeys(cases):
        labels = [f"{index}u" for index, case in enumerate(cases) if case == text]
        if text == cases[-1]:
            labels = [*labels, "default"]
        lines.append(f"        case {', '.join(labels)}: {{\n            {text}\n        }}")
    return "\n".join([*lines, "    }", "}"])


def part_of(count: int) -> str:
    """The function that finds the part a workgroup belongs to, by the parts' first workgroups."""
    steps = [f"    part += u32(unit >= here.at[{WORDS * index}].x);" for index in range(1, count)]
    return "\n".join(
        ["fn part_of(unit: u32) -> u32 {", "    var part = 0u;", *steps, "    return part;", "}"]
    )


class Cases:
    """A function with a case a part, whole; or in two: what loads, and what goes on from there.

    struct: the name of what one hands to the other.
    """

    def __init__(self, struct: str) -> None:
        self.statements: list[Statement] = []
        self._struct = struct
        self._wholes: list[str] = []
        self._loads: list[str] = []
        self._rests: list[str] = []
        self._fields: list[list[tuple[str, str]]] = []

    def add(self, statements: Sequence[Statement], value: str = "", given: str = "{}") -> None:
        """The case of a part. value: the variable that it returns, if any, in the expression `given`."""
        held = hold(statements)
        names = ", ".join(name for name, _ in held.fields)
        loads: list[Statement] = [*held.common, *held.lanes]
        self.statements += statements
        self._fields.append(held.fields)
        self._wholes.append(_lines(statements, given.format(value) if value else ""))
        self._loads.append(_lines(loads, f"{self._struct}({names})"))
        self._rests.append(_lines(held.rest(statements), given.format(held.name(value)) if value else ""))

    @property
    def can_part(self) -> bool:
        """Whether something is loaded, and the same for all parts."""
        return bool(self._fields[0]) and all(each == self._fields[0] for each in self._fields)

    def whole(self, head: str, before: Sequence[str], after: Sequence[str] = ()) -> str:
        """The function. before, after: its first lines."""
        return switch(head, self._wholes, [*before, *after])

    def halves(
        self, load: str, rest: str, argument: str, before: Sequence[str], after: Sequence[str] = ()
    ) -> str:
        """Both functions, where it `can_part`.

        load, rest: their heads. argument: what the second calls what it is given. before: the first lines of
        both; after: more of the second's.
        """
        members = [f"    {name}: {kind}," for name, kind in self._fields[0]]
        given = [f"    let {name} = {argument}.{name};" for name, _ in self._fields[0]]
        loads = switch(f"{load} -> {self._struct}", self._loads, before)
        rests = switch(rest, self._rests, [*before, *given, *after])
        return "\n".join([f"struct {self._struct} {{", *members, "}", loads, rests])


def _lines(statements: Iterable[Statement], value: str) -> str:
    """The lines of a case, which returns a value unless that is empty."""
    lines = [statement.text() for statement in statements]
    return "\n            ".join([*lines, f"return {value};"] if value else lines)


@dataclass(frozen=True)
class Finish:
    """The function that maps and stores four rows of one token's result, and its statements.

    ahead: that function, given what another one loads before there is a result; None where parts load
    different things, or nothing.
    """

    text: str
    ahead: str | None
    statements: tuple[Statement, ...]


def finish_of(writer: Writer, parts: Sequence[Part]) -> Finish:
    """How a product's results are finished.

    Parts followed by the same operations share a case: what differs between them is in their rows of the
    table.
    """
    cases = Cases("Kept")
    for index, part in enumerate(parts):
        place = writer.table[WORDS * index + 1]
        writer.table[WORDS * index + 1] = (*place[:3], Amount(writer.start_part()))
        scope = Scope(writer)
        scope.give(part.op, "value")
        domain = matmul_domain(part.op)
        for op in (part.op, *part.after):
            if op in writer.stored or op.updates():
                scope.store(op, domain)
        cases.add(scope.statements)
        writer.forget_names()
    head = "fn finish(part: u32, i0: u32, i2: u32, value: vec4<f32>"
    keep = "fn keep(part: u32, i0: u32, i2: u32)"
    lines = ["    let i1 = 0u;", f"    let first = here.at[part * {WORDS}u + 1u].w;"]
    ahead = cases.halves(keep, f"{head}, kept: Kept)", "kept", lines) if cases.can_part else None
    return Finish(cases.whole(f"{head})", lines), ahead, tuple(cases.statements))
