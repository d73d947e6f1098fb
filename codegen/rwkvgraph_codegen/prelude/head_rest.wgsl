// What follows the recurrence, of one head and $tokens tokens a workgroup, and all else that leaves the pass but the
// state: the kernel before this one has left the recurrence's results in memory.
$reduce

@compute @workgroup_size($threads)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let i1 = group.x;
    let i2 = thread % ${columns}u;
    let n = f32(${size});
    let token = group.z * ${tokens}u + thread / ${columns}u;
    let i0 = min(token, here.size.x - 1u);
    let is_mine = token < here.size.x;
    let at = (i0 * here.size.y + i1) * ${size}u + i2 * 4u;
    let y = V($lane);
$rest
}
