// The recurrence of one head of one slot a workgroup, token after token. A lane of the head's columns (values) belongs
// to $shares threads side by side, each of which holds $each of its rows (keys) in registers for the whole run; a
// token's numbers of each row go round through workgroup memory.
//
// A barrier keeps apart the writers and the readers of one exchange. That nobody overwrites what others still read
// takes no second one: the numbers of a token and of the next have places of their own, and so has each sum of a
// token, between whose turns the barrier of the numbers lies.
var<workgroup> numbers: array<vec4<f32>, 2 * $size>;
$looks
var<workgroup> shared_sums: array<f32, $sums * $threads>;
$reduce
$sum_shares

@compute @workgroup_size($threads)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32$inputs) {
$set_up
    let i1 = group.x;
    let i2 = thread / ${shares}u;
    let first = thread % ${shares}u * ${each}u;
    let is_first = thread % ${shares}u == 0u;
    let n = f32(${size});
    let start = load_starts(group.z);
    let cursor = load_cursor(start);
    let end = cursor.y + cursor.z;
    let place = here.at[$state];
    let column = place.x + cursor.x * place.y + i1 * ${size}u + i2 * ${lanes}u + first * place.z;
$fetch
$load
    for (var i0 = cursor.y; i0 < end; i0++) {
        let side = i0 % 2u * ${size}u;
$prologue
        if is_first {
$hand_out
        }
        workgroupBarrier();
$fetch_next
$look
        var y = V(0.0);
$update
        y = sum_shares(thread, y, 1u);
$epilogue
    }
$store
}
