// The recurrence of one head of one slot for a single token. A lane of the head's columns (values) belongs to $shares
// threads side by side, each of which holds $each of its rows (keys), every ${shares}th, in registers. All of them
// prepare the token and finish it, so that all they load is under way at once; what its rows and columns need goes
// round through workgroup memory.
var<workgroup> numbers: array<vec4<f32>, $places>;
$shared
var<workgroup> shared_sums: array<f32, $sums * $threads>;
$reduce
$sum_shares

@compute @workgroup_size($threads)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32$inputs) {
$set_up
    let i0 = $only;
    let i1 = group.x;
    let i2 = thread / ${shares}u;
    let share = thread % ${shares}u;
    let is_mine = share == 0u;
    let n = f32(${size});
    let cursor = load_cursor(i0);
$fetch
    let place = here.at[$state];
    let column = place.x + cursor.x * place.y + i1 * ${size}u + i2 * ${lanes}u + share * place.z;
$load
$prologue
    let token = 0u;
    let row = share;
$hand_out
    workgroupBarrier();
$take
$look
    var sum = V(0.0);
$update
    let y = sum_shares(thread, sum, $turn);
$epilogue
$store
}
