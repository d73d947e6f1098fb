fn low(eight: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(eight.x), unpack2x16float(eight.y));
}
fn high(eight: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(eight.z), unpack2x16float(eight.w));
}

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
    asked ^= weight(part, start + min((thread + 0u * threads) * 2u, last)).x;
    asked ^= weight(part, start + min((thread + 1u * threads) * 2u, last)).x;
    asked ^= weight(part, start + min((thread + 2u * threads) * 2u, last)).x;
    asked ^= weight(part, start + min((thread + 3u * threads) * 2u, last)).x;
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
    let most_bits = firstLeadingBit(max(min(64u, 512u / 1u) >> subgroup_bits, 1u));
    let split_bits = most_bits - min(most_bits, 32u - countLeadingZeros(source.z - 1u));
    let last_row = shape.y - 1u;
    let mine = thread >> subgroup_bits;
    let split = 1u << split_bits;
    let quads = 64u >> (subgroup_bits + split_bits);
    let piece = mine & (split - 1u);
    let own = mine >> split_bits;
    let stride = split * 1u * subgroup;
    let nearest = min(share.first + own, max(share.end, 1u) - 1u);
    let k = piece * 1u * subgroup + lane;
    let last = shape.z - 1u;
    let row0 = place.x + min(nearest * 4u + 0u, last_row) * place.y;
    let row1 = place.x + min(nearest * 4u + 1u, last_row) * place.y;
    let row2 = place.x + min(nearest * 4u + 2u, last_row) * place.y;
    let row3 = place.x + min(nearest * 4u + 3u, last_row) * place.y;
    let c0 = min(k + 0u * subgroup, last);
    var w0_0 = weight(part, row0 + c0);
    var w1_0 = weight(part, row1 + c0);
    var w2_0 = weight(part, row2 + c0);
    var w3_0 = weight(part, row3 + c0);
    prepare(thread, subgroup);
    for (var start = share.first; start < share.end; start += quads) {
        let quad = min(start + own, share.end - 1u);
        let is_mine = start + own < share.end;
        var sum0 = 0.0;
        var sum1 = 0.0;
        var sum2 = 0.0;
        var sum3 = 0.0;
        for (var chunk = 0u; chunk < shape.z; chunk += 512u) {
            let end = min(chunk + 512u, shape.z);
            if start == share.first || shape.z > 512u {
                workgroupBarrier(); // others may still read the columns before
                bring(part, base, 2u * chunk, 2u * (end - chunk), thread);
                workgroupBarrier();
            }
            for (var k0 = chunk + piece * 1u * subgroup; k0 < end; k0 += stride) {
                // The next blocks are on their way while these are multiplied.
                let is_last = k0 + stride >= shape.z;
                let next = select(quad, min(quad + quads, share.end - 1u), is_last);
                let k = select(k0 + stride, piece * 1u * subgroup, is_last) + lane;
                var n0_0 = w0_0;
                var n1_0 = w1_0;
                var n2_0 = w2_0;
                var n3_0 = w3_0;
                if !is_last || start + quads < share.end {
                    let row0 = place.x + min(next * 4u + 0u, last_row) * place.y;
                    let row1 = place.x + min(next * 4u + 1u, last_row) * place.y;
                    let row2 = place.x + min(next * 4u + 2u, last_row) * place.y;
                    let row3 = place.x + min(next * 4u + 3u, last_row) * place.y;
                    let c0 = min(k + 0u * subgroup, last);
                    n0_0 = weight(part, row0 + c0);
                    n1_0 = weight(part, row1 + c0);
                    n2_0 = weight(part, row2 + c0);
                    n3_0 = weight(part, row3 + c0);
                }
                if k0 + lane + 0u * subgroup < end {
                    let at = 2u * (k0 + lane + 0u * subgroup - chunk);
                    let a = columns[at];
                    let b = columns[at + 1u];
                    let l0 = low(w0_0);
                    let h0 = high(w0_0);
                    sum0 = fma(h0.w, b.w, fma(h0.z, b.z, fma(h0.y, b.y, fma(h0.x, b.x, fma(l0.w, a.w, fma(l0.z, a.z, fma(l0.y, a.y, fma(l0.x, a.x, sum0))))))));
                    let l1 = low(w1_0);
                    let h1 = high(w1_0);
                    sum1 = fma(h1.w, b.w, fma(h1.z, b.z, fma(h1.y, b.y, fma(h1.x, b.x, fma(l1.w, a.w, fma(l1.z, a.z, fma(l1.y, a.y, fma(l1.x, a.x, sum1))))))));
                    let l2 = low(w2_0);
                    let h2 = high(w2_0);
                    sum2 = fma(h2.w, b.w, fma(h2.z, b.z, fma(h2.y, b.y, fma(h2.x, b.x, fma(l2.w, a.w, fma(l2.z, a.z, fma(l2.y, a.y, fma(l2.x, a.x, sum2))))))));
                    let l3 = low(w3_0);
                    let h3 = high(w3_0);
                    sum3 = fma(h3.w, b.w, fma(h3.z, b.z, fma(h3.y, b.y, fma(h3.x, b.x, fma(l3.w, a.w, fma(l3.z, a.z, fma(l3.y, a.y, fma(l3.x, a.x, sum3))))))));
                }
                w0_0 = n0_0;
                w1_0 = n1_0;
                w2_0 = n2_0;
                w3_0 = n3_0;
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
                total += partials[min(mine + other, 16u - 1u)];
            }
        }
        if is_mine && lane == 0u && piece == 0u && quad * 4u <= last_row {
            finish(part, 0u, place.z + quad, total);
        }
    }
}
var<workgroup> columns: array<vec4<f32>, 1024>;
var<workgroup> partials: array<vec4<f32>, 16>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32,
        @builtin(subgroup_size) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
    work(group.x, thread, subgroup, lane);
}
