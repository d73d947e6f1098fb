"""The matrix product for some tokens and more, by a GPU's matrix units: WebGPU's subgroup matrices.

These multiply f16 and add in f32. An input of f32 goes in as two f16, the high part and what is left of it,
so that 22 bits of it count; weights are f16 in the first place. What the units cut off of their sums is left:
6e-6 of the largest result for 2048 columns, where products of f32 are off by 5e-7 (NVIDIA H200).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

from rwkvgraph_codegen.matmul_shape import LANES, SIDE, Shape, head
from rwkvgraph_codegen.matmul_sums import hand_over, span_of, store_result
from rwkvgraph_codegen.source import fill

Units = Literal["none", "native", "emulated"]
"""Who multiplies matrices: nobody, the subgroups of a device, or, for tests, their lanes one by one."""

MATRIX_HEADER = """\
enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);
"""
"""How a module with subgroup matrices starts: Tint, 2025.

It cannot see that all lanes of a subgroup come to the same places, as it takes what is loaded from memory for
different in each; here what decides is of the whole workgroup.
"""

SPARE = 8
"""Numbers behind each row of a tile: 16 bytes, so that rows side by side begin in different banks."""

SCALE = 8
"""What inputs are divided by.

The high part may be up to 65,504, so inputs up to 524,032; above, results are no numbers. What is left of
small inputs is a multiple of 2^-24, so that no input is off by more than 2^-21, or 2^-21 of itself.
"""

CUT = """\
// A number without the bits that an f16 has not: a conversion there and back is what compilers drop.
fn cut(value: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(value) & vec4<u32>(0xffffe000u));
}"""

NATIVE = """\
fn weights_of(two: vec2<u32>) -> vec4<f16> {
    return bitcast<vec4<f16>>(two);
}
fn short(four: vec4<f32>) -> vec4<f16> {
    return vec4<f16>(four);
}
alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Total = subgroup_matrix_result<f32, 16, 16>;"""

EMULATED = """\
fn weights_of(two: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(two.x), unpack2x16float(two.y));
}
fn short(four: vec4<f32>) -> vec4<f32> {
    return weights_of(vec2<u32>(pack2x16float(four.xy), pack2x16float(four.zw)));
}
alias Total = array<f32, 8>;
"""

_MULTIPLY = """\
fn multiply_$name(lane: u32, at_w: u32, at_x: u32, total: ptr<function, Total>) {
    for (var column = 0u; column < 16u; column++) {
        let w = matrix[at_w + lane / 2u * $stride + column];
        for (var i = 0u; i < 8u; i++) {
            (*total)[i] += w * $name[at_x + (lane % 2u * 8u + i) * $stride + column];
        }
    }
}"""


@dataclass(frozen=True)
class Tile:
    """What a workgroup keeps of a step: rows of the matrix, and of tokens twice, each of `depth` numbers."""

    shape: Shape
    units: Units

    @property
    def stride(self) -> int:
        """Numbers from row to row."""
        return self.shape.depth + SPARE

    @property
    def subgroups(self) -> int:
        """Of a workgroup."""
        return self.shape.threads // LANES

    @property
    def nbytes(self) -> int:
        """Workgroup memory that it takes, with room for one result of each subgroup."""
        number = 4 if self.units == "emulated" else 2
        numbers = (self.shape.group_rows + 2 * self.shape.group_tokens) * self.stride
        return numbers * number + self.subgroups * SIDE * SIDE * 4

    @property
    def blocks(self) -> int:
        """Blocks of eight columns in a step."""
        return self.shape.depth // 8

    @property
    def rows_at_once(self) -> int:
        """Rows of which all threads together load eight columns each."""
        return self.shape.threads // self.blocks

    @property
    def tokens_at_once(self) -> int:
        """Tokens of which all threads together load four columns each."""
        return self.shape.threads // (2 * self.blocks)

    @property
    def cells(self) -> list[tuple[int, int]]:
        """The results of a subgroup, 16 rows by 16 tokens each."""
        shape = self.shape
        return [(row, token) for token in range(shape.tokens // SIDE) for row in range(shape.rows // SIDE)]


def matrix(shape: Shape, units: Units) -> str:
    """The kernel: loads of the next step are under way while one is multiplied.

    Workgroups that share a tile leave it to the kernel after to add up. The last step, where that has less
    than `depth` columns, is apart, and the loop has no branches: what compares each column with the last took
    a third of the time of a product of many tokens, and not to load the last whole step again 40 % more for
    65,536 rows (NVIDIA H200).
    """
    tile = Tile(shape, units)
    step, barrier = tile.blocks, "workgroupBarrier();"
    body = [
        *_places(tile),
        f"let whole = begin + (max(end, begin) - begin) / {step}u * {step}u;",
        *(f"var total{row}_{token}: Total;" for row, token in tile.cells),
        *_pieces(tile),
        "if begin < whole {",
        *_deeper(_load(tile, "begin")),
        "}",
        f"for (var start = begin; start < whole; start += {step}u) {{",
        *_deeper(_store(tile)),
        f"    {barrier}",
        f"    let next = min(start + {step}u, whole - {step}u);",
        *_deeper(_load(tile, "next")),
        *_deeper(_multiply(tile)),
        f"    {barrier}",
        "}",
        "if whole < end {",
        *_deeper([*_load_last(tile), *_store(tile), barrier, *_multiply(tile), barrier]),
        "}",
        *(line for cell in tile.cells for line in _finish(tile, *cell)),
    ]
    first = [head(shape.threads, splits=shape.splits), *span_of(shape, step)]
    return "\n".join([*_memory(tile), *first, *_deeper(body), "}"])


def _deeper(lines: Iterable[str]) -> list[str]:
    """Lines of a block."""
    return ["    " + line for line in lines]


def _memory(tile: Tile) -> list[str]:
    """What comes before the entry point."""
    kind = "f32" if tile.units == "emulated" else "f16"
    rows, tokens = tile.shape.group_rows * tile.stride, tile.shape.group_tokens * tile.stride
    out = [
        f"var<workgroup> matrix: array<{kind}, {rows}>;",
        f"var<workgroup> high: array<{kind}, {tokens}>;",
        f"var<workgroup> low: array<{kind}, {tokens}>;",
        f"var<workgroup> results: array<f32, {tile.subgroups * SIDE * SIDE}>;",
    ]
    if tile.units == "native":
        return [CUT, NATIVE, *out]
    functions = [fill(_MULTIPLY, name=name, stride=f"{tile.stride}u") for name in ("high", "low")]
    return [CUT, EMULATED, *out, *functions]


def _places(tile: Tile) -> list[str]:
    """Lines that say which rows, tokens and columns of the tile a subgroup multiplies."""
    shape = tile.shape
    size = tile.subgroups // shape.teams
    columns = shape.depth // shape.teams
    return [
        f"let first_row = (unit - shape.x) * {shape.group_rows}u;",
        f"let first_token = group.x * {shape.group_tokens}u;",
        f"let subgroup = thread / {LANES}u;",
        f"let lane = thread % {LANES}u;",
        f"let mine = subgroup % {size}u;",
        f"let column = subgroup / {size}u * {columns}u;",
        f"let at_w = mine % {shape.wide}u * {shape.rows * tile.stride}u + column;",
        f"let at_x = mine / {shape.wide}u * {shape.tokens * tile.stride}u + column;",
    ]


def _pieces(tile: Tile) -> list[str]:
    """Lines that say which pieces of each step a thread loads: columns side by side, threads side by side.

    A thread has the same columns of some rows, as many rows apart as threads have at once: so what says where
    is worked out once, and a step only adds to it.
    """
    blocks, quads, stride = tile.blocks, 2 * tile.blocks, tile.stride
    out = [
        f"let block_w = thread % {blocks}u;",
        f"let row_w = thread / {blocks}u;",
        f"let spot_w = row_w * {stride}u + block_w * 8u;",
        f"let quad_x = thread % {quads}u;",
        f"let token_x = thread / {quads}u;",
        f"let spot_x = token_x * {stride}u + quad_x * 4u;",
    ]
    for turn, first in _turns(tile.shape.group_rows, tile.rows_at_once):
        out.append(f"let from_w{turn} = place.x + min(first_row + row_w + {first}u, last_row) * place.y;")
        out.append(f"var held_w{turn} = vec4<u32>(0u);")
    for turn, first in _turns(tile.shape.group_tokens, tile.tokens_at_once):
        token = f"min(first_token + token_x + {first}u, last_token)"
        out.append(f"let from_x{turn} = (source.x + {token} * source.y) / 4u;")
        out.append(f"var held_x{turn} = vec4<f32>(0.0);")
    return out


def _turns(count: int, at_once: int) -> Iterator[tuple[int, int]]:
    """The turns that so many rows take, and the first row of each."""
    return enumerate(range(0, count, at_once))


def _for_rows(row: str, first: int, count: int, at_once: int, lines: list[str]) -> list[str]:
    """A block for those threads alone that have a row in a turn."""
    head = "{" if first + at_once <= count else f"if {row} < {count - first}u {{"
    return [head, *_deeper(lines), "}"]


def _load(tile: Tile, start: str) -> list[str]:
    """Lines that load a thread's pieces of the whole step at block `start` into registers."""
    return [
        f"let block = {start} + block_w;",
        f"let quad = {start} * 2u + quad_x;",
        *_load_pieces(tile, "input(part, from_x{}, quad)"),
    ]


