"""The matrix product for one token where a fixed number of workgroups takes all of it, a share each.

For relays: what a workgroup reads of its matrix does not depend on the passes before, so it brings the first
weights into the cache while it waits for the other workgroups (`ask`). Loads whose values are used after the
wait would do nothing: drivers move them to where they are used.

Between a wait and the first product stands a chain of single instructions, which nothing hides: without
weights, inputs and sums a layer of 1024 still takes 19 of its 34 µs (NVIDIA H200), of which its six meetings
are 7.6. So nothing divides by a number that no compiler knows. Working the share out before the wait takes
1 µs longer a leg than after it, as the subgroup that looks at the counter then begins later. Loads of the row
to multiply, or of what its result is added to, ahead of the weights change nothing; nor do more columns at a
time, which are longer code, or the columns of even and odd lanes apart, to spare banks.
"""

from __future__ import annotations

from rwkvgraph_codegen.matmul_shape import Shape, chain
from rwkvgraph_codegen.source import fill, prelude

BLOCK = 8
ASKED = 4
"""Words that a thread asks for ahead: 3.7 MB of 128 workgroups, which memory gives in about 1 µs.

Of 24 layers of 1024 a token takes 8 and 2 % longer with 0 and 8 (NVIDIA H200); with as many as a share needs,
or with none where idle workgroups have read it before, 1 to 5 % (H100).
"""

CHUNK = 512
"""Blocks of eight columns of the input in workgroup memory at a time: 16 KiB, of 48 that NVIDIA's devices
have.
"""


def bring(threads: int, at_once: int) -> str:
    """The function `bring`: it brings `count` lanes of the input from `first` on into workgroup memory.

    at_once: lanes of a thread whose loads are under way together: with four, 4,096 columns wait once and not
    four times. Where each is worked out of several loads, more than one are long code.
    """
    step, turns = threads * at_once, range(at_once)
    lines = [f"    for (var i = thread; i < count; i += {step}u) {{"]
    lines += [f"        let at{n} = min(i + {threads * n}u, count - 1u);" for n in turns]
    lines += [f"        let v{n} = input(part, base, first + at{n});" for n in turns]
    for n in turns:
        lines += [
            f"        if i + {threads * n}u < count {{",
            f"            columns[at{n}] = v{n};",
            "        }",
        ]
    head = "fn bring(part: u32, base: u32, first: u32, count: u32, thread: u32) {"
    return "\n".join([head, *lines, "    }", "}"])


def share(shape: Shape) -> str:
    """The kernel: a thread multiplies `shape.depth` columns of four rows at a time, in blocks of 8."""
    rows, unroll = range(shape.rows), range(shape.depth // BLOCK)
    every = [(r, u) for u in unroll for r in rows]
    return "\n" + fill(
        prelude("matmul_share.wgsl"),
        threads=shape.threads,
        chunk=CHUNK,
        lanes=2 * CHUNK,
        sums=shape.threads // 4,  # no subgroup has fewer than four threads
        unroll=shape.depth // BLOCK,
        loads=_loads(shape, "    ", "nearest", "var w"),
        asked="\n".join(
            f"    asked ^= weight(part, start + min((thread + {n}u * threads) * 2u, last)).x;"
            for n in range(ASKED)
        ),
        zeros="\n".join(f"        var sum{r} = 0.0;" for r in rows),
        copies="\n".join(f"                var n{r}_{u} = w{r}_{u};" for r, u in every),
        next=_loads(shape, " " * 20, "next", "n"),
        multiply="\n".join(line for u in unroll for line in _multiply(shape, u)),
        move="\n".join(f"                w{r}_{u} = n{r}_{u};" for r, u in every),
    )


def _loads(shape: Shape, pad: str, quad: str, names: str) -> str:
    """Lines that load a quad's blocks from column `k` on. names: of what holds them, but for numbers."""
    rows, unroll = range(shape.rows), range(shape.depth // BLOCK)
    lines = [f"{pad}let row{r} = place.x + min({quad} * 4u + {r}u, last_row) * place.y;" for r in rows]
    lines += [f"{pad}let c{u} = min(k + {u}u * subgroup, last);" for u in unroll]
    lines += [f"{pad}{names}{r}_{u} = weight(part, row{r} + c{u});" for u in unroll for r in rows]
    return "\n".join(lines)


def _multiply(shape: Shape, u: int) -> list[str]:
    pad = " " * 16
    at = f"k0 + lane + {u}u * subgroup"
    lines = [
        f"{pad}if {at} < end {{",
        f"{pad}    let at = 2u * ({at} - chunk);",
        f"{pad}    let a = columns[at];",
        f"{pad}    let b = columns[at + 1u];",
    ]
    for r in range(shape.rows):
        lines += [f"{pad}    let l{r} = low(w{r}_{u});", f"{pad}    let h{r} = high(w{r}_{u});"]
        lines.append(f"{pad}    {chain(f'sum{r}', str(r), '')}")
    return [*lines, f"{pad}}}"]
