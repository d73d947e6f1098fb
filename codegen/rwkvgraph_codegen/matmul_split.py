"""The matrix product for few tokens: the threads of a workgroup share the columns of a few rows.

For one token in several teams, where columns are few, each with rows of its own.
"""

from __future__ import annotations

from rwkvgraph_codegen.matmul_shape import TEAM_BITS, Shape, chain, four, head


def can_keep(shape: Shape, subgroups: bool) -> bool:
    """Whether each thread has one result at most, so that what that needs can be loaded before the sums."""
    return shape.family == "split" and shape.tokens == 1 and shape.rows == 4 and subgroups


def split(
    shape: Shape, subgroups: bool, prepares: bool = False, keeps: bool = False, looks: bool = False
) -> str:
    """Each thread sums every so many-th block of columns; the workgroup adds the sums up.

    prepares: for one token; `prepare(thread, subgroup)` is called before `input` first is, which is given
    what `input_ahead(part, lane)` loaded before that, with the first weights. keeps: where `can_keep`;
    `finish` is given what `keep(part, i0, i2)` loaded before the sums. looks: workgroups beyond the last only
    call `look_ahead(part, thread)`.
    """
    inputs = ", @builtin(subgroup_size) subgroup: u32,\n        @builtin(subgroup_invocation_id) lane: u32"
    results = shape.rows // 4 * shape.tokens
    out = [f"var<workgroup> partials: array<vec4<f32>, {shape.threads * results}>;"]
    out.append(head(shape.threads, inputs if subgroups else ""))
    if looks:  # all threads of such a workgroup return, so that none waits at a barrier for others
        out += ["    if !is_inside {", "        look_ahead(part, thread);", "        return;", "    }"]
    out += _places(shape)
    own, each = ("thread", f"{shape.threads}u") if shape.tokens > 1 else ("mine", "each")
    if keeps:
        result = f"min(((unit - shape.x) * teams + min(thread, teams - 1u)) * {shape.rows}u, last_row)"
        out.append(f"    let kept = keep(part, min(first_token, last_token), place.z + {result} / 4u);")
    out += _prepared_loop(shape, subgroups, own, each) if prepares else _loop(shape, own, each)
    if subgroups:
        out += _reduce_subgroups(shape) if shape.tokens > 1 else _reduce_teams(shape, keeps)
    else:
        out += _reduce_tree(shape)
    return "\n".join(out) + "\n}"


def _places(shape: Shape) -> list[str]:
    """Lines that say where a thread's rows and tokens are, and begin their sums."""
    rows, tokens = shape.rows, shape.tokens
    lines = [f"    let first_token = group.x * {tokens}u;"]
    if tokens > 1:
        lines.append(f"    let first_row = (unit - shape.x) * {rows}u;")
    else:
        lines += [
            f"    let teams = source.z & {(1 << TEAM_BITS) - 1}u;",
            f"    let each = source.z >> {TEAM_BITS}u;",
            f"    let team = thread * teams / {shape.threads}u;",
            "    let mine = thread - team * each;",
            f"    let first_row = ((unit - shape.x) * teams + team) * {rows}u;",
        ]
    lines += [f"    let row{r} = place.x + min(first_row + {r}u, last_row) * place.y;" for r in range(rows)]
    lines += [
        f"    let base{t} = (source.x + min(first_token + {t}u, last_token) * source.y) / 4u;"
        for t in range(tokens)
    ]
    return lines + [f"    var sum{r}_{t} = 0.0;" for r in range(rows) for t in range(tokens)]


def _loop(shape: Shape, own: str, each: str) -> list[str]:
    """Lines that add up a thread's blocks of columns: from `own` on, `each` apart."""
    lines = [f"    for (var k = {own}; k < shape.z; k += {each}) {{"]
    lines += [f"        let w{r} = weight(part, row{r} + k);" for r in range(shape.rows)]
    return [*lines, *_inputs(shape), *_sums(shape), "    }"]