def _load_last(tile: Tile) -> list[str]:
    """Lines that load the last step: behind the last column the last weights again, zeros for inputs."""
    return [
        "let block = min(whole + block_w, shape.z - 1u);",
        "let wanted = whole * 2u + quad_x;",
        "let quad = min(wanted, shape.z * 2u - 1u);",
        "let is_there = wanted == quad;",
        *_load_pieces(tile, "select(vec4<f32>(0.0), input(part, from_x{}, quad), is_there)"),
    ]


def _load_pieces(tile: Tile, value: str) -> list[str]:
    rows, tokens = tile.shape.group_rows, tile.shape.group_tokens
    out = []
    for turn, first in _turns(rows, tile.rows_at_once):
        lines = [f"held_w{turn} = weight(part, from_w{turn} + block);"]
        out += _for_rows("row_w", first, rows, tile.rows_at_once, lines)
    for turn, first in _turns(tokens, tile.tokens_at_once):
        lines = [f"held_x{turn} = {value.format(turn)};"]
        out += _for_rows("token_x", first, tokens, tile.tokens_at_once, lines)
    return out


def _store(tile: Tile) -> list[str]:
    """Lines that put a thread's pieces into workgroup memory, inputs as their two parts.

    WGSL stores one f16 at a time; a driver's compiler makes one store of those that are side by side.
    """
    rows, tokens = tile.shape.group_rows, tile.shape.group_tokens
    out = []
    for turn, first in _turns(rows, tile.rows_at_once):
        lines = [
            f"let first = weights_of(held_w{turn}.xy);",
            f"let second = weights_of(held_w{turn}.zw);",
            *_spread("matrix", "spot_w", "first", first * tile.stride),
            *_spread("matrix", "spot_w", "second", first * tile.stride + 4),
        ]
        out += _for_rows("row_w", first, rows, tile.rows_at_once, lines)
    for turn, first in _turns(tokens, tile.tokens_at_once):
        lines = [
            f"let value = held_x{turn} * {1 / SCALE};",
            "let first = cut(value);",
            "let highs = short(first);",
            "let lows = short(value - first);",
            *_spread("high", "spot_x", "highs", first * tile.stride),
            *_spread("low", "spot_x", "lows", first * tile.stride),
        ]
        out += _for_rows("token_x", first, tokens, tile.tokens_at_once, lines)
    return out


