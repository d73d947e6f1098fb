"""Who multiplies the matrices of a product: a GPU's units, by subgroup matrices, or its lanes by hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Literal

from rwkvgraph_codegen.matmul_shape import LANES, SIDE, Shape
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


def deeper(lines: Iterable[str]) -> list[str]:
    """Lines of a block."""
    return ["    " + line for line in lines]


def memory(tile: Tile) -> list[str]:
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


def multiply(tile: Tile) -> list[str]:
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
            out += ["{", *deeper(_multiply_natively(tile, column)), "}"]
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


def put(tile: Tile, total: str) -> list[str]:
    """Lines that put a result of each subgroup into workgroup memory, token after token."""
    start = f"subgroup * {SIDE * SIDE}u"
    if tile.units == "native":
        return [f"subgroupMatrixStore(&results, {start}, {total}, true, {SIDE}u);"]
    return [
        "for (var i = 0u; i < 8u; i++) {",
        f"    results[{start} + (lane % 2u * 8u + i) * {SIDE}u + lane / 2u] = {total}[i];",
        "}",
    ]
