"""The matrix product for few tokens: the threads of a workgroup share the columns of a few rows."""

from __future__ import annotations

from rwkvgraph_codegen.matmul_shape import HEAD, Shape, chain, four
from rwkvgraph_codegen.source import fill


def split(shape: Shape, subgroups: bool) -> str:
    """Each thread sums every `threads`-th block of columns; the workgroup adds the sums up."""
    rows, tokens, threads = shape.rows, shape.tokens, shape.threads
    groups = rows // 4
    results = groups * tokens
    inputs = ", @builtin(subgroup_size) subgroup: u32,\n        @builtin(subgroup_invocation_id) lane: u32"
    out = [f"var<workgroup> partials: array<vec4<f32>, {threads * results}>;"]
    out.append(fill(HEAD, threads=threads, inputs=inputs if subgroups else ""))
    out.append(f"    let first_row = (unit - shape.x) * {rows}u;\n    let first_token = group.x * {tokens}u;")
    out += [f"    let row{r} = place.x + min(first_row + {r}u, last_row) * place.y;" for r in range(rows)]
    out += [
        f"    let base{t} = (source.x + min(first_token + {t}u, last_token) * source.y) / 4u;"
        for t in range(tokens)
    ]
    out += [f"    var sum{r}_{t} = 0.0;" for r in range(rows) for t in range(tokens)]
    out.append(f"    for (var k = thread; k < shape.z; k += {threads}u) {{")
    out += [*_loads(shape), *_sums(shape), "    }"]
    out += _reduce_subgroups(shape) if subgroups else _reduce_tree(shape)
    return "\n".join(out) + "\n}"


def _loads(shape: Shape) -> list[str]:
    lines = [f"        let w{r} = weight(part, row{r} + k);" for r in range(shape.rows)]
    for t in range(shape.tokens):
        lines.append(f"        let a{t} = input(part, base{t}, 2u * k);")
        lines.append(f"        let b{t} = input(part, base{t}, 2u * k + 1u);")
    return lines


def _sums(shape: Shape) -> list[str]:
    lines = []
    for r in range(shape.rows):
        lines.append(f"        let l{r} = low(w{r});\n        let h{r} = high(w{r});")
        lines += [f"        {chain(f'sum{r}_{t}', str(r), str(t))}" for t in range(shape.tokens)]
    return lines


def _reduce_subgroups(shape: Shape) -> list[str]:
    groups, tokens = shape.rows // 4, shape.tokens
    results = groups * tokens
    pairs = [(t, q) for t in range(tokens) for q in range(groups)]
    lines = [f"    let s{t}_{q} = subgroupAdd({four(q, t)});" for t, q in pairs]
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
        f"    partials[{(t * groups + q) * threads}u + thread] = {four(q, t)};"
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
