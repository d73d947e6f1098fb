// w @ x for a tile of 32 rows of a matrix and 32 tokens a workgroup; a thread makes 4 rows of 4 tokens.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    let unit = group.x + group.y * groups.x;
    if unit >= here.size.y {
        return;
    }
    let part = part_of(unit);
    let shape = here.at[part * 3u];
    let place = here.at[part * 3u + 1u];
    let block = (unit - shape.x) * 8u + thread % 8u;
    let first = group.z * 32u + thread / 8u * 4u;
    let rows = here.size.x - 1u;
    let token = min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(rows));
    let last = shape.y - 1u;
    let row = vec4<u32>(place.x) + min(vec4<u32>(block * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(last)) * place.y;
    let base = (vec4<u32>(here.at[part * 3u + 2u].x) + token * here.at[part * 3u + 2u].y) / 4u;
    var sum0 = vec4<f32>(0.0);
    var sum1 = vec4<f32>(0.0);
    var sum2 = vec4<f32>(0.0);
    var sum3 = vec4<f32>(0.0);
    for (var k = 0u; k < shape.z; k++) {
        let a = weight(part, row.x + k);
        let b = weight(part, row.y + k);
        let c = weight(part, row.z + k);
        let d = weight(part, row.w + k);
        let low = mat4x4<f32>(
            vec4<f32>(unpack2x16float(a.x), unpack2x16float(a.y)),
            vec4<f32>(unpack2x16float(b.x), unpack2x16float(b.y)),
            vec4<f32>(unpack2x16float(c.x), unpack2x16float(c.y)),
            vec4<f32>(unpack2x16float(d.x), unpack2x16float(d.y)));
        let high = mat4x4<f32>(
            vec4<f32>(unpack2x16float(a.z), unpack2x16float(a.w)),
            vec4<f32>(unpack2x16float(b.z), unpack2x16float(b.w)),
            vec4<f32>(unpack2x16float(c.z), unpack2x16float(c.w)),
            vec4<f32>(unpack2x16float(d.z), unpack2x16float(d.w)));
        sum0 += input(part, base.x, k * 2u) * low + input(part, base.x, k * 2u + 1u) * high;
        sum1 += input(part, base.y, k * 2u) * low + input(part, base.y, k * 2u + 1u) * high;
        sum2 += input(part, base.z, k * 2u) * low + input(part, base.z, k * 2u + 1u) * high;
        sum3 += input(part, base.w, k * 2u) * low + input(part, base.w, k * 2u + 1u) * high;
    }
    if block * 4u > last {
        return;
    }
    let i2 = place.z + block;
    if first <= rows {
        finish(part, first, i2, sum0);
    }
    if first + 1u <= rows {
        finish(part, first + 1u, i2, sum1);
    }
    if first + 2u <= rows {
        finish(part, first + 2u, i2, sum2);
    }
    if first + 3u <= rows {
        finish(part, first + 3u, i2, sum3);
    }
}
