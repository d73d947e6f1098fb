// RWKV-7 time mixing of one head of one slot a workgroup, token after token. Thread i2 holds column i2 (a value) of
// the head's state, in registers, for the whole run; each token's r w k kk b go round through workgroup memory.
var<workgroup> partials: array<f32, $size>;
var<workgroup> rwkb: array<vec4<f32>, $size>;
var<workgroup> removal: array<f32, $size>;

fn reduce_head(thread: u32, value: f32) -> f32 {
    workgroupBarrier(); // the threads may still read the sum before
    partials[thread] = value;
    workgroupBarrier();
    var sum = 0.0;
    for (var j = 0u; j < ${size}u; j++) {
        sum += partials[j];
    }
    return sum;
}

@compute @workgroup_size($size)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let i1 = group.x;
    let i2 = thread;
    let n = f32(${size});
    let start = load_starts(group.z);
    let cursor = load_cursor(start);
    let place = here.at[$state];
    let column = place.x + cursor.x * place.y + i1 * ${size}u + i2;
    var state: array<f32, $size>;
    for (var j = 0u; j < ${size}u; j++) {
        state[j] = $state_buffer[column + j * place.z];
    }
    for (var i0 = cursor.y; i0 < cursor.y + cursor.z; i0++) {
$prologue
        workgroupBarrier(); // the threads may still read the token before
        rwkb[i2] = vec4<f32>($r, $w, $k, $kk * $a);
        removal[i2] = $kk;
        workgroupBarrier();
        var removed = 0.0;
        for (var j = 0u; j < ${size}u; j++) {
            removed -= state[j] * removal[j];
        }
        var y = 0.0;
        for (var j = 0u; j < ${size}u; j++) {
            let token = rwkb[j];
            let kept = token.y * state[j] + token.z * $v + token.w * removed;
            state[j] = kept;
            y += token.x * kept;
        }
$epilogue
    }
    for (var j = 0u; j < ${size}u; j++) {
        $state_buffer[column + j * place.z] = state[j];
    }
}
