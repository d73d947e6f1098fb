
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    // Workgroups beyond the last repeat it and write nothing, so that every thread reaches every barrier.
    let index = (group.y + group.z * groups.y) / 8u;
    let split = (group.y + group.z * groups.y) % 8u;
    let unit = min(index, here.size.y - 1u);
    let part = part_of(unit);
    let shape = here.at[part * 3u];
    let place = here.at[part * 3u + 1u];
    let source = here.at[part * 3u + 2u];
    let is_inside = index < here.size.y;
    let last_row = shape.y - 1u;
    let last_token = here.size.x - 1u;
    let first_row = (unit - shape.x) * 32u;
    let first_token = group.x * 64u;
    let tile = index * groups.x + group.x;
    let item = split * 64u + thread;
    if item < 512u {
        var total = vec4<f32>(0.0);
        for (var other = 0u; other < 2u; other++) {
            total += handed((tile * 2u + other) * 512u + item);
        }
        let lane_w = item % 8u;
        let lane_x = item / 8u;
        let row = first_row + lane_w * 4u;
        let token = first_token + lane_x;
        if is_inside && row <= last_row && token <= last_token {
            finish(part, token, place.z + row / 4u, total);
        }
    }
}