def _spread(array: str, spot: str, four: str, behind: int) -> list[str]:
    """Lines that store four numbers, so far behind a spot."""
    return [f"{array}[{spot} + {behind + i}u] = {four}.{axis};" for i, axis in enumerate("xyzw")]


def _multiply(tile: Tile) -> list[str]:
    """Lines that add the products of a subgroup's columns of a step to its results."""
    out = []
    for column in range(0, tile.shape.depth // tile.shape.teams, SIDE):
        if tile.units == "emulated":
            out += [
                f"multiply_{name}(lane, {_at('at_w', row, column, tile)}, "
                f"{_at('at_x', token, column, tile)}, &total{row}_{token});"
                for row, token in tile.cells
                for name in ("high", "low")
            ]
        else:
            out += ["{", *_deeper(_multiply_natively(tile, column)), "}"]
    return out


def _multiply_natively(tile: Tile, column: int) -> list[str]:
    out, stride = [], f"{tile.stride}u"
    rows = range(tile.shape.rows // SIDE)
    for row in rows:
        spot = _at("at_w", row, column, tile)
        out.append(f"let w{row} = subgroupMatrixLoad<Left>(&matrix, {spot}, false, {stride});")
    for token in range(tile.shape.tokens // SIDE):
        spot = _at("at_x", token, column, tile)
        out += [
            f"let {name}{token} = subgroupMatrixLoad<Right>(&{name}, {spot}, true, {stride});"
            for name in ("high", "low")
        ]
        for name, row in product(("high", "low"), rows):
            total = f"total{row}_{token}"
            out.append(f"{total} = subgroupMatrixMultiplyAccumulate(w{row}, {name}{token}, {total});")
    return out


def _at(start: str, number: int, column: int, tile: Tile) -> str:
    """Where a matrix of a tile begins."""
    return f"{start} + {number * SIDE * tile.stride + column}u"


def _finish(tile: Tile, row: int, token: int) -> list[str]:
    """Lines that add up one result of each subgroup of a team over the teams, then finish it."""
    shape = tile.shape
    size = tile.subgroups // shape.teams
    fours = SIDE * SIDE // 4
    return [
        *_put(tile, f"total{row}_{token}"),
        "workgroupBarrier();",
        f"for (var item = thread; item < {size * fours}u; item += {shape.threads}u) {{",
        "    var total = vec4<f32>(0.0);",
        f"    for (var other = 0u; other < {shape.teams}u; other++) {{",
        f"        let at = (other * {size * fours}u + item) * 4u;",
        "        total += vec4<f32>(results[at], results[at + 1u], results[at + 2u], results[at + 3u]);",
        "    }",
        f"    total *= {SCALE}.0;",
        f"    let cell = item / {fours}u;",
        f"    let lane_w = cell % {shape.wide}u * {shape.rows // 4}u + item % 4u + {row * SIDE // 4}u;",
        f"    let in_team = cell / {shape.wide}u * {shape.tokens}u;",
        f"    let lane_x = in_team + item / 4u % {SIDE}u + {token * SIDE}u;",
        *(line[4:] for line in (hand_over(shape) if shape.splits > 1 else store_result())),
        "}",
        "workgroupBarrier();",
    ]


def _put(tile: Tile, total: str) -> list[str]:
    """Lines that put a result of each subgroup into workgroup memory, token after token."""
    start = f"subgroup * {SIDE * SIDE}u"
    if tile.units == "native":
        return [f"subgroupMatrixStore(&results, {start}, {total}, true, {SIDE}u);"]
    return [
        "for (var i = 0u; i < 8u; i++) {",
        f"    results[{start} + (lane % 2u * 8u + i) * {SIDE}u + lane / 2u] = {total}[i];",
        "}",
    ]
