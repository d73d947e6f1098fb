fn low(eight: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(eight.x), unpack2x16float(eight.y));
}
fn high(eight: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(eight.z), unpack2x16float(eight.w));
}
var<workgroup> partials: array<vec4<f32>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32, @builtin(subgroup_size) subgroup: u32,
        @builtin(subgroup_invocation_id) lane: u32) {
    // Workgroups beyond the last repeat it and write nothing, so that every thread reaches every barrier.
    let index = group.y + group.z * groups.y;
    let unit = min(index, here.size.y - 1u);
    let part = part_of(unit);
    let shape = here.at[part * 3u];
    let place = here.at[part * 3u + 1u];
    let source = here.at[part * 3u + 2u];
    let is_inside = index < here.size.y;
    let last_row = shape.y - 1u;
    let last_token = here.size.x - 1u;
    let first_token = group.x * 1u;
    let teams = source.z & 65535u;
    let each = source.z >> 16u;
    let team = thread * teams / 64u;
    let mine = thread - team * each;
    let first_row = ((unit - shape.x) * teams + team) * 4u;
    let row0 = place.x + min(first_row + 0u, last_row) * place.y;
    let row1 = place.x + min(first_row + 1u, last_row) * place.y;
    let row2 = place.x + min(first_row + 2u, last_row) * place.y;
    let row3 = place.x + min(first_row + 3u, last_row) * place.y;
    let base0 = (source.x + min(first_token + 0u, last_token) * source.y) / 4u;
    var sum0_0 = 0.0;
    var sum1_0 = 0.0;
    var sum2_0 = 0.0;
    var sum3_0 = 0.0;
    let kept = keep(part, min(first_token, last_token), place.z + min(((unit - shape.x) * teams + min(thread, teams - 1u)) * 4u, last_row) / 4u);
    for (var k = mine; k < shape.z; k += each) {
        let w0 = weight(part, row0 + k);
        let w1 = weight(part, row1 + k);
        let w2 = weight(part, row2 + k);
        let w3 = weight(part, row3 + k);
        let a0 = input(part, base0, 2u * k);
        let b0 = input(part, base0, 2u * k + 1u);
        let l0 = low(w0);
        let h0 = high(w0);
        sum0_0 = fma(h0.w, b0.w, fma(h0.z, b0.z, fma(h0.y, b0.y, fma(h0.x, b0.x, fma(l0.w, a0.w, fma(l0.z, a0.z, fma(l0.y, a0.y, fma(l0.x, a0.x, sum0_0))))))));
        let l1 = low(w1);
        let h1 = high(w1);
        sum1_0 = fma(h1.w, b0.w, fma(h1.z, b0.z, fma(h1.y, b0.y, fma(h1.x, b0.x, fma(l1.w, a0.w, fma(l1.z, a0.z, fma(l1.y, a0.y, fma(l1.x, a0.x, sum1_0))))))));
        let l2 = low(w2);
        let h2 = high(w2);
        sum2_0 = fma(h2.w, b0.w, fma(h2.z, b0.z, fma(h2.y, b0.y, fma(h2.x, b0.x, fma(l2.w, a0.w, fma(l2.z, a0.z, fma(l2.y, a0.y, fma(l2.x, a0.x, sum2_0))))))));
        let l3 = low(w3);
        let h3 = high(w3);
        sum3_0 = fma(h3.w, b0.w, fma(h3.z, b0.z, fma(h3.y, b0.y, fma(h3.x, b0.x, fma(l3.w, a0.w, fma(l3.z, a0.z, fma(l3.y, a0.y, fma(l3.x, a0.x, sum3_0))))))));
    }
    let width = min(subgroup, 32u);
    let bits = firstTrailingBit(width);
    var s0 = vec4<f32>(sum0_0, sum1_0, sum2_0, sum3_0);
    s0 += select(vec4<f32>(0.0), subgroupShuffleXor(s0, 1u), 1u < width);
    s0 += select(vec4<f32>(0.0), subgroupShuffleXor(s0, 2u), 2u < width);
    s0 += select(vec4<f32>(0.0), subgroupShuffleXor(s0, 4u), 4u < width);
    s0 += select(vec4<f32>(0.0), subgroupShuffleXor(s0, 8u), 8u < width);
    s0 += select(vec4<f32>(0.0), subgroupShuffleXor(s0, 16u), 16u < width);
    if (thread & (width - 1u)) == 0u {
        partials[(thread >> bits) * 1u + 0u] = s0;
    }
    workgroupBarrier();
    for (var item = thread; item < 1u * teams; item += 64u) {
        let start = item / 1u * (each >> bits);
        var total = vec4<f32>(0.0);
        for (var s = start; s < start + (each >> bits); s++) {
            total += partials[s * 1u + item % 1u];
        }
        let own = ((unit - shape.x) * teams + item / 1u) * 4u;
        let row = own + item % 1u * 4u;
        let token = first_token;
        if is_inside && row <= last_row && token <= last_token {
            finish(part, token, place.z + row / 4u, total, kept);
        }
    }
}
