fn low(eight: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(eight.x), unpack2x16float(eight.y));
}
fn high(eight: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(eight.z), unpack2x16float(eight.w));
}
var<workgroup> tiles: array<array<array<array<vec4<f32>, 9>, 7>, 4>, 1>;

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
    let first_row = (unit - shape.x) * 8u;
    let first_token = group.x * 16u;
    let team = thread / 8u;
    let mine = thread % 8u;
    let mine_w = mine / 2u % 2u;
    let mine_x = mine % 2u + mine / 4u * 2u;
    let begin = 0u;
    let end = shape.z;
    let item0 = thread + 0u;
    var at0 = item0 % 4u;
    var lane0 = item0 / 4u;
    var from0_0 = place.x + min(first_row + lane0 * 4u + 0u, last_row) * place.y;
    var held0_0_0 = vec4<u32>(0u);
    var from0_1 = place.x + min(first_row + lane0 * 4u + 1u, last_row) * place.y;
    var held0_0_1 = vec4<u32>(0u);
    var from0_2 = place.x + min(first_row + lane0 * 4u + 2u, last_row) * place.y;
    var held0_0_2 = vec4<u32>(0u);
    var from0_3 = place.x + min(first_row + lane0 * 4u + 3u, last_row) * place.y;
    var held0_0_3 = vec4<u32>(0u);
    if item0 >= 8u {
        let rest = item0 - 8u;
        at0 = rest % 8u;
        lane0 = 2u + rest / 8u;
        from0_0 = (source.x + min(first_token + rest / 8u * 4u + 0u, last_token) * source.y) / 4u;
        from0_1 = (source.x + min(first_token + rest / 8u * 4u + 1u, last_token) * source.y) / 4u;
        from0_2 = (source.x + min(first_token + rest / 8u * 4u + 2u, last_token) * source.y) / 4u;
        from0_3 = (source.x + min(first_token + rest / 8u * 4u + 3u, last_token) * source.y) / 4u;
    }
    let item1 = thread + 32u;
    var at1 = item1 % 4u;
    var lane1 = item1 / 4u;
    var from1_0 = place.x + min(first_row + lane1 * 4u + 0u, last_row) * place.y;
    var held0_1_0 = vec4<u32>(0u);
    var from1_1 = place.x + min(first_row + lane1 * 4u + 1u, last_row) * place.y;
    var held0_1_1 = vec4<u32>(0u);
    var from1_2 = place.x + min(first_row + lane1 * 4u + 2u, last_row) * place.y;
    var held0_1_2 = vec4<u32>(0u);
    var from1_3 = place.x + min(first_row + lane1 * 4u + 3u, last_row) * place.y;
    var held0_1_3 = vec4<u32>(0u);
    if item1 >= 8u {
        let rest = item1 - 8u;
        at1 = rest % 8u;
        lane1 = 2u + rest / 8u;
        from1_0 = (source.x + min(first_token + rest / 8u * 4u + 0u, last_token) * source.y) / 4u;
        from1_1 = (source.x + min(first_token + rest / 8u * 4u + 1u, last_token) * source.y) / 4u;
        from1_2 = (source.x + min(first_token + rest / 8u * 4u + 2u, last_token) * source.y) / 4u;
        from1_3 = (source.x + min(first_token + rest / 8u * 4u + 3u, last_token) * source.y) / 4u;
    }
    var sum0_0 = vec4<f32>(0.0);
    var sum0_1 = vec4<f32>(0.0);
    var sum0_2 = vec4<f32>(0.0);
    var sum0_3 = vec4<f32>(0.0);
        if item0 < 8u {
            let block = min(begin + at0, shape.z - 1u);
            held0_0_0 = weight(part, from0_0 + block);
            held0_0_1 = weight(part, from0_1 + block);
            held0_0_2 = weight(part, from0_2 + block);
            held0_0_3 = weight(part, from0_3 + block);
        } else {
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
        if item1 < 40u {
            let lane = (begin) * 2u + at1;
            held0_1_0 = vec4<u32>(0u);
            held0_1_1 = vec4<u32>(0u);
            held0_1_2 = vec4<u32>(0u);
            held0_1_3 = vec4<u32>(0u);
            if lane < shape.z * 2u {
                held0_1_0 = bitcast<vec4<u32>>(input(part, from1_0, lane));
                held0_1_1 = bitcast<vec4<u32>>(input(part, from1_1, lane));
                held0_1_2 = bitcast<vec4<u32>>(input(part, from1_2, lane));
                held0_1_3 = bitcast<vec4<u32>>(input(part, from1_3, lane));
            }
        }
    for (var start = begin; start < end; start += 4u) {
        if item0 < 8u {
            let low0 = low(held0_0_0);
            let low1 = low(held0_0_1);
            let low2 = low(held0_0_2);
            let low3 = low(held0_0_3);
            tiles[0][at0][lane0][0] = vec4<f32>(low0.x, low1.x, low2.x, low3.x);
            tiles[0][at0][lane0][1] = vec4<f32>(low0.y, low1.y, low2.y, low3.y);
            tiles[0][at0][lane0][2] = vec4<f32>(low0.z, low1.z, low2.z, low3.z);
            tiles[0][at0][lane0][3] = vec4<f32>(low0.w, low1.w, low2.w, low3.w);
            let high0 = high(held0_0_0);
            let high1 = high(held0_0_1);
            let high2 = high(held0_0_2);
            let high3 = high(held0_0_3);
            tiles[0][at0][lane0][4] = vec4<f32>(high0.x, high1.x, high2.x, high3.x);
            tiles[0][at0][lane0][5] = vec4<f32>(high0.y, high1.y, high2.y, high3.y);
            tiles[0][at0][lane0][6] = vec4<f32>(high0.z, high1.z, high2.z, high3.z);
            tiles[0][at0][lane0][7] = vec4<f32>(high0.w, high1.w, high2.w, high3.w);
        } else {
            tiles[0][at0 / 2u][lane0][at0 % 2u * 4u + 0u] = bitcast<vec4<f32>>(vec4<u32>(held0_0_0.x, held0_0_1.x, held0_0_2.x, held0_0_3.x));
            tiles[0][at0 / 2u][lane0][at0 % 2u * 4u + 1u] = bitcast<vec4<f32>>(vec4<u32>(held0_0_0.y, held0_0_1.y, held0_0_2.y, held0_0_3.y));
            tiles[0][at0 / 2u][lane0][at0 % 2u * 4u + 2u] = bitcast<vec4<f32>>(vec4<u32>(held0_0_0.z, held0_0_1.z, held0_0_2.z, held0_0_3.z));
            tiles[0][at0 / 2u][lane0][at0 % 2u * 4u + 3u] = bitcast<vec4<f32>>(vec4<u32>(held0_0_0.w, held0_0_1.w, held0_0_2.w, held0_0_3.w));
        }
        if item1 < 40u {
            tiles[0][at1 / 2u][lane1][at1 % 2u * 4u + 0u] = bitcast<vec4<f32>>(vec4<u32>(held0_1_0.x, held0_1_1.x, held0_1_2.x, held0_1_3.x));
            tiles[0][at1 / 2u][lane1][at1 % 2u * 4u + 1u] = bitcast<vec4<f32>>(vec4<u32>(held0_1_0.y, held0_1_1.y, held0_1_2.y, held0_1_3.y));
            tiles[0][at1 / 2u][lane1][at1 % 2u * 4u + 2u] = bitcast<vec4<f32>>(vec4<u32>(held0_1_0.z, held0_1_1.z, held0_1_2.z, held0_1_3.z));
            tiles[0][at1 / 2u][lane1][at1 % 2u * 4u + 3u] = bitcast<vec4<f32>>(vec4<u32>(held0_1_0.w, held0_1_1.w, held0_1_2.w, held0_1_3.w));
        }
        workgroupBarrier();
        if item0 < 8u {
            let block = min(start + 4u + at0, shape.z - 1u);
            held0_0_0 = weight(part, from0_0 + block);
            held0_0_1 = weight(part, from0_1 + block);
            held0_0_2 = weight(part, from0_2 + block);
            held0_0_3 = weight(part, from0_3 + block);
        } else {
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
        if item1 < 40u {
            let lane = (start + 4u) * 2u + at1;
            held0_1_0 = vec4<u32>(0u);
            held0_1_1 = vec4<u32>(0u);
            held0_1_2 = vec4<u32>(0u);
            held0_1_3 = vec4<u32>(0u);
            if lane < shape.z * 2u {
                held0_1_0 = bitcast<vec4<u32>>(input(part, from1_0, lane));
                held0_1_1 = bitcast<vec4<u32>>(input(part, from1_1, lane));
                held0_1_2 = bitcast<vec4<u32>>(input(part, from1_2, lane));
                held0_1_3 = bitcast<vec4<u32>>(input(part, from1_3, lane));
            }
        }
        {
            let cell = team;
            let w0_0 = tiles[0][cell][mine_w + 0u][0];
            let x0_0 = tiles[0][cell][mine_x + 2u][0];
            sum0_0 = fma(w0_0, vec4<f32>(x0_0.x), sum0_0);
            sum0_1 = fma(w0_0, vec4<f32>(x0_0.y), sum0_1);
            sum0_2 = fma(w0_0, vec4<f32>(x0_0.z), sum0_2);
            sum0_3 = fma(w0_0, vec4<f32>(x0_0.w), sum0_3);
            let w0_1 = tiles[0][cell][mine_w + 0u][1];
            let x0_1 = tiles[0][cell][mine_x + 2u][1];
            sum0_0 = fma(w0_1, vec4<f32>(x0_1.x), sum0_0);
            sum0_1 = fma(w0_1, vec4<f32>(x0_1.y), sum0_1);
            sum0_2 = fma(w0_1, vec4<f32>(x0_1.z), sum0_2);
            sum0_3 = fma(w0_1, vec4<f32>(x0_1.w), sum0_3);
            let w0_2 = tiles[0][cell][mine_w + 0u][2];
            let x0_2 = tiles[0][cell][mine_x + 2u][2];
            sum0_0 = fma(w0_2, vec4<f32>(x0_2.x), sum0_0);
            sum0_1 = fma(w0_2, vec4<f32>(x0_2.y), sum0_1);
            sum0_2 = fma(w0_2, vec4<f32>(x0_2.z), sum0_2);
            sum0_3 = fma(w0_2, vec4<f32>(x0_2.w), sum0_3);
            let w0_3 = tiles[0][cell][mine_w + 0u][3];
            let x0_3 = tiles[0][cell][mine_x + 2u][3];
            sum0_0 = fma(w0_3, vec4<f32>(x0_3.x), sum0_0);
            sum0_1 = fma(w0_3, vec4<f32>(x0_3.y), sum0_1);
            sum0_2 = fma(w0_3, vec4<f32>(x0_3.z), sum0_2);
            sum0_3 = fma(w0_3, vec4<f32>(x0_3.w), sum0_3);
            let w0_4 = tiles[0][cell][mine_w + 0u][4];
            let x0_4 = tiles[0][cell][mine_x + 2u][4];
            sum0_0 = fma(w0_4, vec4<f32>(x0_4.x), sum0_0);
            sum0_1 = fma(w0_4, vec4<f32>(x0_4.y), sum0_1);
            sum0_2 = fma(w0_4, vec4<f32>(x0_4.z), sum0_2);
            sum0_3 = fma(w0_4, vec4<f32>(x0_4.w), sum0_3);
            let w0_5 = tiles[0][cell][mine_w + 0u][5];
            let x0_5 = tiles[0][cell][mine_x + 2u][5];
            sum0_0 = fma(w0_5, vec4<f32>(x0_5.x), sum0_0);
            sum0_1 = fma(w0_5, vec4<f32>(x0_5.y), sum0_1);
            sum0_2 = fma(w0_5, vec4<f32>(x0_5.z), sum0_2);
            sum0_3 = fma(w0_5, vec4<f32>(x0_5.w), sum0_3);
            let w0_6 = tiles[0][cell][mine_w + 0u][6];
            let x0_6 = tiles[0][cell][mine_x + 2u][6];
            sum0_0 = fma(w0_6, vec4<f32>(x0_6.x), sum0_0);
            sum0_1 = fma(w0_6, vec4<f32>(x0_6.y), sum0_1);
            sum0_2 = fma(w0_6, vec4<f32>(x0_6.z), sum0_2);
            sum0_3 = fma(w0_6, vec4<f32>(x0_6.w), sum0_3);
            let w0_7 = tiles[0][cell][mine_w + 0u][7];
            let x0_7 = tiles[0][cell][mine_x + 2u][7];
            sum0_0 = fma(w0_7, vec4<f32>(x0_7.x), sum0_0);
            sum0_1 = fma(w0_7, vec4<f32>(x0_7.y), sum0_1);
            sum0_2 = fma(w0_7, vec4<f32>(x0_7.z), sum0_2);
            sum0_3 = fma(w0_7, vec4<f32>(x0_7.w), sum0_3);
        }
        workgroupBarrier();
    }
    tiles[0][(thread + 0u) / 63u][(thread + 0u) / 9u % 7u][(thread + 0u) % 9u] = sum0_0;
    tiles[0][(thread + 32u) / 63u][(thread + 32u) / 9u % 7u][(thread + 32u) % 9u] = sum0_1;
    tiles[0][(thread + 64u) / 63u][(thread + 64u) / 9u % 7u][(thread + 64u) % 9u] = sum0_2;
    tiles[0][(thread + 96u) / 63u][(thread + 96u) / 9u % 7u][(thread + 96u) % 9u] = sum0_3;
    workgroupBarrier();
    for (var item = thread; item < 32u; item += 32u) {
        var total = vec4<f32>(0.0);
        for (var other = 0u; other < 4u; other++) {
            total += tiles[0][(item / 8u * 32u + other * 8u + item % 8u) / 63u][(item / 8u * 32u + other * 8u + item % 8u) / 9u % 7u][(item / 8u * 32u + other * 8u + item % 8u) % 9u];
        }
        let value = item / 8u + 0u;
        let lane_w = item % 8u / 2u % 2u + value % 1u * 2u;
        let four = item % 2u + item % 8u / 4u * 2u + value / 4u * 4u;
        let lane_x = four * 4u + value / 1u % 4u;
        let row = first_row + lane_w * 4u;
        let token = first_token + lane_x;
        if is_inside && row <= last_row && token <= last_token {
            finish(part, token, place.z + row / 4u, total);
        }
    }
}
