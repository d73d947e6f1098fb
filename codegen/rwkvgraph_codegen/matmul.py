"""Entry points of the matrix product: y = w @ x for f16 weights and f32 inputs.

Unrolled over rows and tokens. What surrounds them gives the functions `part_of(unit)`, `weight(part, block)`
(eight f16 as `vec4<u32>`), `input(part, base, lane)` (four columns of a token), `finish(part, i0, i2, value)`
(map and store four rows of a token), and in the uniform three rows a part: (first unit, rows, blocks of 8
columns, columns), (place of the first block, blocks from row to row, first lane of the result), (place of the
input, elements from token to token).
"""

from __future__ import annotations

from dataclasses import dataclass

from rwkvgraph_codegen.source import fill

DECODE = """fn low(eight: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(eight.x), unpack2x16float(eight.y));
}
fn high(eight: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(eight.z), unpack2x16float(eight.w));
}"""


@dataclass(frozen=True)
class Shape:
    """How a kernel cuts the work.

    Its family, threads a workgroup, matrix rows and tokens of a thread or workgroup.
    family "split": the threads of a workgroup share the columns of `rows` rows and `tokens` tokens.
    family "lanes": a thread takes `rows` rows and all columns; a subgroup of 8 or more hands tokens round.
    family "tile": a workgroup takes 8 `rows` by 8 `tokens` threads' worth, through workgroup memory.
    max_tokens: the most tokens in a run for which it is chosen; None for any number.
    """

    family: str
    threads: int
    rows: int
    tokens: int
    unroll: int = 1
    max_tokens: int | None = None

    @property
    def group_rows(self) -> int:
        """Matrix rows of a workgroup."""
        return {"split": self.rows, "lanes": self.rows * self.threads, "tile": self.rows * 8}[self.family]

    @property
    def group_tokens(self) -> int:
        """Tokens of a workgroup."""
        return self.tokens * 8 if self.family == "tile" else self.tokens


def matmul_main(shape: Shape, subgroups: bool) -> str:
    """The entry point for a shape, with what it needs of workgroup memory."""
    match shape.family:
        case "split":
            return f"{DECODE}\n{_split(shape, subgroups)}"
        case "lanes":
            return f"{DECODE}\n{_lanes(shape)}"
        case _:
            return f"{DECODE}\n{_tile(shape)}"


def uses_subgroups(shape: Shape, available: bool) -> bool:
    """Whether the kernel of a shape calls subgroup functions."""
    return available and shape.family != "tile"


_HEAD = """
@compute @workgroup_size($threads)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32$inputs) {
    // Workgroups beyond the last repeat it and write nothing, so that every thread reaches every barrier.
    let index = group.x + group.y * groups.x;
    let unit = min(index, here.size.y - 1u);
    let part = part_of(unit);
    let shape = here.at[part * 3u];
    let place = here.at[part * 3u + 1u];
    let source = here.at[part * 3u + 2u];
    let is_inside = index < here.size.y;
    let last_row = shape.y - 1u;
    let last_token = here.size.x - 1u;"""


def _split(shape: Shape, subgroups: bool) -> str:
    """Each thread sums every `threads`-th block of columns; the workgroup adds the sums up."""
    rows, tokens, threads = shape.rows, shape.tokens, shape.threads
    groups = rows // 4
    results = groups * tokens
    inputs = ", @builtin(subgroup_size) subgroup: u32,\n        @builtin(subgroup_invocation_id) lane: u32"
    out = [f"var<workgroup> partials: array<vec4<f32>, {threads * results}>;"]
    out.append(fill(_HEAD, threads=threads, inputs=inputs if subgroups else ""))
    out.append(f"    let first_row = (unit - shape.x) * {rows}u;\n    let first_token = group.z * {tokens}u;")
    out += [f"    let row{r} = place.x + min(first_row + {r}u, last_row) * place.y;" for r in range(rows)]
    out += [
        f"    let base{t} = (source.x + min(first_token + {t}u, last_token) * source.y) / 4u;"
        for t in range(tokens)
    ]
    out += [f"    var sum{r}_{t} = 0.0;" for r in range(rows) for t in range(tokens)]
    out.append("    var k = thread;")
    if shape.unroll > 1:
        step = shape.unroll * threads
        out.append(f"    for (; k + {step - threads}u < shape.z; k += {step}u) {{")
        out += [line for u in range(shape.unroll) for line in _split_loads(shape, u, f"k + {u * threads}u")]
        out += [line for u in range(shape.unroll) for line in _split_sums(shape, u)]
        out.append("    }")
    out.append(f"    for (; k < shape.z; k += {threads}u) {{")
    out += [*_split_loads(shape, 0, "k"), *_split_sums(shape, 0), "    }"]
    out += _reduce_subgroups(shape) if subgroups else _reduce_tree(shape)
    return "\n".join(out) + "\n}"


