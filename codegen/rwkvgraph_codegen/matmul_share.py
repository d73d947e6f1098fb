"""The matrix product for one token where a fixed number of workgroups takes all of it, a share each.

For relays: what a workgroup reads of its matrix does not depend on the passes before, so the first weights
are
asked for while it waits for the other workgroups (`ahead`), and used after that (`work`).
"""

from __future__ import annotations

from rwkvgraph_codegen.matmul_shape import Shape, chain
from rwkvgraph_codegen.source import fill

CHUNK = 512
"""Blocks of eight columns of the input in workgroup memory at a time: 16 KiB, of 48 that NVIDIA's devices
have.
"""

_TEXT = """
// What a workgroup takes: quads (four rows) of a part, a quad's columns shared by `split` subgroups; and the
// first blocks that a thread multiplies.
struct Ahead {
    part: u32,
    first: u32,
    end: u32,
    split: u32,
$fields
}
fn ahead(group: vec3<u32>, thread: u32, subgroup: u32, lane: u32) -> Ahead {
    let part = part_of(group.x);
    let shape = here.at[part * 3u];
    let place = here.at[part * 3u + 1u];
    let shares = here.at[part * 3u + 2u].z;
    let quads = (shape.y + 3u) / 4u;
    let first = quads * (group.x - shape.x) / shares;
    let end = quads * (group.x - shape.x + 1u) / shares;
    let most = min(${threads}u / subgroup, ${chunk}u / (${unroll}u * subgroup));
    var split = 1u;
    for (; split * 2u * max(end - first, 1u) <= most; split *= 2u) {
    }
    let quad = min(first + thread / subgroup / split, max(end, 1u) - 1u);
    let last = shape.z - 1u;
    let k = thread / subgroup % split * ${unroll}u * subgroup + lane;
$rows
$columns
    return Ahead(part, first, end, split, $loads);
}
fn work(group: vec3<u32>, thread: u32, subgroup: u32, lane: u32, share: Ahead) {
    let part = share.part;
    let shape = here.at[part * 3u];
    let place = here.at[part * 3u + 1u];
    let base = here.at[part * 3u + 2u].x / 4u;
    let last_row = shape.y - 1u;
    let mine = thread / subgroup;
    let quads = ${threads}u / subgroup / share.split;
    let piece = mine % share.split;
    let stride = share.split * ${unroll}u * subgroup;
$variables
    for (var start = share.first; start < share.end; start += quads) {
        let quad = min(start + mine / share.split, share.end - 1u);
        let is_mine = start + mine / share.split < share.end;
$zeros
        for (var chunk = 0u; chunk < shape.z; chunk += ${chunk}u) {
            let end = min(chunk + ${chunk}u, shape.z);
            if start == share.first || shape.z > ${chunk}u {
                workgroupBarrier(); // others may still read the columns before
                for (var i = thread; i < 2u * (end - chunk); i += ${threads}u) {
                    columns[i] = input(part, base, 2u * chunk + i);
                }
                workgroupBarrier();
            }
            for (var k0 = chunk + piece * ${unroll}u * subgroup; k0 < end; k0 += stride) {
                // The next blocks are on their way while these are multiplied.
                let is_last = k0 + stride >= shape.z;
                let next = select(quad, min(quad + quads, share.end - 1u), is_last);
                let k = select(k0 + stride, piece * ${unroll}u * subgroup, is_last) + lane;
                let last = shape.z - 1u;
$next
$multiply
$move
            }
        }
        var total = subgroupAdd(vec4<f32>(sum0, sum1, sum2, sum3));
        if share.split > 1u {
            workgroupBarrier();
            if lane == 0u {
                partials[mine] = total;
            }
            workgroupBarrier();
            for (var other = 1u; other < share.split; other++) {
                total += partials[min(mine + other, ${sums}u - 1u)];
            }
        }
        if is_mine && lane == 0u && piece == 0u && quad * 4u <= last_row {
            finish(part, 0u, place.z + quad, total);
        }
    }
}
var<workgroup> columns: array<vec4<f32>, ${lanes}>;
var<workgroup> partials: array<vec4<f32>, ${sums}>;

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32,
        @builtin(subgroup_size) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
    work(group, thread, subgroup, lane, ahead(group, thread, subgroup, lane));
}"""


def share(shape: Shape) -> str:
    """The kernel, for `shape.threads` threads, each with `shape.unroll` blocks of four rows at a time."""
    rows, unroll = range(shape.rows), range(shape.unroll)
    every = [(r, u) for u in unroll for r in rows]
    return fill(
        _TEXT,
        threads=shape.threads,
        chunk=CHUNK,
        lanes=2 * CHUNK,
        sums=shape.threads // 4,  # no subgroup has fewer than four threads
        unroll=shape.unroll,
        fields="\n".join(f"    w{r}_{u}: vec4<u32>," for r, u in every),
        rows=_rows("    ", shape.rows, "quad", "(shape.y - 1u)"),
        columns="\n".join(f"    let c{u} = min(k + {u}u * subgroup, last);" for u in unroll),
        loads=", ".join(f"weight(part, row{r} + c{u})" for r, u in every),
        variables="\n".join(f"    var w{r}_{u} = share.w{r}_{u};" for r, u in every),
        zeros="\n".join(f"        var sum{r} = 0.0;" for r in rows),
        next="\n".join(_next(shape)),
        multiply="\n".join(line for u in unroll for line in _multiply(shape, u)),
        move="\n".join(f"                w{r}_{u} = n{r}_{u};" for r, u in every),
    )


def _rows(pad: str, count: int, quad: str, last: str) -> str:
    """The first block of each of a quad's rows."""
    lines = [f"{pad}let row{r} = place.x + min({quad} * 4u + {r}u, {last}) * place.y;" for r in range(count)]
    return "\n".join(lines)


def _next(shape: Shape) -> list[str]:
    pad = " " * 16
    lines = [_rows(pad, shape.rows, "next", "last_row")]
    lines += [f"{pad}let c{u} = min(k + {u}u * subgroup, last);" for u in range(shape.unroll)]
    for u in range(shape.unroll):
        lines += [f"{pad}let n{r}_{u} = weight(part, row{r} + c{u});" for r in range(shape.rows)]
    return lines


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
