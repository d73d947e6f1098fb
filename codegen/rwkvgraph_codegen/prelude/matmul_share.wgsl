// What a workgroup takes: quads (four rows) of a part, from the first to before the end.
struct Share {
    part: u32,
    first: u32,
    end: u32,
}
fn share_of(unit: u32) -> Share {
    let part = part_of(unit);
    let shape = here.at[part * 3u];
    let each = here.at[part * 3u + 2u].z;
    let first = (unit - shape.x) * each;
    return Share(part, first, min(first + each, (shape.y + 3u) / 4u));
}
// Asks for the first weights of a share, so that the caches have them by the time they are multiplied: for one
// word of each 32 bytes, which is what memory gives.
fn ask(unit: u32, thread: u32, threads: u32) -> u32 {
    let share = share_of(unit);
    let part = share.part;
    let shape = here.at[part * 3u];
    let place = here.at[part * 3u + 1u];
    let start = place.x + share.first * 4u * place.y;
    let last = max((min(share.end * 4u, shape.y) - share.first * 4u) * place.y, 1u) - 1u;
    var asked = 0u;
$asked
    return asked;
}
fn work(unit: u32, thread: u32, subgroup: u32, lane: u32) {
    let share = share_of(unit);
    let part = share.part;
    let shape = here.at[part * 3u];
    let place = here.at[part * 3u + 1u];
    let source = here.at[part * 3u + 2u];
    let base = source.x / 4u;
    // Powers of two: threads of a subgroup, subgroups that can share a quad's columns, and those that do.
    let subgroup_bits = firstTrailingBit(subgroup);
    let most_bits = firstLeadingBit(max(min(${threads}u, ${chunk}u / ${unroll}u) >> subgroup_bits, 1u));
    let split_bits = most_bits - min(most_bits, 32u - countLeadingZeros(source.z - 1u));
    let last_row = shape.y - 1u;
    let mine = thread >> subgroup_bits;
    let split = 1u << split_bits;
    let quads = ${threads}u >> (subgroup_bits + split_bits);
    let piece = mine & (split - 1u);
    let own = mine >> split_bits;
    let stride = split * ${unroll}u * subgroup;
    let nearest = min(share.first + own, max(share.end, 1u) - 1u);
    let k = piece * ${unroll}u * subgroup + lane;
    let last = shape.z - 1u;
$loads
    prepare(thread, subgroup);
    for (var start = share.first; start < share.end; start += quads) {
        let quad = min(start + own, share.end - 1u);
        let is_mine = start + own < share.end;
$zeros
        for (var chunk = 0u; chunk < shape.z; chunk += ${chunk}u) {
            let end = min(chunk + ${chunk}u, shape.z);
            if start == share.first || shape.z > ${chunk}u {
                workgroupBarrier(); // others may still read the columns before
                bring(part, base, 2u * chunk, 2u * (end - chunk), thread);
                workgroupBarrier();
            }
            for (var k0 = chunk + piece * ${unroll}u * subgroup; k0 < end; k0 += stride) {
                // The next blocks are on their way while these are multiplied.
                let is_last = k0 + stride >= shape.z;
                let next = select(quad, min(quad + quads, share.end - 1u), is_last);
                let k = select(k0 + stride, piece * ${unroll}u * subgroup, is_last) + lane;
$copies
                if !is_last || start + quads < share.end {
$next
                }
$multiply
$move
            }
        }
        var total = subgroupAdd(vec4<f32>(sum0, sum1, sum2, sum3));
        if split > 1u {
            workgroupBarrier();
            if lane == 0u {
                partials[mine] = total;
            }
            workgroupBarrier();
            for (var other = 1u; other < split; other++) {
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
    work(group.x, thread, subgroup, lane);
}
