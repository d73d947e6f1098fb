struct Relay {
    leg0: Here_0,
    leg1: Here_1,
}
@group(0) @binding(0) var<uniform> relay: Relay;

@compute @workgroup_size($threads)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32$subgroup_inputs) {
    // The first workgroup does what the others do again for themselves, and leaves it to later kernels.
    let index = group.y + group.z * groups.y;
    if index == 0u {
        main_0($first);
    } else {
        main_1($second);
    }
}