def _prepared_loop(shape: Shape, subgroups: bool, own: str, each: str) -> list[str]:
    """The same, where the first weights and inputs are under way while the row is prepared."""
    rows = range(shape.rows)
    lines = [f"    let k0 = min({own}, shape.z - 1u);"]
    lines += [f"    var w{r} = weight(part, row{r} + k0);" for r in rows]
    lines += ["    var c0 = input_ahead(part, 2u * k0);", "    var d0 = input_ahead(part, 2u * k0 + 1u);"]
    lines.append("    prepare(thread, subgroup);" if subgroups else "    prepare(thread);")
    following = [f"            w{r} = weight(part, row{r} + k);" for r in rows]
    following += [
        f"            {name}0 = input_ahead(part, 2u * k{at});" for name, at in (("c", ""), ("d", " + 1u"))
    ]
    lines.append(f"    for (var k = {own}; k < shape.z;) {{")
    lines += ["        let a0 = input(part, 2u * k, c0);", "        let b0 = input(part, 2u * k + 1u, d0);"]
    lines += [*_sums(shape), f"        k += {each};"]
    return [*lines, "        if k < shape.z {", *following, "        }", "    }"]


def _inputs(shape: Shape) -> list[str]:
    lines = []
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


def _reduce_teams(shape: Shape, keeps: bool) -> list[str]:
    """Within 32 threads, or a subgroup of fewer; then over those of a team."""
    groups = range(shape.rows // 4)
    lines = [
        f"    let width = min(subgroup, {min(32, shape.threads)}u);",
        "    let bits = firstTrailingBit(width);",
        *(f"    var s{q} = {four(q, 0)};" for q in groups),
    ]
    for step in (1, 2, 4, 8, 16):
        # A swap reaches no further than the subgroup, so beyond that it counts for nothing.
        for q in groups:
            swapped = f"subgroupShuffleXor(s{q}, {step}u)"
            lines.append(f"    s{q} += select(vec4<f32>(0.0), {swapped}, {step}u < width);")
    lines += [
        "    if (thread & (width - 1u)) == 0u {",
        *(f"        partials[(thread >> bits) * {len(groups)}u + {q}u] = s{q};" for q in groups),
        "    }",
        "    workgroupBarrier();",
        f"    for (var item = thread; item < {len(groups)}u * teams; item += {shape.threads}u) {{",
        f"        let start = item / {len(groups)}u * (each >> bits);",
        "        var total = vec4<f32>(0.0);",
        "        for (var s = start; s < start + (each >> bits); s++) {",
        f"            total += partials[s * {len(groups)}u + item % {len(groups)}u];",
        "        }",
        *_finish(shape, "total, kept" if keeps else "total"),
        "    }",
    ]
    return lines


def _finish(shape: Shape, value: str) -> list[str]:
    groups = shape.rows // 4
    if shape.tokens > 1:
        place = [
            f"        let row = first_row + item % {groups}u * 4u;",
            f"        let token = first_token + item / {groups}u;",
        ]
    else:
        place = [
            f"        let own = ((unit - shape.x) * teams + item / {groups}u) * {shape.rows}u;",
            f"        let row = own + item % {groups}u * 4u;",
            "        let token = first_token;",
        ]
    return [
        *place,
        "        if is_inside && row <= last_row && token <= last_token {",
        f"            finish(part, token, place.z + row / 4u, {value});",
        "        }",
    ]


def _reduce_tree(shape: Shape) -> list[str]:
    groups, tokens, threads = shape.rows // 4, shape.tokens, shape.threads
    results = groups * tokens
    own, each, items = ("mine", "each", f"{groups}u * teams")
    value = f"partials[item % {groups}u * {threads}u + item / {groups}u * each]"
    if tokens > 1:
        own, each, items = "thread", f"{threads}u", f"{results}u"
        value = f"partials[item * {threads}u]"
    lines = [
        f"    partials[{(t * groups + q) * threads}u + thread] = {four(q, t)};"
        for t in range(tokens)
        for q in range(groups)
    ]
    lines += [
        "    workgroupBarrier();",
        f"    for (var step = {each} / 2u; step > 0u; step /= 2u) {{",
        f"        if {own} < step {{",
    ]
    lines += [
        f"            partials[{p * threads}u + thread] += partials[{p * threads}u + thread + step];"
        for p in range(results)
    ]
    lines += [
        "        }",
        "        workgroupBarrier();",
        "    }",
        f"    for (var item = thread; item < {items}; item += {threads}u) {{",
        *_finish(shape, value),
        "    }",
    ]
    return lines
