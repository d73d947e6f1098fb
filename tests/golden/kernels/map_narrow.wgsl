// gather
alias V = f32;
struct Here {
    size: vec4<u32>,
    at: array<vec4<u32>, 4>,
}
@group(0) @binding(0) var<uniform> here: Here;
@group(0) @binding(1) var<storage, read> b1: array<f32>;
@group(0) @binding(2) var<storage, read> b2: array<u32>;
@group(0) @binding(3) var<storage, read_write> b3: array<f32>;
fn load_b1_lane(at: vec4<u32>, i0: u32, i1: u32, i2: u32) -> V {
    return b1[at.x + i0 * at.y + i1 * at.z + i2 * at.w];
}
fn load_b2_word(at: vec4<u32>, i0: u32) -> u32 {
    return b2[at.x + i0 * at.y];
}
fn store_b3(at: vec4<u32>, i0: u32, i1: u32, i2: u32, value: V) {
    b3[at.x + i0 * at.y + i1 * at.z + i2 * at.w] = value;
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
        let v0 = load_b2_word(here.at[1], i0);
        let v1 = load_b1_lane(here.at[0], v0, i1, i2);
        if v0 < 3u { store_b3(here.at[2], v0, i1, i2, v1); }
    }
}
