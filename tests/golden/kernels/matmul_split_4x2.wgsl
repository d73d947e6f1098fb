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
    let first_row = (unit - shape.x) * 4u;
    let first_token = group.x * 2u;
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
    var k = thread;
    for (; k + 32u < shape.z; k += 64u) {
        let w0_0 = weight(part, row0 + k + 0u);
        let w1_0 = weight(part, row1 + k + 0u);
        let w2_0 = weight(part, row2 + k + 0u);
        let w3_0 = weight(part, row3 + k + 0u);
        let a0_0 = input(part, base0, 2u * (k + 0u));
        let b0_0 = input(part, base0, 2u * (k + 0u) + 1u);
        let a1_0 = input(part, base1, 2u * (k + 0u));
        let b1_0 = input(part, base1, 2u * (k + 0u) + 1u);
        let w0_1 = weight(part, row0 + k + 32u);
        let w1_1 = weight(part, row1 + k + 32u);
        let w2_1 = weight(part, row2 + k + 32u);
        let w3_1 = weight(part, row3 + k + 32u);
        let a0_1 = input(part, base0, 2u * (k + 32u));
        let b0_1 = input(part, base0, 2u * (k + 32u) + 1u);
        let a1_1 = input(part, base1, 2u * (k + 32u));
        let b1_1 = input(part, base1, 2u * (k + 32u) + 1u);
        let l0_0 = low(w0_0);
        let h0_0 = high(w0_0);
        sum0_0 = fma(h0_0.w, b0_0.w, fma(h0_0.z, b0_0.z, fma(h0_0.y, b0_0.y, fma(h0_0.x, b0_0.x, fma(l0_0.w, a0_0.w, fma(l0_0.z, a0_0.z, fma(l0_0.y, a0_0.y, fma(l0_0.x, a0_0.x, sum0_0))))))));
        sum0_1 = fma(h0_0.w, b1_0.w, fma(h0_0.z, b1_0.z, fma(h0_0.y, b1_0.y, fma(h0_0.x, b1_0.x, fma(l0_0.w, a1_0.w, fma(l0_0.z, a1_0.z, fma(l0_0.y, a1_0.y, fma(l0_0.x, a1_0.x, sum0_1))))))));
        let l1_0 = low(w1_0);
        let h1_0 = high(w1_0);
        sum1_0 = fma(h1_0.w, b0_0.w, fma(h1_0.z, b0_0.z, fma(h1_0.y, b0_0.y, fma(h1_0.x, b0_0.x, fma(l1_0.w, a0_0.w, fma(l1_0.z, a0_0.z, fma(l1_0.y, a0_0.y, fma(l1_0.x, a0_0.x, sum1_0))))))));
        sum1_1 = fma(h1_0.w, b1_0.w, fma(h1_0.z, b1_0.z, fma(h1_0.y, b1_0.y, fma(h1_0.x, b1_0.x, fma(l1_0.w, a1_0.w, fma(l1_0.z, a1_0.z, fma(l1_0.y, a1_0.y, fma(l1_0.x, a1_0.x, sum1_1))))))));
        let l2_0 = low(w2_0);
        let h2_0 = high(w2_0);
        sum2_0 = fma(h2_0.w, b0_0.w, fma(h2_0.z, b0_0.z, fma(h2_0.y, b0_0.y, fma(h2_0.x, b0_0.x, fma(l2_0.w, a0_0.w, fma(l2_0.z, a0_0.z, fma(l2_0.y, a0_0.y, fma(l2_0.x, a0_0.x, sum2_0))))))));
        sum2_1 = fma(h2_0.w, b1_0.w, fma(h2_0.z, b1_0.z, fma(h2_0.y, b1_0.y, fma(h2_0.x, b1_0.x, fma(l2_0.w, a1_0.w, fma(l2_0.z, a1_0.z, fma(l2_0.y, a1_0.y, fma(l2_0.x, a1_0.x, sum2_1))))))));
        let l3_0 = low(w3_0);
        let h3_0 = high(w3_0);
        sum3_0 = fma(h3_0.w, b0_0.w, fma(h3_0.z, b0_0.z, fma(h3_0.y, b0_0.y, fma(h3_0.x, b0_0.x, fma(l3_0.w, a0_0.w, fma(l3_0.z, a0_0.z, fma(l3_0.y, a0_0.y, fma(l3_0.x, a0_0.x, sum3_0))))))));
        sum3_1 = fma(h3_0.w, b1_0.w, fma(h3_0.z, b1_0.z, fma(h3_0.y, b1_0.y, fma(h3_0.x, b1_0.x, fma(l3_0.w, a1_0.w, fma(l3_0.z, a1_0.z, fma(l3_0.y, a1_0.y, fma(l3_0.x, a1_0.x, sum3_1))))))));
        let l0_1 = low(w0_1);
        let h0_1 = high(w0_1);
        sum0_0 = fma(h0_1.w, b0_1.w, fma(h0_1.z, b0_1.z, fma(h0_1.y, b0_1.y, fma(h0_1.x, b0_1.x, fma(l0_1.w, a0_1.w, fma(l0_1.z, a0_1.z, fma(l0_1.y, a0_1.y, fma(l0_1.x, a0_1.x, sum0_0))))))));
        sum0_1 = fma(h0_1.w, b1_1.w, fma(h0_1.z, b1_1.z, fma(h0_1.y, b1_1.y, fma(h0_1.x, b1_1.x, fma(l0_1.w, a1_1.w, fma(l0_1.z, a1_1.z, fma(l0_1.y, a1_1.y, fma(l0_1.x, a1_1.x, sum0_1))))))));
        let l1_1 = low(w1_1);
        let h1_1 = high(w1_1);
        sum1_0 = fma(h1_1.w, b0_1.w, fma(h1_1.z, b0_1.z, fma(h1_1.y, b0_1.y, fma(h1_1.x, b0_1.x, fma(l1_1.w, a0_1.w, fma(l1_1.z, a0_1.z, fma(l1_1.y, a0_1.y, fma(l1_1.x, a0_1.x, sum1_0))))))));
        sum1_1 = fma(h1_1.w, b1_1.w, fma(h1_1.z, b1_1.z, fma(h1_1.y, b1_1.y, fma(h1_1.x, b1_1.x, fma(l1_1.w, a1_1.w, fma(l1_1.z, a1_1.z, fma(l1_1.y, a1_1.y, fma(l1_1.x, a1_1.x, sum1_1))))))));
        let l2_1 = low(w2_1);
        let h2_1 = high(w2_1);
        sum2_0 = fma(h2_1.w, b0_1.w, fma(h2_1.z, b0_1.z, fma(h2_1.y, b0_1.y, fma(h2_1.x, b0_1.x, fma(l2_1.w, a0_1.w, fma(l2_1.z, a0_1.z, fma(l2_1.y, a0_1.y, fma(l2_1.x, a0_1.x, sum2_0))))))));
        sum2_1 = fma(h2_1.w, b1_1.w, fma(h2_1.z, b1_1.z, fma(h2_1.y, b1_1.y, fma(h2_1.x, b1_1.x, fma(l2_1.w, a1_1.w, fma(l2_1.z, a1_1.z, fma(l2_1.y, a1_1.y, fma(l2_1.x, a1_1.x, sum2_1))))))));
        let l3_1 = low(w3_1);
        let h3_1 = high(w3_1);
        sum3_0 = fma(h3_1.w, b0_1.w, fma(h3_1.z, b0_1.z, fma(h3_1.y, b0_1.y, fma(h3_1.x, b0_1.x, fma(l3_1.w, a0_1.w, fma(l3_1.z, a0_1.z, fma(l3_1.y, a0_1.y, fma(l3_1.x, a0_1.x, sum3_0))))))));
        sum3_1 = fma(h3_1.w, b1_1.w, fma(h3_1.z, b1_1.z, fma(h3_1.y, b1_1.y, fma(h3_1.x, b1_1.x, fma(l3_1.w, a1_1.w, fma(l3_1.z, a1_1.z, fma(l3_1.y, a1_1.y, fma(l3_1.x, a1_1.x, sum3_1))))))));
    }
    for (; k < shape.z; k += 32u) {
        let w0_0 = weight(part, row0 + k);
        let w1_0 = weight(part, row1 + k);
        let w2_0 = weight(part, row2 + k);
        let w3_0 = weight(part, row3 + k);
        let a0_0 = input(part, base0, 2u * (k));
        let b0_0 = input(part, base0, 2u * (k) + 1u);
        let a1_0 = input(part, base1, 2u * (k));
        let b1_0 = input(part, base1, 2u * (k) + 1u);
        let l0_0 = low(w0_0);
        let h0_0 = high(w0_0);
        sum0_0 = fma(h0_0.w, b0_0.w, fma(h0_0.z, b0_0.z, fma(h0_0.y, b0_0.y, fma(h0_0.x, b0_0.x, fma(l0_0.w, a0_0.w, fma(l0_0.z, a0_0.z, fma(l0_0.y, a0_0.y, fma(l0_0.x, a0_0.x, sum0_0))))))));
        sum0_1 = fma(h0_0.w, b1_0.w, fma(h0_0.z, b1_0.z, fma(h0_0.y, b1_0.y, fma(h0_0.x, b1_0.x, fma(l0_0.w, a1_0.w, fma(l0_0.z, a1_0.z, fma(l0_0.y, a1_0.y, fma(l0_0.x, a1_0.x, sum0_1))))))));
        let l1_0 = low(w1_0);
        let h1_0 = high(w1_0);
        sum1_0 = fma(h1_0.w, b0_0.w, fma(h1_0.z, b0_0.z, fma(h1_0.y, b0_0.y, fma(h1_0.x, b0_0.x, fma(l1_0.w, a0_0.w, fma(l1_0.z, a0_0.z, fma(l1_0.y, a0_0.y, fma(l1_0.x, a0_0.x, sum1_0))))))));
        sum1_1 = fma(h1_0.w, b1_0.w, fma(h1_0.z, b1_0.z, fma(h1_0.y, b1_0.y, fma(h1_0.x, b1_0.x, fma(l1_0.w, a1_0.w, fma(l1_0.z, a1_0.z, fma(l1_0.y, a1_0.y, fma(l1_0.x, a1_0.x, sum1_1))))))));
        let l2_0 = low(w2_0);
        let h2_0 = high(w2_0);
        sum2_0 = fma(h2_0.w, b0_0.w, fma(h2_0.z, b0_0.z, fma(h2_0.y, b0_0.y, fma(h2_0.x, b0_0.x, fma(l2_0.w, a0_0.w, fma(l2_0.z, a0_0.z, fma(l2_0.y, a0_0.y, fma(l2_0.x, a0_0.x, sum2_0))))))));
        sum2_1 = fma(h2_0.w, b1_0.w, fma(h2_0.z, b1_0.z, fma(h2_0.y, b1_0.y, fma(h2_0.x, b1_0.x, fma(l2_0.w, a1_0.w, fma(l2_0.z, a1_0.z, fma(l2_0.y, a1_0.y, fma(l2_0.x, a1_0.x, sum2_1))))))));
        let l3_0 = low(w3_0);
        let h3_0 = high(w3_0);
        sum3_0 = fma(h3_0.w, b0_0.w, fma(h3_0.z, b0_0.z, fma(h3_0.y, b0_0.y, fma(h3_0.x, b0_0.x, fma(l3_0.w, a0_0.w, fma(l3_0.z, a0_0.z, fma(l3_0.y, a0_0.y, fma(l3_0.x, a0_0.x, sum3_0))))))));
        sum3_1 = fma(h3_0.w, b1_0.w, fma(h3_0.z, b1_0.z, fma(h3_0.y, b1_0.y, fma(h3_0.x, b1_0.x, fma(l3_0.w, a1_0.w, fma(l3_0.z, a1_0.z, fma(l3_0.y, a1_0.y, fma(l3_0.x, a1_0.x, sum3_1))))))));
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
