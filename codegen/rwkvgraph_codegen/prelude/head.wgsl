// The recurrence of one head of one slot a workgroup. A lane of the head's columns (values) belongs to $shares threads
// side by side, each of which holds $each of its rows (keys), every ${shares}th, in registers for the whole run.
//
// Tokens are taken $shares at a time: each share of a column's threads prepares one of them and finishes it, side by
// side, and all of them bring the state forward by one after another; what that needs of a token's rows and columns
// goes round through workgroup memory.
var<workgroup> numbers: array<vec4<f32>, $shares * $places>;
$shared
var<workgroup> shared_sums: array<f32, $sums * $threads>;
$reduce
$sum_shares

@compute @workgroup_size($threads)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32$inputs) {
$set_up
    let i1 = group.x;
    let i2 = thread / ${shares}u;
    let share = thread % ${shares}u;
    let n = f32(${size});
    let start = load_starts(group.z);
    let cursor = load_cursor(start);
    let end = cursor.y + cursor.z;
    let place = here.at[$state];
    let column = place.x + cursor.x * place.y + i1 * ${size}u + i2 * ${lanes}u + share * place.z;
$fetch
$load
    for (var block = cursor.y; block < end; block += ${shares}u) {
        let i0 = min(block + share, end - 1u);
        let is_mine = block + share < end;
$prologue
$hand_out
        workgroupBarrier();
$fetch_later
$fetch_next
        var y = V(0.0);
        for (var token = 0u; token < min(${shares}u, end - block); token++) {
            let row = token * ${places}u + share;
$take
$look
            var sum = V(0.0);
$update
            sum = sum_shares(thread, sum, $turn);
            if share == token {
                y = sum;
            }
        }
$epilogue
        workgroupBarrier(); // the threads may still read these tokens
    }
$store
}
