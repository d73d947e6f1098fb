// The recurrence of one head of one slot a workgroup, token after token. A lane of the head's columns (values) belongs
// to $shares threads, each of which holds $each of its rows (keys) in registers for the whole run; a token's numbers of
// each row go round through workgroup memory.
var<workgroup> numbers: array<vec4<f32>, $size>;
$looks
var<workgroup> shared_sums: array<V, $threads>;
$reduce

fn sum_shares(thread: u32, value: V) -> V {
$sum_shares
}

@compute @workgroup_size($threads)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32$inputs) {
$set_up
    let i1 = group.x;
    let i2 = thread % ${columns}u;
    let first = thread / ${columns}u * ${each}u;
    let is_first = thread < ${columns}u;
    let n = f32(${size});
    let start = load_starts(group.z);
    let cursor = load_cursor(start);
    let place = here.at[$state];
    let column = place.x + cursor.x * place.y + i1 * ${size}u + i2 * ${lanes}u + first * place.z;
$load
    for (var i0 = cursor.y; i0 < cursor.y + cursor.z; i0++) {
$prologue
        workgroupBarrier(); // the threads may still read the token before
        if is_first {
$hand_out
        }
        workgroupBarrier();
$look
        var y = V(0.0);
$update
        y = sum_shares(thread, y);
$epilogue
    }
$store
}
