// The recurrence of one head of one slot a workgroup, which is one subgroup: for software adapters, where memory shared
// by a workgroup is slow and a barrier slower. A thread holds $count lanes of the state's columns (values), all rows of
// them, for the whole run; a token's numbers of each row are handed round in the subgroup.
fn reduce_head(thread: u32, value: V, place: u32) -> f32 {
    return subgroupAdd(dot(value, V(1.0)));
}
fn reduce_head_max(thread: u32, value: V, place: u32) -> f32 {
    return subgroupMax(max(max(value.x, value.y), max(value.z, value.w)));
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let i1 = group.x;
    let n = f32(${size});
    let start = load_starts(group.z);
    let cursor = load_cursor(start);
    let place = here.at[$state];
    let column = place.x + cursor.x * place.y + i1 * ${size}u;
$load
    for (var i0 = cursor.y; i0 < cursor.y + cursor.z; i0++) {
$prologue
$look
$update
$epilogue
    }
$store
}
