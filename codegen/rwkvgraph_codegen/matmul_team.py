"""The matrix product for some tokens and more: teams of threads share the columns of a tile."""

from __future__ import annotations

from rwkvgraph_codegen.matmul_layout import Layout
from rwkvgraph_codegen.matmul_shape import Shape, head
from rwkvgraph_codegen.matmul_sums import add_up, span_of


def team(shape: Shape, later: bool = False) -> str:
    """The kernel: loads of later steps are under way while the columns of one are multiplied.

    The pieces of a step go from the buffers into registers, from there into workgroup memory. later: another
    kernel adds up what workgroups that share a tile have.
    """
    layout = Layout(shape)
    kind = "vec4<f32>"
    for size in reversed(layout.sizes):
        kind = f"array<{kind}, {size}>"
    out = [f"var<workgroup> tiles: {kind};"]
    out += ["var<workgroup> is_last: u32;"] if shape.splits > 1 and not later else []
    out += [
        head(shape.threads, splits=shape.splits),
        *_places(layout),
        *span_of(shape, layout.blocks * shape.ahead),
    ]
    for turn in layout.turns:
        out += _piece(layout, turn)
    out += [
        f"    var sum{q}_{t} = vec4<f32>(0.0);" for t in range(shape.tokens) for q in range(shape.rows // 4)
    ]
    out += _steps_of_two_buffers(layout) if shape.buffers > 1 else _steps(layout)
    return "\n".join([*out, *add_up(layout, later), "}"])


def _places(layout: Layout) -> list[str]:
    """Lines that say which rows and tokens a thread multiplies.

    Neighbours differ in the token first, then in the row: NVIDIA's workgroup memory serves 16 threads at once
    instead of 8 where each pair of them, or of those two apart, wants the same vec4.
    """
    shape = layout.shape
    size, wide = shape.threads // shape.teams, shape.wide
    pairs = shape.deep > 1
    return [
        f"    let first_row = (unit - shape.x) * {shape.group_rows}u;",
        f"    let first_token = group.x * {shape.group_tokens}u;",
        f"    let team = thread / {size}u;",
        f"    let mine = thread % {size}u;",
        f"    let mine_w = mine{' / 2u' if pairs else ''} % {wide}u;",
        f"    let mine_x = {f'mine % 2u + mine / {2 * wide}u * 2u' if pairs else '0u'};",
    ]


def _plus(start: str, blocks: int) -> str:
    return f"{start} + {blocks}u" if blocks else start


def _piece(layout: Layout, turn: int) -> list[str]:
    """Lines that say which piece of each step a thread loads.

    Threads side by side load columns side by side.
    """
    weights, blocks = layout.items[0], layout.blocks
    out = [f"    let item{turn} = thread + {turn * layout.shape.threads}u;"]
    out += [f"    var at{turn} = item{turn} % {blocks}u;\n    var lane{turn} = item{turn} / {blocks}u;"]
    for r in range(4):
        row = f"min(first_row + lane{turn} * 4u + {r}u, last_row)"
        out.append(f"    var from{turn}_{r} = place.x + {row} * place.y;")
        out += [f"    var held{n}_{turn}_{r} = vec4<u32>(0u);" for n in range(layout.shape.ahead)]
    out += [
        f"    if item{turn} >= {weights}u {{",
        f"        let rest = item{turn} - {weights}u;",
        f"        at{turn} = rest % {2 * blocks}u;",
        f"        lane{turn} = {layout.rows}u + rest / {2 * blocks}u;",
    ]
    for r in range(4):
        token = f"min(first_token + rest / {2 * blocks}u * 4u + {r}u, last_token)"
        out.append(f"        from{turn}_{r} = (source.x + {token} * source.y) / 4u;")
    return [*out, "    }"]


def _load(layout: Layout, start: str, number: int) -> list[str]:
    """Lines that load a thread's pieces of the step at block `start` into a set of registers.

    Behind the last column are the last weights again, and zeros for inputs.
    """
    out: list[str] = []
    for turn in layout.turns:
        weights = [f"            let block = min({start} + at{turn}, shape.z - 1u);"]
        weights += [
            f"            held{number}_{turn}_{r} = weight(part, from{turn}_{r} + block);" for r in range(4)
        ]
        inputs = [f"            let lane = ({start}) * 2u + at{turn};"]
        inputs += [f"            held{number}_{turn}_{r} = vec4<u32>(0u);" for r in range(4)]
        inputs.append("            if lane < shape.z * 2u {")
        for r in range(4):
            value = f"bitcast<vec4<u32>>(input(part, from{turn}_{r}, lane))"
            inputs.append(f"                held{number}_{turn}_{r} = {value};")
        out += _either(layout, turn, weights, [*inputs, "            }"])
    return out


def _store(layout: Layout, buffer: str, number: int) -> list[str]:
    """Lines that put a thread's pieces from a set of registers into workgroup memory, transposed."""
    out: list[str] = []
    for turn in layout.turns:
        weights: list[str] = []
        for half, first in (("low", 0), ("high", 4)):
            weights += [f"            let {half}{r} = {half}(held{number}_{turn}_{r});" for r in range(4)]
            cell, shift = f"at{turn}", first
            if layout.columns == 4:
                cell, shift = f"at{turn} * 2u + {first // 4}u", 0
            for c in range(4):
                value = ", ".join(f"{half}{r}.{'xyzw'[c]}" for r in range(4))
                place = f"tiles[{buffer}][{cell}][lane{turn}][{shift + c}]"
                weights.append(f"            {place} = vec4<f32>({value});")
        inputs: list[str] = []
        for c in range(4):
            value = ", ".join(f"held{number}_{turn}_{r}.{'xyzw'[c]}" for r in range(4))
            place = f"[at{turn}][lane{turn}][{c}]"
            if layout.columns == 8:
                place = f"[at{turn} / 2u][lane{turn}][at{turn} % 2u * 4u + {c}u]"
            inputs.append(f"            tiles[{buffer}]{place} = bitcast<vec4<f32>>(vec4<u32>({value}));")
        out += _either(layout, turn, weights, inputs)
    return out


def _either(layout: Layout, turn: int, weights: list[str], inputs: list[str]) -> list[str]:
    """Lines for a thread whose piece is of weights, else those for one of inputs, else none."""
    of_weights, all_of_them = layout.items[0], sum(layout.items)
    first, last = turn * layout.shape.threads, (turn + 1) * layout.shape.threads - 1
    tail = f"if item{turn} < {all_of_them}u " if last >= all_of_them else ""
    if first >= of_weights:
        return [f"        {tail}{{", *inputs, "        }"]
    if last < of_weights:
        return ["        {", *weights, "        }"]
    head = f"        if item{turn} < {of_weights}u {{"
    return [head, *weights, f"        }} else {tail}{{", *inputs, "        }"]


def _steps(layout: Layout) -> list[str]:
    """The loop over the columns, with one buffer: two barriers a step.

    Where registers hold several steps, a turn of the loop takes as many, each from registers of its own.
    """
    blocks, ahead = layout.blocks, layout.shape.ahead
    out = [line for n in range(ahead) for line in _load(layout, _plus("begin", n * blocks), n)]
    out.append(f"    for (var start = begin; start < end; start += {ahead * blocks}u) {{")
    for n in range(ahead):
        out += [
            *_store(layout, "0", n),
            "        workgroupBarrier();",
            *_load(layout, f"start + {(n + ahead) * blocks}u", n),
            *_multiply(layout, "0"),
            "        workgroupBarrier();",
        ]
    return [*out, "    }"]


def _steps_of_two_buffers(layout: Layout) -> list[str]:
    """The loop over the columns, with two buffers: one is filled while the other is read."""
    blocks, ahead = layout.blocks, layout.shape.ahead
    out = [line for n in range(ahead) for line in _load(layout, _plus("begin", n * blocks), n)]
    out += ["    var turn = 0u;", *_store(layout, "turn", 0), "    workgroupBarrier();"]
    out.append(f"    for (var start = begin; start < end; start += {ahead * blocks}u) {{")
    for n in range(ahead):
        out += [
            *_load(layout, f"start + {(n + ahead) * blocks}u", n),
            *_multiply(layout, "turn"),
            "        turn = 1u - turn;",
            *_store(layout, "turn", (n + 1) % ahead),
            "        workgroupBarrier();",
        ]
    return [*out, "    }"]


def _multiply(layout: Layout, buffer: str) -> list[str]:
    """Lines that add the products of a team's columns of a step to a thread's sums."""
    shape = layout.shape
    cells = shape.depth // shape.teams // layout.columns
    out = [f"        for (var cell = team * {cells}u; cell < (team + 1u) * {cells}u; cell++) {{"]
    if cells == 1:
        out = ["        {", "            let cell = team;"]
    pad, there = "            ", f"tiles[{buffer}][cell]"
    for c in range(layout.columns):
        for q in range(shape.rows // 4):
            out.append(f"{pad}let w{q}_{c} = {there}[mine_w + {q * shape.wide}u][{c}];")
        for n in range(shape.tokens // 4):
            out.append(f"{pad}let x{n}_{c} = {there}[mine_x + {layout.rows + n * shape.deep}u][{c}];")
        for t in range(shape.tokens):
            x = f"vec4<f32>(x{t // 4}_{c}.{'xyzw'[t % 4]})"
            out += [f"{pad}sum{q}_{t} = fma(w{q}_{c}, {x}, sum{q}_{t});" for q in range(shape.rows // 4)]
    return [*out, "        }"]