def _split_loads(shape: Shape, u: int, k: str) -> list[str]:
    lines = [f"        let w{r}_{u} = weight(part, row{r} + {k});" for r in range(shape.rows)]
    for t in range(shape.tokens):
        lines.append(f"        let a{t}_{u} = input(part, base{t}, 2u * ({k}));")
        lines.append(f"        let b{t}_{u} = input(part, base{t}, 2u * ({k}) + 1u);")
    return lines


def _split_sums(shape: Shape, u: int) -> list[str]:
    lines = []
    for r in range(shape.rows):
        lines.append(f"        let l{r}_{u} = low(w{r}_{u});\n        let h{r}_{u} = high(w{r}_{u});")
        lines += [f"        {_chain(f'sum{r}_{t}', f'{r}_{u}', f'{t}_{u}')}" for t in range(shape.tokens)]
    return lines


def _chain(total: str, weights: str, inputs: str) -> str:
    """`total = fma(…)` over eight columns, the first column innermost."""
    text = total
    for matrix, vector in (("l", "a"), ("h", "b")):
        for part in "xyzw":
            text = f"fma({matrix}{weights}.{part}, {vector}{inputs}.{part}, {text})"
    return f"{total} = {text};"


def _four(quarter: int, token: int) -> str:
    return "vec4<f32>(" + ", ".join(f"sum{4 * quarter + i}_{token}" for i in range(4)) + ")"


def _reduce_subgroups(shape: Shape) -> list[str]:
    groups, tokens = shape.rows // 4, shape.tokens
    results = groups * tokens
    pairs = [(t, q) for t in range(tokens) for q in range(groups)]
    lines = [f"    let s{t}_{q} = subgroupAdd({_four(q, t)});" for t, q in pairs]
    lines.append("    if lane == 0u {")
    lines += [
        f"        partials[thread / subgroup * {results}u + {t * groups + q}u] = s{t}_{q};" for t, q in pairs
    ]
    lines += ["    }", "    workgroupBarrier();"]
    lines += [
        f"    for (var item = thread; item < {results}u; item += {shape.threads}u) {{",
        "        var total = vec4<f32>(0.0);",
        f"        for (var s = 0u; s < ({shape.threads}u + subgroup - 1u) / subgroup; s++) {{",
        f"            total += partials[s * {results}u + item];",
        "        }",
        *_finish(shape, "total"),
        "    }",
    ]
    return lines


def _finish(shape: Shape, value: str) -> list[str]:
    groups = shape.rows // 4
    return [
        f"        let row = first_row + item % {groups}u * 4u;",
        f"        let token = first_token + item / {groups}u;",
        "        if is_inside && row <= last_row && token <= last_token {",
        f"            finish(part, token, place.z + row / 4u, {value});",
        "        }",
    ]


def _reduce_tree(shape: Shape) -> list[str]:
    groups, tokens, threads = shape.rows // 4, shape.tokens, shape.threads
    results = groups * tokens
    lines = [
        f"    partials[{(t * groups + q) * threads}u + thread] = {_four(q, t)};"
        for t in range(tokens)
        for q in range(groups)
    ]
    lines += [
        "    workgroupBarrier();",
        f"    for (var step = {threads // 2}u; step > 0u; step /= 2u) {{",
        "        if thread < step {",
    ]
    lines += [
        f"            partials[{p * threads}u + thread] += partials[{p * threads}u + thread + step];"
        for p in range(results)
    ]
    lines += [
        "        }",
        "        workgroupBarrier();",
        "    }",
        f"    for (var item = thread; item < {results}u; item += {threads}u) {{",
        *_finish(shape, f"partials[item * {threads}u]"),
        "    }",
    ]
    return lines


