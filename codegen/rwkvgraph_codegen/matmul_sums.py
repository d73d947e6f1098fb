"""From the sums of teams to results, be all of a tile's columns one workgroup's or shared by several."""

from __future__ import annotations

from rwkvgraph_codegen.matmul_layout import VALUE, Layout
from rwkvgraph_codegen.matmul_shape import Shape, head


def span_of(shape: Shape, turn: int) -> list[str]:
    """Lines that say which blocks of columns a workgroup takes: all, or as many as each that shares the tile.

    Whole turns of the loop, of so many blocks: what lies behind belongs to others, or is none.
    """
    splits = shape.splits
    if splits == 1:
        return ["    let begin = 0u;", "    let end = shape.z;"]
    return [
        f"    let each = (shape.z + {turn * splits - 1}u) / {turn * splits}u * {turn}u;",
        "    let begin = split * each;",
        "    let end = min(begin + each, shape.z);",
        "    let tile = index * groups.x + group.x;",
    ]


def add_up(layout: Layout, later: bool) -> list[str]:
    """Lines that add the teams' sums, as many at a time as workgroup memory holds, and finish them.

    later: another kernel goes on with what workgroups that share a tile hand over.
    """
    shape = layout.shape
    quarters = shape.rows // 4
    values = [f"sum{q}_{t}" for t in range(shape.tokens) for q in range(quarters)]
    at_once = len(values)
    while at_once * shape.threads * VALUE > layout.nbytes:
        at_once //= 2
    out: list[str] = []
    for first in range(0, len(values), at_once):
        if first:
            out.append("    workgroupBarrier();")
        for index, value in enumerate(values[first : first + at_once]):
            out.append(f"    {layout.place(f'(thread + {index * shape.threads}u)')} = {value};")
        out += ["    workgroupBarrier();", *_finish(layout, first, at_once)]
    return out + (_last(shape) if shape.splits > 1 and not later else [])


def _finish(layout: Layout, first: int, count: int) -> list[str]:
    """Lines that finish the results of `count` sums of each thread of a team, the `first` and those after."""
    shape = layout.shape
    size, quarters, wide = shape.threads // shape.teams, shape.rows // 4, shape.wide
    place = layout.place(f"(item / {size}u * {shape.threads}u + other * {size}u + item % {size}u)")
    pairs = shape.deep > 1
    lane_w = f"item % {size}u{' / 2u' if pairs else ''} % {wide}u"
    lane_x = f"item % 2u + item % {size}u / {2 * wide}u * 2u" if pairs else "0u"
    return [
        f"    for (var item = thread; item < {count * size}u; item += {shape.threads}u) {{",
        "        var total = vec4<f32>(0.0);",
        f"        for (var other = 0u; other < {shape.teams}u; other++) {{",
        f"            total += {place};",
        "        }",
        f"        let value = item / {size}u + {first}u;",
        f"        let lane_w = {lane_w} + value % {quarters}u * {wide}u;",
        f"        let four = {lane_x} + value / {4 * quarters}u * {shape.deep}u;",
        f"        let lane_x = four * 4u + value / {quarters}u % 4u;",
        *(hand_over(shape) if shape.splits > 1 else store_result()),
        "    }",
    ]


def store_result() -> list[str]:
    """Lines that finish `total`, of four rows and a token of the tile."""
    return [
        "        let row = first_row + lane_w * 4u;",
        "        let token = first_token + lane_x;",
        "        if is_inside && row <= last_row && token <= last_token {",
        "            finish(part, token, place.z + row / 4u, total);",
        "        }",
    ]


def hand_over(shape: Shape) -> list[str]:
    """Lines that leave `total` for the last workgroup of the tile, or another kernel, to add up."""
    return [
        "        if is_inside {",
        f"            let spot = (tile * {shape.splits}u + split) * {_items(shape)}u;",
        f"            hand_over(spot + lane_x * {shape.group_rows // 4}u + lane_w, total);",
        "        }",
    ]


def _last(shape: Shape) -> list[str]:
    """Lines by which the last workgroup of a tile adds up what all have handed over, in their order.

    What they wrote before they were counted is there for who counts last; nobody has looked before.
    """
    items = _items(shape)
    return [
        "    if !is_inside {",
        "        return;",
        "    }",
        "    storageBarrier();",
        "    if thread == 0u {",
        f"        is_last = u32(count(tile) == {shape.splits - 1}u);",
        "        if is_last != 0u {",
        "            count_anew(tile); // for the next kernel",
        "        }",
        "    }",
        "    workgroupBarrier();",
        "    storageBarrier(); // what the others wrote, after they are known to have",
        "    if is_last == 0u {",
        "        return;",
        "    }",
        f"    for (var item = thread; item < {items}u; item += {shape.threads}u) {{",
        *_total(shape),
        "    }",
    ]


def _items(shape: Shape) -> int:
    """Results of a tile, four rows each."""
    return shape.group_rows // 4 * shape.group_tokens


def _total(shape: Shape) -> list[str]:
    """Lines that add up what all workgroups of a tile have of an item, in their order, and finish it."""
    rows = shape.group_rows // 4
    return [
        "        var total = vec4<f32>(0.0);",
        f"        for (var other = 0u; other < {shape.splits}u; other++) {{",
        f"            total += handed((tile * {shape.splits}u + other) * {_items(shape)}u + item);",
        "        }",
        f"        let lane_w = item % {rows}u;",
        f"        let lane_x = item / {rows}u;",
        *store_result(),
    ]


ADDERS = 64
"""Threads of a workgroup that adds up what others have handed over: few, as a tile has not many results."""


def adders(shape: Shape) -> int:
    """Workgroups that add up a tile."""
    return -(-_items(shape) // ADDERS)


def adding(shape: Shape) -> str:
    """The kernel that goes on where workgroups of a tile have each handed over what they have."""
    return "\n".join(
        [
            head(ADDERS, splits=adders(shape)),
            f"    let first_row = (unit - shape.x) * {shape.group_rows}u;",
            f"    let first_token = group.x * {shape.group_tokens}u;",
            "    let tile = index * groups.x + group.x;",
            f"    let item = {f'split * {ADDERS}u + ' if adders(shape) > 1 else ''}thread;",
            f"    if item < {_items(shape)}u {{",
            *_total(shape),
            "    }",
            "}",
        ]
    )
