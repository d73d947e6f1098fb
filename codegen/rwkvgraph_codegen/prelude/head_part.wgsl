// The recurrence of one of $parts parts of the columns (values) of one head of one slot a workgroup, for long runs of
// few heads: columns need nothing of each other. A third of the threads steps: each pair of columns belongs to $shares
// of them side by side, each of which holds $each of its rows (keys) in registers for the whole run. The others prepare
// tokens meanwhile, as whole heads, $tokens at a time, a lane of the columns each; by turns, so that what one third
// asks memory for has a lap to come in, while the other works.
//
// All meet once a lap. What goes from some to others goes through workgroup memory, of which there is as much again for
// the next lap: prepared tokens, and what each stepping thread has of their results at the end of a lap, so that no
// token waits for sums that the next has no use for. Results go to memory: the kernel behind this one finishes the
// tokens, each with all of its head.
var<workgroup> numbers: array<vec4<f32>, 2 * $numbers>;
$shared
var<workgroup> results: array<$pair, $all_room>;
$reduce
$sum_shares

@compute @workgroup_size($threads)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let third = thread / ${stepping}u;
    let worker = thread % ${stepping}u;
    let i1 = group.x / ${parts}u;
    let part = group.x % ${parts}u;
    let i2 = worker % ${columns}u;
    let mine = worker / ${columns}u;
    let pair = worker / ${shares}u;
    let share = worker % ${shares}u;
    let n = f32(${size});
    let start = load_starts(group.z);
    let cursor = load_cursor(start);
    let end = cursor.y + cursor.z;
    let place = here.at[$state];
    let first = place.x + cursor.x * place.y + i1 * ${size}u + part * ${columns}u;
    let column = first + share * ${lanes}u * place.z;
    let opening = min(start + mine, end - 1u);
$fetch
    $load
    let laps = (cursor.z + ${tokens}u - 1u) / ${tokens}u;
    for (var lap = 0u; lap < laps + 2u; lap++) {
        let half = lap % 2u;
        let other = 1u - half;
        if third == 2u {
            if lap > 0u && lap <= laps {
                let row = other * ${numbers}u + share;
                let own = other * ${all_columns}u + part * ${pairs}u + pair;
                let left = other * ${room}u + pair * ${apart}u + share;
                $steps
            }
        } else if third == half {
            if lap < laps {
                let token = cursor.y + lap * ${tokens}u + mine;
                let i0 = min(token, end - 1u);
                let is_mine = token < end;
                let to = half * ${numbers}u + mine * ${places}u + i2;
                let to_columns = half * ${all_columns}u + mine * ${own_columns}u + i2 * 2u;
$prologue
                $hand_out
            }
        } else {
            if lap + 1u < laps {
                let following = min(cursor.y + (lap + 1u) * ${tokens}u + mine, end - 1u);
$fetch_next
            }
            if lap > 1u {
                let at = half * ${room}u + (mine * ${pairs}u + i2 / 2u) * ${apart}u;
                let y = $sum;
                let done = cursor.y + (lap - 2u) * ${tokens}u + mine;
                if done < end {
                    ${handed}[(done * here.size.y + i1) * ${size}u + part * ${columns}u + i2] = y;
                }
            }
        }
        workgroupBarrier();
    }
    if third == 2u {
        $store
    }
    workgroupBarrier();
    for (var at = thread; at < ${state_lanes}u; at += ${threads}u) {
        $lane = V(results[2u * at], results[2u * at + 1u]);
    }
}
