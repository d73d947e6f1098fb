"""The matrix product for some tokens and more, by a GPU's matrix units: WebGPU's subgroup matrices.

These multiply f16 and add in f32. An input of f32 goes in as two f16, the high part and what is left of it,
so that 22 bits of it count; weights are f16 in the first place. What the units cut off of their sums is left:
6e-6 of the largest result for 2048 columns, where products of f32 are off by 5e-7 (NVIDIA H200).
"""

from __future__ import annotations

from collections.abc import Iterator

from rwkvgraph_codegen.matmul_shape import LANES, SIDE, Shape, head
from rwkvgraph_codegen.matmul_sums import hand_over, span_of, store_result
from rwkvgraph_codegen.matmul_units import SCALE, Tile, Units, deeper, memory, multiply, put


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
        *deeper(_load(tile, "begin")),
        "}",
        f"for (var start = begin; start < whole; start += {step}u) {{",
        *deeper(_store(tile)),
        f"    {barrier}",
        f"    let next = min(start + {step}u, whole - {step}u);",
        *deeper(_load(tile, "next")),
        *deeper(multiply(tile)),
        f"    {barrier}",
        "}",
        "if whole < end {",
        *deeper([*_load_last(tile), *_store(tile), barrier, *multiply(tile), barrier]),
        "}",
        *(line for cell in tile.cells for line in _finish(tile, *cell)),
    ]
    first = [head(shape.threads, splits=shape.splits), *span_of(shape, step)]
    return "\n".join([*memory(tile), *first, *deeper(body), "}"])


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
    return [head, *deeper(lines), "}"]


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


def _finish(tile: Tile, row: int, token: int) -> list[str]:
    """Lines that add up one result of each subgroup of a team over the teams, then finish it."""
    shape = tile.shape
    size = tile.subgroups // shape.teams
    fours = SIDE * SIDE // 4
    return [
        *put(tile, f"total{row}_{token}"),
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
