enable subgroups;

// share
alias V = vec4<f32>;
struct Here {
    size: vec4<u32>,
    at: array<vec4<u32>, 4>,
}
@group(0) @binding(0) var<uniform> here: Here;
@group(0) @binding(1) var<storage, read> b1: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> b3: array<vec4<f32>>;
fn load_b1_lane(at: vec4<u32>, i0: u32, i1: u32, i2: u32) -> V {
    return b1[(at.x + i0 * at.y + i1 * at.z) / 4u + i2];
}
fn store_b3(at: vec4<u32>, i0: u32, i1: u32, i2: u32, value: V) {
    b3[(at.x + i0 * at.y + i1 * at.z) / 4u + i2] = value;
}
fn op_share(x: V, top: f32, total: f32) -> V {
    return (x - V(top)) / V(total);
}
var<workgroup> partials: array<vec4<f32>, 64>;
fn reduce_add(thread: u32, value: vec4<f32>, subgroup: u32, place: u32) -> vec4<f32> {
    let mine = subgroupAdd(value);
    let bits = firstTrailingBit(subgroup);
    if (thread & (subgroup - 1u)) == 0u {
        partials[place + (thread >> bits)] = mine;
    }
    workgroupBarrier();
    // All of them are loaded at once, where subgroups have 32 threads or more.
    let count = (64u + subgroup - 1u) >> bits;
    var a = partials[place];
    var b = a;
    b = partials[place + min(1u, count - 1u)];
    a = select(a, a + b, 1u < count);
    for (var index = 2u; index < count; index++) {
        b = partials[place + index];
        a = a + b;
    }
    return a;
}
fn reduce_max_one(thread: u32, value: f32, subgroup: u32, place: u32) -> f32 {
    let mine = subgroupMax(value);
    let bits = firstTrailingBit(subgroup);
    if (thread & (subgroup - 1u)) == 0u {
        partials[place + (thread >> bits)].x = mine;
    }
    workgroupBarrier();
    // All of them are loaded at once, where subgroups have 32 threads or more.
    let count = (64u + subgroup - 1u) >> bits;
    var a = partials[place].x;
    var b = a;
    b = partials[place + min(1u, count - 1u)].x;
    a = select(a, max(a, b), 1u < count);
    for (var index = 2u; index < count; index++) {
        b = partials[place + index].x;
        a = max(a, b);
    }
    return a;
}
// Lanes of a row beyond its n elements are padding: they count for nothing.
fn add_lanes(value: vec4<f32>, i2: u32) -> f32 {
    let inside = i2 * 4u + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(here.size.z);
    return dot(select(vec4<f32>(0.0), value, inside), vec4<f32>(1.0));
}
fn max_lanes(value: vec4<f32>, i2: u32) -> f32 {
    let inside = i2 * 4u + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(here.size.z);
    let known = select(vec4<f32>(-0x1.fffffep+127f), value, inside);
    return max(max(known.x, known.y), max(known.z, known.w));
}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32,
        @builtin(subgroup_size) subgroup: u32) {
    // Every thread reaches every barrier: rows beyond the last repeat it, and write nothing.
    let index = group.x + group.y * groups.x;
    let is_inside = index < here.size.x * here.size.y;
    let row = min(index, here.size.x * here.size.y - 1u);
    let i0 = row / here.size.y;
    let i1 = row % here.size.y;
    let n = f32(here.size.z);
    var partial0 = -0x1.fffffep+127f;
    for (var i2 = thread; i2 < here.size.w; i2 += 64u) {
        let v0 = load_b1_lane(here.at[0], i0, i1, i2);
        partial0 = max(partial0, max_lanes(v0, i2));
    }
    let sums0 = reduce_max_one(thread, partial0, subgroup, 0u);
    let top = sums0;
    var partial1 = vec4<f32>(0.0);
    for (var i2 = thread; i2 < here.size.w; i2 += 64u) {
        let v0 = load_b1_lane(here.at[0], i0, i1, i2);
        partial1.x = partial1.x + add_lanes(v0, i2);
        partial1.y = partial1.y + add_lanes(v0, i2);
    }
    let sums1 = reduce_add(thread, partial1, subgroup, 32u);
    let total = sums1.x;
    let again = sums1.y;
    if is_inside {
        for (var i2 = thread; i2 < here.size.w; i2 += 64u) {
            let v0 = load_b1_lane(here.at[0], i0, i1, i2);
            let v1 = op_share(v0, top, total);
            store_b3(here.at[2], i0, i1, i2, v1);
        }
    }
}
