// A recurrence of each channel alone: a thread takes a lane of channels of one slot through its tokens, with the state
// in registers for the whole run.
@compute @workgroup_size($threads)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let i1 = 0u;
    let i2 = group.x * ${threads}u + thread;
    if i2 >= here.size.w {
        return;
    }
    let start = load_starts(group.z);
    let cursor = load_cursor(start);
    let place = here.at[$state];
    let column = place.x + cursor.x * place.y + i2 * ${lanes}u;
$load
    for (var i0 = cursor.y; i0 < cursor.y + cursor.z; i0++) {
$prologue
$step
$epilogue
    }
$store
}
