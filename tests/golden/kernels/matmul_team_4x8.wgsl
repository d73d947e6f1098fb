fn low(eight: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(eight.x), unpack2x16float(eight.y));
}
fn high(eight: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(eight.z), unpack2x16float(eight.w));
}
var<workgroup> tiles: array<array<array<array<vec4<f32>, 5>, 11>, 4>, 2>;

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    // Workgroups beyond the last repeat it and write nothing, so that every thread reaches every barrier.
    let index = group.y + group.z * groups.y;
    let unit = min(index, here.size.y - 1u);
    let part = part_of(unit);
    let shape = here.at[part * 3u];
    let place = here.at[part * 3u + 1u];
    let source = here.at[part * 3u + 2u];
    let is_inside = index < here.size.y;
    let last_row = shape.y - 1u;
    let last_token = here.size.x - 1u;
    let first_row = (unit - shape.x) * 32u;
    let first_token = group.x * 8u;
    let team = thread / 8u;
    let mine = thread % 8u;
    let mine_w = mine % 8u;
    let mine_x = 0u;
    let begin = 0u;
    let end = shape.z;
    let item0 = thread + 0u;
    var at0 = item0 % 2u;
    var lane0 = item0 / 2u;
    var from0_0 = place.x + min(first_row + lane0 * 4u + 0u, last_row) * place.y;
    var held0_0_0 = vec4<u32>(0u);
    var held1_0_0 = vec4<u32>(0u);
    var from0_1 = place.x + min(first_row + lane0 * 4u + 1u, last_row) * place.y;
    var held0_0_1 = vec4<u32>(0u);
    var held1_0_1 = vec4<u32>(0u);
    var from0_2 = place.x + min(first_row + lane0 * 4u + 2u, last_row) * place.y;
    var held0_0_2 = vec4<u32>(0u);
    var held1_0_2 = vec4<u32>(0u);
    var from0_3 = place.x + min(first_row + lane0 * 4u + 3u, last_row) * place.y;
    var held0_0_3 = vec4<u32>(0u);
    var held1_0_3 = vec4<u32>(0u);
    if item0 >= 16u {
        let rest = item0 - 16u;
        at0 = rest % 4u;
        lane0 = 8u + rest / 4u;
        from0_0 = (source.x + min(first_token + rest / 4u * 4u + 0u, last_token) * source.y) / 4u;
        from0_1 = (source.x + min(first_token + rest / 4u * 4u + 1u, last_token) * source.y) / 4u;
        from0_2 = (source.x + min(first_token + rest / 4u * 4u + 2u, last_token) * source.y) / 4u;
        from0_3 = (source.x + min(first_token + rest / 4u * 4u + 3u, last_token) * source.y) / 4u;
    }
    var sum0_0 = vec4<f32>(0.0);
    var sum0_1 = vec4<f32>(0.0);
    var sum0_2 = vec4<f32>(0.0);
    var sum0_3 = vec4<f32>(0.0);
    var sum0_4 = vec4<f32>(0.0);
    var sum0_5 = vec4<f32>(0.0);
    var sum0_6 = vec4<f32>(0.0);
    var sum0_7 = vec4<f32>(0.0);
        if item0 < 16u {
            let block = min(begin + at0, shape.z - 1u);
            held0_0_0 = weight(part, from0_0 + block);
            held0_0_1 = weight(part, from0_1 + block);
            held0_0_2 = weight(part, from0_2 + block);
            held0_0_3 = weight(part, from0_3 + block);
        } else if item0 < 24u {
            let lane = (begin) * 2u + at0;
            held0_0_0 = vec4<u32>(0u);
            held0_0_1 = vec4<u32>(0u);
            held0_0_2 = vec4<u32>(0u);
            held0_0_3 = vec4<u32>(0u);
            if lane < shape.z * 2u {
                held0_0_0 = bitcast<vec4<u32>>(input(part, from0_0, lane));
                held0_0_1 = bitcast<vec4<u32>>(input(part, from0_1, lane));
                held0_0_2 = bitcast<vec4<u32>>(input(part, from0_2, lane));
                held0_0_3 = bitcast<vec4<u32>>(input(part, from0_3, lane));
            }
        }
        if item0 < 16u {
            let block = min(begin + 2u + at0, shape.z - 1u);
            held1_0_0 = weight(part, from0_0 + block);
            held1_0_1 = weight(part, from0_1 + block);
            held1_0_2 = weight(part, from0_2 + block);
            held1_0_3 = weight(part, from0_3 + block);
        } else if item0 < 24u {
            let lane = (begin + 2u) * 2u + at0;
            held1_0_0 = vec4<u32>(0u);
            held1_0_1 = vec4<u32>(0u);
            held1_0_2 = vec4<u32>(0u);
            held1_0_3 = vec4<u32>(0u);
            if lane < shape.z * 2u {
                held1_0_0 = bitcast<vec4<u32>>(input(part, from0_0, lane));
                held1_0_1 = bitcast<vec4<u32>>(input(part, from0_1, lane));
                held1_0_2 = bitcast<vec4<u32>>(input(part, from0_2, lane));
                held1_0_3 = bitcast<vec4<u32>>(input(part, from0_3, lane));
            }
        }
    var turn = 0u;
        if item0 < 16u {
            let low0 = low(held0_0_0);
            let low1 = low(held0_0_1);
            let low2 = low(held0_0_2);
            let low3 = low(held0_0_3);
            tiles[turn][at0 * 2u + 0u][lane0][0] = vec4<f32>(low0.x, low1.x, low2.x, low3.x);
            tiles[turn][at0 * 2u + 0u][lane0][1] = vec4<f32>(low0.y, low1.y, low2.y, low3.y);
            tiles[turn][at0 * 2u + 0u][lane0][2] = vec4<f32>(low0.z, low1.z, low2.z, low3.z);
            tiles[turn][at0 * 2u + 0u][lane0][3] = vec4<f32>(low0.w, low1.w, low2.w, low3.w);
            let high0 = high(held0_0_0);
            let high1 = high(held0_0_1);
            let high2 = high(held0_0_2);
            let high3 = high(held0_0_3);
            tiles[turn][at0 * 2u + 1u][lane0][0] = vec4<f32>(high0.x, high1.x, high2.x, high3.x);
            tiles[turn][at0 * 2u + 1u][lane0][1] = vec4<f32>(high0.y, high1.y, high2.y, high3.y);
            tiles[turn][at0 * 2u + 1u][lane0][2] = vec4<f32>(high0.z, high1.z, high2.z, high3.z);
            tiles[turn][at0 * 2u + 1u][lane0][3] = vec4<f32>(high0.w, high1.w, high2.w, high3.w);
        } else if item0 < 24u {
            tiles[turn][at0][lane0][0] = bitcast<vec4<f32>>(vec4<u32>(held0_0_0.x, held0_0_1.x, held0_0_2.x, held0_0_3.x));
            tiles[turn][at0][lane0][1] = bitcast<vec4<f32>>(vec4<u32>(held0_0_0.y, held0_0_1.y, held0_0_2.y, held0_0_3.y));
            tiles[turn][at0][lane0][2] = bitcast<vec4<f32>>(vec4<u32>(held0_0_0.z, held0_0_1.z, held0_0_2.z, held0_0_3.z));
            tiles[turn][at0][lane0][3] = bitcast<vec4<f32>>(vec4<u32>(held0_0_0.w, held0_0_1.w, held0_0_2.w, held0_0_3.w));
        }
    workgroupBarrier();
    for (var start = begin; start < end; start += 4u) {
        if item0 < 16u {
            let block = min(start + 4u + at0, shape.z - 1u);
            held0_0_0 = weight(part, from0_0 + block);
            held0_0_1 = weight(part, from0_1 + block);
            held0_0_2 = weight(part, from0_2 + block);
            held0_0_3 = weight(part, from0_3 + block);
        } else if item0 < 24u {
            let lane = (start + 4u) * 2u + at0;
            held0_0_0 = vec4<u32>(0u);
            held0_0_1 = vec4<u32>(0u);
            held0_0_2 = vec4<u32>(0u);
            held0_0_3 = vec4<u32>(0u);
            if lane < shape.z * 2u {
                held0_0_0 = bitcast<vec4<u32>>(input(part, from0_0, lane));
                held0_0_1 = bitcast<vec4<u32>>(input(part, from0_1, lane));
                held0_0_2 = bitcast<vec4<u32>>(input(part, from0_2, lane));
                held0_0_3 = bitcast<vec4<u32>>(input(part, from0_3, lane));
            }
        }
        {
            let cell = team;
            let w0_0 = tiles[turn][cell][mine_w + 0u][0];
            let x0_0 = tiles[turn][cell][mine_x + 8u][0];
            let x1_0 = tiles[turn][cell][mine_x + 9u][0];
            sum0_0 = fma(w0_0, vec4<f32>(x0_0.x), sum0_0);
            sum0_1 = fma(w0_0, vec4<f32>(x0_0.y), sum0_1);
            sum0_2 = fma(w0_0, vec4<f32>(x0_0.z), sum0_2);
            sum0_3 = fma(w0_0, vec4<f32>(x0_0.w), sum0_3);
            sum0_4 = fma(w0_0, vec4<f32>(x1_0.x), sum0_4);
            sum0_5 = fma(w0_0, vec4<f32>(x1_0.y), sum0_5);
            sum0_6 = fma(w0_0, vec4<f32>(x1_0.z), sum0_6);
            sum0_7 = fma(w0_0, vec4<f32>(x1_0.w), sum0_7);
            let w0_1 = tiles[turn][cell][mine_w + 0u][1];
            let x0_1 = tiles[turn][cell][mine_x + 8u][1];
            let x1_1 = tiles[turn][cell][mine_x + 9u][1];
            sum0_0 = fma(w0_1, vec4<f32>(x0_1.x), sum0_0);
            sum0_1 = fma(w0_1, vec4<f32>(x0_1.y), sum0_1);
            sum0_2 = fma(w0_1, vec4<f32>(x0_1.z), sum0_2);
            sum0_3 = fma(w0_1, vec4<f32>(x0_1.w), sum0_3);
            sum0_4 = fma(w0_1, vec4<f32>(x1_1.x), sum0_4);
            sum0_5 = fma(w0_1, vec4<f32>(x1_1.y), sum0_5);
            sum0_6 = fma(w0_1, vec4<f32>(x1_1.z), sum0_6);
            sum0_7 = fma(w0_1, vec4<f32>(x1_1.w), sum0_7);
            let w0_2 = tiles[turn][cell][mine_w + 0u][2];
            let x0_2 = tiles[turn][cell][mine_x + 8u][2];
            let x1_2 = tiles[turn][cell][mine_x + 9u][2];
            sum0_0 = fma(w0_2, vec4<f32>(x0_2.x), sum0_0);
            sum0_1 = fma(w0_2, vec4<f32>(x0_2.y), sum0_1);
            sum0_2 = fma(w0_2, vec4<f32>(x0_2.z), sum0_2);
            sum0_3 = fma(w0_2, vec4<f32>(x0_2.w), sum0_3);
            sum0_4 = fma(w0_2, vec4<f32>(x1_2.x), sum0_4);
            sum0_5 = fma(w0_2, vec4<f32>(x1_2.y), sum0_5);
            sum0_6 = fma(w0_2, vec4<f32>(x1_2.z), sum0_6);
            sum0_7 = fma(w0_2, vec4<f32>(x1_2.w), sum0_7);
            let w0_3 = tiles[turn][cell][mine_w + 0u][3];
            let x0_3 = tiles[turn][cell][mine_x + 8u][3];
            let x1_3 = tiles[turn][cell][mine_x + 9u][3];
            sum0_0 = fma(w0_3, vec4<f32>(x0_3.x), sum0_0);
            sum0_1 = fma(w0_3, vec4<f32>(x0_3.y), sum0_1);
            sum0_2 = fma(w0_3, vec4<f32>(x0_3.z), sum0_2);
            sum0_3 = fma(w0_3, vec4<f32>(x0_3.w), sum0_3);
            sum0_4 = fma(w0_3, vec4<f32>(x1_3.x), sum0_4);
            sum0_5 = fma(w0_3, vec4<f32>(x1_3.y), sum0_5);
            sum0_6 = fma(w0_3, vec4<f32>(x1_3.z), sum0_6);
            sum0_7 = fma(w0_3, vec4<f32>(x1_3.w), sum0_7);
        }
        turn = 1u - turn;
        if item0 < 16u {
            let low0 = low(held1_0_0);
            let low1 = low(held1_0_1);
            let low2 = low(held1_0_2);
            let low3 = low(held1_0_3);
            tiles[turn][at0 * 2u + 0u][lane0][0] = vec4<f32>(low0.x, low1.x, low2.x, low3.x);
            tiles[turn][at0 * 2u + 0u][lane0][1] = vec4<f32>(low0.y, low1.y, low2.y, low3.y);
            tiles[turn][at0 * 2u + 0u][lane0][2] = vec4<f32>(low0.z, low1.z, low2.z, low3.z);
            tiles[turn][at0 * 2u + 0u][lane0][3] = vec4<f32>(low0.w, low1.w, low2.w, low3.w);
            let high0 = high(held1_0_0);
            let high1 = high(held1_0_1);
            let high2 = high(held1_0_2);
            let high3 = high(held1_0_3);
            tiles[turn][at0 * 2u + 1u][lane0][0] = vec4<f32>(high0.x, high1.x, high2.x, high3.x);
            tiles[turn][at0 * 2u + 1u][lane0][1] = vec4<f32>(high0.y, high1.y, high2.y, high3.y);
            tiles[turn][at0 * 2u + 1u][lane0][2] = vec4<f32>(high0.z, high1.z, high2.z, high3.z);
            tiles[turn][at0 * 2u + 1u][lane0][3] = vec4<f32>(high0.w, high1.w, high2.w, high3.w);
        } else if item0 < 24u {
            tiles[turn][at0][lane0][0] = bitcast<vec4<f32>>(vec4<u32>(held1_0_0.x, held1_0_1.x, held1_0_2.x, held1_0_3.x));
            tiles[turn][at0][lane0][1] = bitcast<vec4<f32>>(vec4<u32>(held1_0_0.y, held1_0_1.y, held1_0_2.y, held1_0_3.y));
            tiles[turn][at0][lane0][2] = bitcast<vec4<f32>>(vec4<u32>(held1_0_0.z, held1_0_1.z, held1_0_2.z, held1_0_3.z));
            tiles[turn][at0][lane0][3] = bitcast<vec4<f32>>(vec4<u32>(held1_0_0.w, held1_0_1.w, held1_0_2.w, held1_0_3.w));
        }
        workgroupBarrier();
        if item0 < 16u {
            let block = min(start + 6u + at0, shape.z - 1u);
            held1_0_0 = weight(part, from0_0 + block);
            held1_0_1 = weight(part, from0_1 + block);
            held1_0_2 = weight(part, from0_2 + block);
            held1_0_3 = weight(part, from0_3 + block);
        } else if item0 < 24u {
            let lane = (start + 6u) * 2u + at0;
            held1_0_0 = vec4<u32>(0u);
            held1_0_1 = vec4<u32>(0u);
            held1_0_2 = vec4<u32>(0u);
            held1_0_3 = vec4<u32>(0u);
            if lane < shape.z * 2u {
                held1_0_0 = bitcast<vec4<u32>>(input(part, from0_0, lane));
                held1_0_1 = bitcast<vec4<u32>>(input(part, from0_1, lane));
                held1_0_2 = bitcast<vec4<u32>>(input(part, from0_2, lane));
                held1_0_3 = bitcast<vec4<u32>>(input(part, from0_3, lane));
            }
        }
        {
            let cell = team;
            let w0_0 = tiles[turn][cell][mine_w + 0u][0];
            let x0_0 = tiles[turn][cell][mine_x + 8u][0];
            let x1_0 = tiles[turn][cell][mine_x + 9u][0];
            sum0_0 = fma(w0_0, vec4<f32>(x0_0.x), sum0_0);
            sum0_1 = fma(w0_0, vec4<f32>(x0_0.y), sum0_1);
            sum0_2 = fma(w0_0, vec4<f32>(x0_0.z), sum0_2);
            sum0_3 = fma(w0_0, vec4<f32>(x0_0.w), sum0_3);
            sum0_4 = fma(w0_0, vec4<f32>(x1_0.x), sum0_4);
            sum0_5 = fma(w0_0, vec4<f32>(x1_0.y), sum0_5);
            sum0_6 = fma(w0_0, vec4<f32>(x1_0.z), sum0_6);
            sum0_7 = fma(w0_0, vec4<f32>(x1_0.w), sum0_7);
            let w0_1 = tiles[turn][cell][mine_w + 0u][1];
            let x0_1 = tiles[turn][cell][mine_x + 8u][1];
            let x1_1 = tiles[turn][cell][mine_x + 9u][1];
            sum0_0 = fma(w0_1, vec4<f32>(x0_1.x), sum0_0);
            sum0_1 = fma(w0_1, vec4<f32>(x0_1.y), sum0_1);
            sum0_2 = fma(w0_1, vec4<f32>(x0_1.z), sum0_2);
            sum0_3 = fma(w0_1, vec4<f32>(x0_1.w), sum0_3);
            sum0_4 = fma(w0_1, vec4<f32>(x1_1.x), sum0_4);
            sum0_5 = fma(w0_1, vec4<f32>(x1_1.y), sum0_5);
            sum0_6 = fma(w0_1, vec4<f32>(x1_1.z), sum0_6);
            sum0_7 = fma(w0_1, vec4<f32>(x1_1.w), sum0_7);
            let w0_2 = tiles[turn][cell][mine_w + 0u][2];
            let x0_2 = tiles[turn][cell][mine_x + 8u][2];
            let x1_2 = tiles[turn][cell][mine_x + 9u][2];
            sum0_0 = fma(w0_2, vec4<f32>(x0_2.x), sum0_0);
            sum0_1 = fma(w0_2, vec4<f32>(x0_2.y), sum0_1);
            sum0_2 = fma(w0_2, vec4<f32>(x0_2.z), sum0_2);
            sum0_3 = fma(w0_2, vec4<f32>(x0_2.w), sum0_3);
            sum0_4 = fma(w0_2, vec4<f32>(x1_2.x), sum0_4);
            sum0_5 = fma(w0_2, vec4<f32>(x1_2.y), sum0_5);
            sum0_6 = fma(w0_2, vec4<f32>(x1_2.z), sum0_6);
            sum0_7 = fma(w0_2, vec4<f32>(x1_2.w), sum0_7);
            let w0_3 = tiles[turn][cell][mine_w + 0u][3];
            let x0_3 = tiles[turn][cell][mine_x + 8u][3];
            let x1_3 = tiles[turn][cell][mine_x + 9u][3];
            sum0_0 = fma(w0_3, vec4<f32>(x0_3.x), sum0_0);
            sum0_1 = fma(w0_3, vec4<f32>(x0_3.y), sum0_1);
            sum0_2 = fma(w0_3, vec4<f32>(x0_3.z), sum0_2);
            sum0_3 = fma(w0_3, vec4<f32>(x0_3.w), sum0_3);
            sum0_4 = fma(w0_3, vec4<f32>(x1_3.x), sum0_4);
            sum0_5 = fma(w0_3, vec4<f32>(x1_3.y), sum0_5);
            sum0_6 = fma(w0_3, vec4<f32>(x1_3.z), sum0_6);
            sum0_7 = fma(w0_3, vec4<f32>(x1_3.w), sum0_7);
        }
        turn = 1u - turn;
        if item0 < 16u {
            let low0 = low(held0_0_0);
            let low1 = low(held0_0_1);
            let low2 = low(held0_0_2);
            let low3 = low(held0_0_3);
            tiles[turn][at0 * 2u + 0u][lane0][0] = vec4<f32>(low0.x, low1.x, low2.x, low3.x);
            tiles[turn][at0 * 2u + 0u][lane0][1] = vec4<f32>(low0.y, low1.y, low2.y, low3.y);
            tiles[turn][at0 * 2u + 0u][lane0][2] = vec4<f32>(low0.z, low1.z, low2.z, low3.z);
            tiles[turn][at0 * 2u + 0u][lane0][3] = vec4<f32>(low0.w, low1.w, low2.w, low3.w);
            let high0 = high(held0_0_0);
            let high1 = high(held0_0_1);
            let high2 = high(held0_0_2);
            let high3 = high(held0_0_3);
            tiles[turn][at0 * 2u + 1u][lane0][0] = vec4<f32>(high0.x, high1.x, high2.x, high3.x);
            tiles[turn][at0 * 2u + 1u][lane0][1] = vec4<f32>(high0.y, high1.y, high2.y, high3.y);
            tiles[turn][at0 * 2u + 1u][lane0][2] = vec4<f32>(high0.z, high1.z, high2.z, high3.z);
            tiles[turn][at0 * 2u + 1u][lane0][3] = vec4<f32>(high0.w, high1.w, high2.w, high3.w);
        } else if item0 < 24u {
            tiles[turn][at0][lane0][0] = bitcast<vec4<f32>>(vec4<u32>(held0_0_0.x, held0_0_1.x, held0_0_2.x, held0_0_3.x));
            tiles[turn][at0][lane0][1] = bitcast<vec4<f32>>(vec4<u32>(held0_0_0.y, held0_0_1.y, held0_0_2.y, held0_0_3.y));
            tiles[turn][at0][lane0][2] = bitcast<vec4<f32>>(vec4<u32>(held0_0_0.z, held0_0_1.z, held0_0_2.z, held0_0_3.z));
            tiles[turn][at0][lane0][3] = bitcast<vec4<f32>>(vec4<u32>(held0_0_0.w, held0_0_1.w, held0_0_2.w, held0_0_3.w));
        }
        workgroupBarrier();
    }
    tiles[(thread + 0u) / 220u][(thread + 0u) / 55u % 4u][(thread + 0u) / 5u % 11u][(thread + 0u) % 5u] = sum0_0;
    tiles[(thread + 32u) / 220u][(thread + 32u) / 55u % 4u][(thread + 32u) / 5u % 11u][(thread + 32u) % 5u] = sum0_1;
    tiles[(thread + 64u) / 220u][(thread + 64u) / 55u % 4u][(thread + 64u) / 5u % 11u][(thread + 64u) % 5u] = sum0_2;
    tiles[(thread + 96u) / 220u][(thread + 96u) / 55u % 4u][(thread + 96u) / 5u % 11u][(thread + 96u) % 5u] = sum0_3;
    tiles[(thread + 128u) / 220u][(thread + 128u) / 55u % 4u][(thread + 128u) / 5u % 11u][(thread + 128u) % 5u] = sum0_4;
    tiles[(thread + 160u) / 220u][(thread + 160u) / 55u % 4u][(thread + 160u) / 5u % 11u][(thread + 160u) % 5u] = sum0_5;
    tiles[(thread + 192u) / 220u][(thread + 192u) / 55u % 4u][(thread + 192u) / 5u % 11u][(thread + 192u) % 5u] = sum0_6;
    tiles[(thread + 224u) / 220u][(thread + 224u) / 55u % 4u][(thread + 224u) / 5u % 11u][(thread + 224u) % 5u] = sum0_7;
    workgroupBarrier();
    for (var item = thread; item < 64u; item += 32u) {
        var total = vec4<f32>(0.0);
        for (var other = 0u; other < 4u; other++) {
            total += tiles[(item / 8u * 32u + other * 8u + item % 8u) / 220u][(item / 8u * 32u + other * 8u + item % 8u) / 55u % 4u][(item / 8u * 32u + other * 8u + item % 8u) / 5u % 11u][(item / 8u * 32u + other * 8u + item % 8u) % 5u];
        }
        let value = item / 8u + 0u;
        let lane_w = item % 8u % 8u + value % 1u * 8u;
        let four = 0u + value / 4u * 1u;
        let lane_x = four * 4u + value / 1u % 4u;
        let row = first_row + lane_w * 4u;
        let token = first_token + lane_x;
        if is_inside && row <= last_row && token <= last_token {
            finish(part, token, place.z + row / 4u, total);
        }
    }
}
