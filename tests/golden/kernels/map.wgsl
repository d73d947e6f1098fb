// affine+add
alias V = vec4<f32>;
struct Here {
    size: vec4<u32>,
    at: array<vec4<u32>, 4>,
}
@group(0) @binding(0) var<uniform> here: Here;
@group(0) @binding(1) var<storage, read> b1: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b2: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> b3: array<vec4<f32>>;
fn load_b1_lane(at: vec4<u32>, i0: u32, i1: u32, i2: u32) -> V {
    return b1[(at.x + i0 * at.y + i1 * at.z) / 4u + i2];
}
fn load_b2_splat(at: vec4<u32>, i0: u32, i1: u32, i2: u32) -> V {
    let e = at.x + i0 * at.y + i1 * at.z;
    return V(unpack2x16float(b2[e / 8u][e / 2u % 4u])[e % 2u]);
}
fn store_b3(at: vec4<u32>, i0: u32, i1: u32, i2: u32, value: V) {
    b3[(at.x + i0 * at.y + i1 * at.z) / 4u + i2] = value;
}
fn op_add(a: V, b: V) -> V {
    return a + b;
}
fn op_affine(x: V, scale: f32) -> V {
    return x * scale;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    let index = (group.x + group.y * groups.x) * 64u + thread;
    let row = index / here.size.w;
    let i0 = row / here.size.y;
    let i1 = row % here.size.y;
    let i2 = index % here.size.w;
    if i0 < here.size.x {
        let v0 = load_b1_lane(here.at[0], i0, i1, i2);
        let v1 = load_b2_splat(here.at[1], i0, i1, i2);
        let v2 = op_affine(v0, bitcast<f32>(here.at[3].y));
        let v3 = op_add(v2, v1);
        store_b3(here.at[2], i0, i1, i2, v3);
    }
}
