// w @ x for one token and four rows of a matrix a workgroup; the threads share the columns.
var<workgroup> partials: array<vec4<f32>, $threads>;
$reduction

@compute @workgroup_size($threads)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32$subgroup_inputs) {
    // Workgroups beyond the last repeat it, so that every thread reaches the barriers; they write nothing.
    let index = group.x + group.y * groups.x;
    let unit = min(index, here.size.y - 1u);
    let i0 = group.z;
    let part = part_of(unit);
    let shape = here.at[part * 3u];
    let place = here.at[part * 3u + 1u];
    let block = unit - shape.x;
    let last = shape.y - 1u;
    let row = vec4<u32>(place.x) + min(vec4<u32>(block * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(last)) * place.y;
    let base = (here.at[part * 3u + 2u].x + i0 * here.at[part * 3u + 2u].y) / 4u;
    var sum = vec4<f32>(0.0);
    for (var k = thread; k < shape.z; k += ${threads}u) {
        let x0 = input(part, base, k * 2u);
        let x1 = input(part, base, k * 2u + 1u);
        let a = weight(part, row.x + k);
        let b = weight(part, row.y + k);
        let c = weight(part, row.z + k);
        let d = weight(part, row.w + k);
        sum += vec4<f32>(
            dot(vec4<f32>(unpack2x16float(a.x), unpack2x16float(a.y)), x0) +
            dot(vec4<f32>(unpack2x16float(a.z), unpack2x16float(a.w)), x1),
            dot(vec4<f32>(unpack2x16float(b.x), unpack2x16float(b.y)), x0) +
            dot(vec4<f32>(unpack2x16float(b.z), unpack2x16float(b.w)), x1),
            dot(vec4<f32>(unpack2x16float(c.x), unpack2x16float(c.y)), x0) +
            dot(vec4<f32>(unpack2x16float(c.z), unpack2x16float(c.w)), x1),
            dot(vec4<f32>(unpack2x16float(d.x), unpack2x16float(d.y)), x0) +
            dot(vec4<f32>(unpack2x16float(d.z), unpack2x16float(d.w)), x1),
        );
    }
    let total = reduce_add(thread, sum$subgroup_argument);
    if thread == 0u && index < here.size.y {
        finish(part, i0, place.z + block, total);
    }
}
