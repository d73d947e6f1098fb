"""The matrix product for many tokens: tiles of weights and inputs in workgroup memory."""

from __future__ import annotations

from rwkvgraph_codegen.matmul_shape import HEAD, Shape, finish_all
from rwkvgraph_codegen.source import fill

INNER = 8
"""Columns that a turn of the innermost loop takes.

Drivers do not unroll it themselves. An NVIDIA H200, tiles of 64 by 64: 24 TFLOP/s with 1, 27 with 2 or 4, 29
with 8 and with 16.
"""


def tile(shape: Shape) -> str:
    """The kernel of a square of threads, 8 by 8 or 16 by 16.

    Both tiles lie column by column in workgroup memory, four rows or tokens a `vec4`.
    """
    rows, tokens, depth, side = shape.rows, shape.tokens, 8 * shape.unroll, shape.side
    lanes_w, lanes_x = side * rows // 4, side * tokens // 4  # vec4s of a column: all threads' rows or tokens
    out = [
        f"var<workgroup> tile_w: array<vec4<f32>, {depth * lanes_w}>;",
        f"var<workgroup> tile_x: array<vec4<f32>, {depth * lanes_x}>;",
        fill(HEAD, threads=shape.threads, inputs=""),
        f"    let first_row = (unit - shape.x) * {side * rows}u;",
        f"    let first_token = group.x * {side * tokens}u;",
        f"    let mine_w = thread % {side}u;",
        f"    let mine_x = thread / {side}u;",
    ]
    out += [f"    var sum{q}_{t} = vec4<f32>(0.0);" for t in range(tokens) for q in range(rows // 4)]
    out.append(f"    for (var start = 0u; start < shape.z; start += {shape.unroll}u) {{")
    out += _tile_weights(shape, lanes_w)
    out += _tile_inputs(shape, lanes_x)
    out.append("        workgroupBarrier();")
    out.append(f"        for (var k = 0u; k < {depth}u; k += {INNER}u) {{")
    for step in range(INNER):
        out += _multiply(shape, lanes_w, lanes_x, step)
    out += ["        }", "        workgroupBarrier();", "    }"]
    values = [f"sum{q}_{t}" for t in range(tokens) for q in range(rows // 4)]
    quarters = rows // 4
    token = f"first_token + (mine_x + item / {4 * quarters}u * {side}u) * 4u + item / {quarters}u % 4u"
    out += finish_all(values, token, f"first_row + (mine_w + item % {quarters}u * {side}u) * 4u")
    return "\n".join(out) + "\n}"


def _multiply(shape: Shape, lanes_w: int, lanes_x: int, step: int) -> list[str]:
    """Lines that add a column's products to a thread's sums."""
    rows, tokens, side = shape.rows, shape.tokens, shape.side
    pad = "            "
    out = [
        f"{pad}let w{q}_{step} = tile_w[(k + {step}u) * {lanes_w}u + mine_w + {side * q}u];"
        for q in range(rows // 4)
    ]
    out += [
        f"{pad}let x{n}_{step} = tile_x[(k + {step}u) * {lanes_x}u + mine_x + {side * n}u];"
        for n in range(tokens // 4)
    ]
    for t in range(tokens):
        x = f"vec4<f32>(x{t // 4}_{step}.{'xyzw'[t % 4]})"
        out += [f"{pad}sum{q}_{t} = fma(w{q}_{step}, {x}, sum{q}_{t});" for q in range(rows // 4)]
    return out


def _tile_weights(shape: Shape, lanes: int) -> list[str]:
    """Each thread transposes blocks of four rows by eight columns into the tile."""
    count = lanes * shape.unroll
    out = [
        f"        for (var item = thread; item < {count}u; item += {shape.threads}u) {{",
        f"            let four = item % {lanes}u;",
        f"            let block = item / {lanes}u;",
        "            let row = first_row + four * 4u;",
        "            let at = place.x + start + block;",
        "            let is_there = start + block < shape.z;",
    ]
    for r in range(4):
        row = f"min(row + {r}u, last_row)"
        zero = "vec4<u32>(0u)"
        out.append(f"            var w{r} = {zero};")
        out.append(f"            if is_there {{ w{r} = weight(part, at + {row} * place.y); }}")
    for half in ("low", "high"):
        out += [f"            let {half}{r} = {half}(w{r});" for r in range(4)]
        for c in range(4):
            column = "xyzw"[c]
            place = f"(block * 8u + {c + (4 if half == 'high' else 0)}u) * {lanes}u + four"
            value = ", ".join(f"{half}{r}.{column}" for r in range(4))
            out.append(f"            tile_w[{place}] = vec4<f32>({value});")
    return [*out, "        }"]


def _tile_inputs(shape: Shape, lanes: int) -> list[str]:
    """Each thread transposes four tokens by four columns into the tile."""
    count = lanes * shape.unroll * 2
    out = [
        f"        for (var item = thread; item < {count}u; item += {shape.threads}u) {{",
        f"            let four = item % {lanes}u;",
        f"            let lane = item / {lanes}u;",
        "            let token = first_token + four * 4u;",
        "            let is_there = start * 2u + lane < shape.z * 2u;",
    ]
    for t in range(4):
        base = f"(source.x + min(token + {t}u, last_token) * source.y) / 4u"
        out.append(f"            var x{t} = vec4<f32>(0.0);")
        out.append(f"            if is_there {{ x{t} = input(part, {base}, start * 2u + lane); }}")
    for c in range(4):
        value = ", ".join(f"x{t}.{'xyzw'[c]}" for t in range(4))
        out.append(f"            tile_x[(lane * 4u + {c}u) * {lanes}u + four] = vec4<f32>({value});")
    return [*out, "        }"]
