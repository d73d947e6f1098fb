"""The matrix product for software adapters: a thread takes whole rows, a subgroup hands tokens round."""

from __future__ import annotations

from rwkvgraph_codegen.matmul_shape import Shape, chain, finish_all, four, head


def lanes(shape: Shape) -> str:
    """The kernel for software adapters: no barrier, weights read once.

    A load from a buffer is what costs (llvmpipe makes one a lane), so lane t of a subgroup loads token t's
    columns and hands them round.
    """
    rows, tokens = shape.rows, shape.tokens
    sets = range(-(-tokens // 8))
    out = [head(shape.threads, ",\n        @builtin(subgroup_invocation_id) lane: u32")]
    out.append(f"    let first_row = (unit - shape.x) * {shape.group_rows}u + thread * {rows}u;")
    out.append(f"    let first_token = group.x * {tokens}u;")
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
        out += [f"        {chain(f'sum{r}_{t}', str(r), str(t))}" for r in range(rows)]
    out.append("    }")
    return "\n".join([*out, *_finish(rows, tokens)]) + "\n}"


def _finish(rows: int, tokens: int) -> list[str]:
    """Map and store the results of a thread, a token at a time.

    A token's are picked without an index, which would put all of them in memory. So what is fused to the
    product is in the text four times, not 64 times: llvmpipe compiles it in 1 s, with a tanh, instead of 3.4.
    """
    if tokens == 1:
        values = [four(q, 0) for q in range(rows // 4)]
        return finish_all(values, "first_token", "first_row + item * 4u")
    out = [f"    for (var t = 0u; t < {tokens}u; t++) {{"]
    for q in range(rows // 4):
        out.append(f"        var value{q} = {four(q, 0)};")
        out += [f"        value{q} = select(value{q}, {four(q, t)}, t == {t}u);" for t in range(1, tokens)]
        row = f"first_row + {4 * q}u"
        out.append(f"        if is_inside && first_token + t <= last_token && {row} <= last_row {{")
        out.append(
            f"            finish(part, first_token + t, place.z + ({row}) / 4u, value{q});\n        }}"
        )
    return [*out, "    }"]