def _lanes(shape: Shape) -> str:
    """The kernel for software adapters: no barrier, weights read once.

    A load from a buffer is what costs (llvmpipe makes one a lane), so lane t of a subgroup loads token t's
    columns and hands them round.
    """
    rows, tokens = shape.rows, shape.tokens
    sets = range(-(-tokens // 8))
    out = [fill(_HEAD, threads=shape.threads, inputs=",\n        @builtin(subgroup_invocation_id) lane: u32")]
    out.append(f"    let first_row = (unit - shape.x) * {shape.group_rows}u + thread * {rows}u;")
    out.append(f"    let first_token = group.z * {tokens}u;")
    out += [f"    let row{r} = place.x + min(first_row + {r}u, last_row) * place.y;" for r in range(rows)]
    for j in sets:
        most = min(8, tokens - 8 * j)
        out.append(f"    let mine{j} = first_token + {8 * j}u + lane;")
        out.append(f"    let has{j} = lane < {most}u && mine{j} <= last_token;")
        out.append(f"    let base{j} = (source.x + min(mine{j}, last_token) * source.y) / 4u;")
    out += [f"    var sum{r}_{t} = 0.0;" for r in range(rows) for t in range(tokens)]
    out.append("    for (var k = 0u; k < shape.z; k++) {")
    for j in sets:
        out += [f"        var low{j} = vec4<f32>(0.0);", f"        var high{j} = vec4<f32>(0.0);"]
        out.append(f"        if has{j} {{")
        out.append(f"            low{j} = input(part, base{j}, 2u * k);")
        out.append(f"            high{j} = input(part, base{j}, 2u * k + 1u);\n        }}")
    for r in range(rows):
        out.append(f"        let w{r} = weight(part, row{r} + k);")
        out.append(f"        let l{r} = low(w{r});\n        let h{r} = high(w{r});")
    for t in range(tokens):
        out.append(f"        let a{t} = subgroupBroadcast(low{t // 8}, {t % 8}u);")
        out.append(f"        let b{t} = subgroupBroadcast(high{t // 8}, {t % 8}u);")
        out += [f"        {_chain(f'sum{r}_{t}', str(r), str(t))}" for r in range(rows)]
    out.append("    }")
    values = [_four(q, t) for t in range(tokens) for q in range(rows // 4)]
    out += _finish_all(values, f"first_token + item / {rows // 4}u", f"first_row + item % {rows // 4}u * 4u")
    return "\n".join(out) + "\n}"


def _finish_all(values: list[str], token: str, row: str) -> list[str]:
    """Map and store the results of a thread, one by one.

    An array of them, indexed in a loop, compiles slowly.
    """
    lines = []
    for index, value in enumerate(values):
        there_token, there_row = token.replace("item", f"{index}u"), row.replace("item", f"{index}u")
        lines += [
            f"    if is_inside && {there_token} <= last_token && {there_row} <= last_row {{",
            f"        finish(part, {there_token}, place.z + ({there_row}) / 4u, {value});",
            "    }",
        ]
    return lines


def _tile(shape: Shape) -> str:
    """The kernel of 64 threads, 8 by 8.

    Both tiles lie column by column in workgroup memory, four rows or tokens a `vec4`.
    """
    rows, tokens, depth = shape.rows, shape.tokens, 8 * shape.unroll
    lanes_w, lanes_x = 2 * rows, 2 * tokens  # vec4s of a column: 8 threads' rows or tokens, by four
    out = [
        f"var<workgroup> tile_w: array<vec4<f32>, {depth * lanes_w}>;",
        f"var<workgroup> tile_x: array<vec4<f32>, {depth * lanes_x}>;",
        fill(_HEAD, threads=64, inputs=""),
        f"    let first_row = (unit - shape.x) * {8 * rows}u;",
        f"    let first_token = group.z * {8 * tokens}u;",
        "    let mine_w = thread % 8u;",
        "    let mine_x = thread / 8u;",
    ]
    out += [f"    var sum{q}_{t} = vec4<f32>(0.0);" for t in range(tokens) for q in range(rows // 4)]
    out.append(f"    for (var start = 0u; start < shape.z; start += {shape.unroll}u) {{")
    out += _tile_weights(shape, lanes_w)
    out += _tile_inputs(shape, lanes_x)
    out.append("        workgroupBarrier();")
    out.append(f"        for (var k = 0u; k < {depth}u; k++) {{")
    out += [f"            let w{q} = tile_w[k * {lanes_w}u + mine_w + {8 * q}u];" for q in range(rows // 4)]
    out += [f"            let x{n} = tile_x[k * {lanes_x}u + mine_x + {8 * n}u];" for n in range(tokens // 4)]
    for t in range(tokens):
        x = f"vec4<f32>(x{t // 4}.{'xyzw'[t % 4]})"
        out += [f"            sum{q}_{t} = fma(w{q}, {x}, sum{q}_{t});" for q in range(rows // 4)]
    out += ["        }", "        workgroupBarrier();", "    }"]
    values = [f"sum{q}_{t}" for t in range(tokens) for q in range(rows // 4)]
    quarters = rows // 4
    token = f"first_token + (mine_x + item / {4 * quarters}u * 8u) * 4u + item / {quarters}u % 4u"
    out += _finish_all(values, token, f"first_row + (mine_w + item % {quarters}u * 8u) * 4u")
    return "\n".join(out) + "\n}"


def _tile_weights(shape: Shape, lanes: int) -> list[str]:
    """Each thread transposes blocks of four rows by eight columns into the tile."""
    count = lanes * shape.unroll
    out = [
        f"        for (var item = thread; item < {count}u; item += 64u) {{",
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
        f"        for (var item = thread; item < {count}u; item += 64u) {{",
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
