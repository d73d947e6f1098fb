fn low(eight: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(eight.x), unpack2x16float(eight.y));
}
fn high(eight: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(eight.z), unpack2x16float(eight.w));
}
var<workgroup> partials: array<vec4<f32>, 64>;

@compute @workgroup_size(32)
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
    let first_token = group.x * 2u;
    let first_row = (unit - shape.x) * 4u;
    let row0 = place.x + min(first_row + 0u, last_row) * place.y;
    let row1 = place.x + min(first_row + 1u, last_row) * place.y;
    let row2 = place.x + min(first_row + 2u, last_row) * place.y;
    let row3 = place.x + min(first_row + 3u, last_row) * place.y;
    let base0 = (source.x + min(first_token + 0u, last_token) * source.y) / 4u;
    let base1 = (source.x + min(first_token + 1u, last_token) * source.y) / 4u;
    var sum0_0 = 0.0;
    var sum0_1 = 0.0;
    var sum1_0 = 0.0;
    var sum1_1 = 0.0;
    var sum2_0 = 0.0;
    var sum2_1 = 0.0;
    var sum3_0 = 0.0;
    var sum3_1 = 0.0;
    for (var k = thread; k < shape.z; k += 32u) {
        let w0 = weight(part, row0 + k);
        let w1 = weight(part, row1 + k);
        let w2 = weight(part, row2 + k);
        let w3 = weight(part, row3 + k);
        let a0 = input(part, base0, 2u * k);
        let b0 = input(part, base0, 2u * k + 1u);
        let a1 = input(part, base1, 2u * k);
        let b1 = input(part, base1, 2u * k + 1u);
        let l0 = low(w0);
        let h0 = high(w0);
        sum0_0 = fma(h0.w, b0.w, fma(h0.z, b0.z, fma(h0.y, b0.y, fma(h0.x, b0.x, fma(l0.w, a0.w, fma(l0.z, a0.z, fma(l0.y, a0.y, fma(l0.x, a0.x, sum0_0))))))));
        sum0_1 = fma(h0.w, b1.w, fma(h0.z, b1.z, fma(h0.y, b1.y, fma(h0.x, b1.x, fma(l0.w, a1.w, fma(l0.z, a1.z, fma(l0.y, a1.y, fma(l0.x, a1.x, sum0_1))))))));
        let l1 = low(w1);
        let h1 = high(w1);
        sum1_0 = fma(h1.w, b0.w, fma(h1.z, b0.z, fma(h1.y, b0.y, fma(h1.x, b0.x, fma(l1.w, a0.w, fma(l1.z, a0.z, fma(l1.y, a0.y, fma(l1.x, a0.x, sum1_0))))))));
        sum1_1 = fma(h1.w, b1.w, fma(h1.z, b1.z, fma(h1.y, b1.y, fma(h1.x, b1.x, fma(l1.w, a1.w, fma(l1.z, a1.z, fma(l1.y, a1.y, fma(l1.x, a1.x, sum1_1))))))));
        let l2 = low(w2);
        let h2 = high(w2);
        sum2_0 = fma(h2.w, b0.w, fma(h2.z, b0.z, fma(h2.y, b0.y, fma(h2.x, b0.x, fma(l2.w, a0.w, fma(l2.z, a0.z, fma(l2.y, a0.y, fma(l2.x, a0.x, sum2_0))))))));
        sum2_1 = fma(h2.w, b1.w, fma(h2.z, b1.z, fma(h2.y, b1.y, fma(h2.x, b1.x, fma(l2.w, a1.w, fma(l2.z, a1.z, fma(l2.y, a1.y, fma(l2.x, a1.x, sum2_1))))))));
        let l3 = low(w3);
        let h3 = high(w3);
        sum3_0 = fma(h3.w, b0.w, fma(h3.z, b0.z, fma(h3.y, b0.y, fma(h3.x, b0.x, fma(l3.w, a0.w, fma(l3.z, a0.z, fma(l3.y, a0.y, fma(l3.x, a0.x, sum3_0))))))));
        sum3_1 = fma(h3.w, b1.w, fma(h3.z, b1.z, fma(h3.y, b1.y, fma(h3.x, b1.x, fma(l3.w, a1.w, fma(l3.z, a1.z, fma(l3.y, a1.y, fma(l3.x, a1.x, sum3_1))))))));
    }
    let s0_0 = subgroupAdd(vec4<f32>(sum0_0, sum1_0, sum2_0, sum3_0));
    let s1_0 = subgroupAdd(vec4<f32>(sum0_1, sum1_1, sum2_1, sum3_1));
    if lane == 0u {
        partials[thread / subgroup * 2u + 0u] = s0_0;
        partials[thread / subgroup * 2u + 1u] = s1_0;
    }
    workgroupBarrier();
    for (var item = thread; item < 2u; item += 32u) {
        var total = vec4<f32>(0.0);
        for (var s = 0u; s < (32u + subgroup - 1u) / subgroup; s++) {
            total += partials[s * 2u + item];
        }
        let row = first_row + item % 1u * 4u;
        let token = first_token + item / 1u;
        if is_inside && row <= last_row && token <= last_token {
            finish(part, token, place.z + row / 4u, total);
        }
    }
}
