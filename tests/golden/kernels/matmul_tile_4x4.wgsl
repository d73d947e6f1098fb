fn low(eight: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(eight.x), unpack2x16float(eight.y));
}
fn high(eight: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(eight.z), unpack2x16float(eight.w));
}
var<workgroup> tile_w: array<vec4<f32>, 128>;
var<workgroup> tile_x: array<vec4<f32>, 128>;

@compute @workgroup_size(64)
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
    let first_token = group.x * 32u;
    let mine_w = thread % 8u;
    let mine_x = thread / 8u;
    var sum0_0 = vec4<f32>(0.0);
    var sum0_1 = vec4<f32>(0.0);
    var sum0_2 = vec4<f32>(0.0);
    var sum0_3 = vec4<f32>(0.0);
    for (var start = 0u; start < shape.z; start += 2u) {
        for (var item = thread; item < 16u; item += 64u) {
            let four = item % 8u;
            let block = item / 8u;
            let row = first_row + four * 4u;
            let at = place.x + start + block;
            let is_there = start + block < shape.z;
            var w0 = vec4<u32>(0u);
            if is_there { w0 = weight(part, at + min(row + 0u, last_row) * place.y); }
            var w1 = vec4<u32>(0u);
            if is_there { w1 = weight(part, at + min(row + 1u, last_row) * place.y); }
            var w2 = vec4<u32>(0u);
            if is_there { w2 = weight(part, at + min(row + 2u, last_row) * place.y); }
            var w3 = vec4<u32>(0u);
            if is_there { w3 = weight(part, at + min(row + 3u, last_row) * place.y); }
            let low0 = low(w0);
            let low1 = low(w1);
            let low2 = low(w2);
            let low3 = low(w3);
            tile_w[(block * 8u + 0u) * 8u + four] = vec4<f32>(low0.x, low1.x, low2.x, low3.x);
            tile_w[(block * 8u + 1u) * 8u + four] = vec4<f32>(low0.y, low1.y, low2.y, low3.y);
            tile_w[(block * 8u + 2u) * 8u + four] = vec4<f32>(low0.z, low1.z, low2.z, low3.z);
            tile_w[(block * 8u + 3u) * 8u + four] = vec4<f32>(low0.w, low1.w, low2.w, low3.w);
            let high0 = high(w0);
            let high1 = high(w1);
            let high2 = high(w2);
            let high3 = high(w3);
            tile_w[(block * 8u + 4u) * 8u + four] = vec4<f32>(high0.x, high1.x, high2.x, high3.x);
            tile_w[(block * 8u + 5u) * 8u + four] = vec4<f32>(high0.y, high1.y, high2.y, high3.y);
            tile_w[(block * 8u + 6u) * 8u + four] = vec4<f32>(high0.z, high1.z, high2.z, high3.z);
            tile_w[(block * 8u + 7u) * 8u + four] = vec4<f32>(high0.w, high1.w, high2.w, high3.w);
        }
        for (var item = thread; item < 32u; item += 64u) {
            let four = item % 8u;
            let lane = item / 8u;
            let token = first_token + four * 4u;
            let is_there = start * 2u + lane < shape.z * 2u;
            var x0 = vec4<f32>(0.0);
            if is_there { x0 = input(part, (source.x + min(token + 0u, last_token) * source.y) / 4u, start * 2u + lane); }
            var x1 = vec4<f32>(0.0);
            if is_there { x1 = input(part, (source.x + min(token + 1u, last_token) * source.y) / 4u, start * 2u + lane); }
            var x2 = vec4<f32>(0.0);
            if is_there { x2 = input(part, (source.x + min(token + 2u, last_token) * source.y) / 4u, start * 2u + lane); }
            var x3 = vec4<f32>(0.0);
            if is_there { x3 = input(part, (source.x + min(token + 3u, last_token) * source.y) / 4u, start * 2u + lane); }
            tile_x[(lane * 4u + 0u) * 8u + four] = vec4<f32>(x0.x, x1.x, x2.x, x3.x);
            tile_x[(lane * 4u + 1u) * 8u + four] = vec4<f32>(x0.y, x1.y, x2.y, x3.y);
            tile_x[(lane * 4u + 2u) * 8u + four] = vec4<f32>(x0.z, x1.z, x2.z, x3.z);
            tile_x[(lane * 4u + 3u) * 8u + four] = vec4<f32>(x0.w, x1.w, x2.w, x3.w);
        }
        workgroupBarrier();
        for (var k = 0u; k < 16u; k += 8u) {
            let w0_0 = tile_w[(k + 0u) * 8u + mine_w + 0u];
            let x0_0 = tile_x[(k + 0u) * 8u + mine_x + 0u];
            sum0_0 = fma(w0_0, vec4<f32>(x0_0.x), sum0_0);
            sum0_1 = fma(w0_0, vec4<f32>(x0_0.y), sum0_1);
            sum0_2 = fma(w0_0, vec4<f32>(x0_0.z), sum0_2);
            sum0_3 = fma(w0_0, vec4<f32>(x0_0.w), sum0_3);
            let w0_1 = tile_w[(k + 1u) * 8u + mine_w + 0u];
            let x0_1 = tile_x[(k + 1u) * 8u + mine_x + 0u];
            sum0_0 = fma(w0_1, vec4<f32>(x0_1.x), sum0_0);
            sum0_1 = fma(w0_1, vec4<f32>(x0_1.y), sum0_1);
            sum0_2 = fma(w0_1, vec4<f32>(x0_1.z), sum0_2);
            sum0_3 = fma(w0_1, vec4<f32>(x0_1.w), sum0_3);
            let w0_2 = tile_w[(k + 2u) * 8u + mine_w + 0u];
            let x0_2 = tile_x[(k + 2u) * 8u + mine_x + 0u];
            sum0_0 = fma(w0_2, vec4<f32>(x0_2.x), sum0_0);
            sum0_1 = fma(w0_2, vec4<f32>(x0_2.y), sum0_1);
            sum0_2 = fma(w0_2, vec4<f32>(x0_2.z), sum0_2);
            sum0_3 = fma(w0_2, vec4<f32>(x0_2.w), sum0_3);
            let w0_3 = tile_w[(k + 3u) * 8u + mine_w + 0u];
            let x0_3 = tile_x[(k + 3u) * 8u + mine_x + 0u];
            sum0_0 = fma(w0_3, vec4<f32>(x0_3.x), sum0_0);
            sum0_1 = fma(w0_3, vec4<f32>(x0_3.y), sum0_1);
            sum0_2 = fma(w0_3, vec4<f32>(x0_3.z), sum0_2);
            sum0_3 = fma(w0_3, vec4<f32>(x0_3.w), sum0_3);
            let w0_4 = tile_w[(k + 4u) * 8u + mine_w + 0u];
            let x0_4 = tile_x[(k + 4u) * 8u + mine_x + 0u];
            sum0_0 = fma(w0_4, vec4<f32>(x0_4.x), sum0_0);
            sum0_1 = fma(w0_4, vec4<f32>(x0_4.y), sum0_1);
            sum0_2 = fma(w0_4, vec4<f32>(x0_4.z), sum0_2);
            sum0_3 = fma(w0_4, vec4<f32>(x0_4.w), sum0_3);
            let w0_5 = tile_w[(k + 5u) * 8u + mine_w + 0u];
            let x0_5 = tile_x[(k + 5u) * 8u + mine_x + 0u];
            sum0_0 = fma(w0_5, vec4<f32>(x0_5.x), sum0_0);
            sum0_1 = fma(w0_5, vec4<f32>(x0_5.y), sum0_1);
            sum0_2 = fma(w0_5, vec4<f32>(x0_5.z), sum0_2);
            sum0_3 = fma(w0_5, vec4<f32>(x0_5.w), sum0_3);
            let w0_6 = tile_w[(k + 6u) * 8u + mine_w + 0u];
            let x0_6 = tile_x[(k + 6u) * 8u + mine_x + 0u];
            sum0_0 = fma(w0_6, vec4<f32>(x0_6.x), sum0_0);
            sum0_1 = fma(w0_6, vec4<f32>(x0_6.y), sum0_1);
            sum0_2 = fma(w0_6, vec4<f32>(x0_6.z), sum0_2);
            sum0_3 = fma(w0_6, vec4<f32>(x0_6.w), sum0_3);
            let w0_7 = tile_w[(k + 7u) * 8u + mine_w + 0u];
            let x0_7 = tile_x[(k + 7u) * 8u + mine_x + 0u];
            sum0_0 = fma(w0_7, vec4<f32>(x0_7.x), sum0_0);
            sum0_1 = fma(w0_7, vec4<f32>(x0_7.y), sum0_1);
            sum0_2 = fma(w0_7, vec4<f32>(x0_7.z), sum0_2);
            sum0_3 = fma(w0_7, vec4<f32>(x0_7.w), sum0_3);
        }
        workgroupBarrier();
    }
    if is_inside && first_token + (mine_x + 0u / 4u * 8u) * 4u + 0u / 1u % 4u <= last_token && first_row + (mine_w + 0u % 1u * 8u) * 4u <= last_row {
        finish(part, first_token + (mine_x + 0u / 4u * 8u) * 4u + 0u / 1u % 4u, place.z + (first_row + (mine_w + 0u % 1u * 8u) * 4u) / 4u, sum0_0);
    }
    if is_inside && first_token + (mine_x + 1u / 4u * 8u) * 4u + 1u / 1u % 4u <= last_token && first_row + (mine_w + 1u % 1u * 8u) * 4u <= last_row {
        finish(part, first_token + (mine_x + 1u / 4u * 8u) * 4u + 1u / 1u % 4u, place.z + (first_row + (mine_w + 1u % 1u * 8u) * 4u) / 4u, sum0_1);
    }
    if is_inside && first_token + (mine_x + 2u / 4u * 8u) * 4u + 2u / 1u % 4u <= last_token && first_row + (mine_w + 2u % 1u * 8u) * 4u <= last_row {
        finish(part, first_token + (mine_x + 2u / 4u * 8u) * 4u + 2u / 1u % 4u, place.z + (first_row + (mine_w + 2u % 1u * 8u) * 4u) / 4u, sum0_2);
    }
    if is_inside && first_token + (mine_x + 3u / 4u * 8u) * 4u + 3u / 1u % 4u <= last_token && first_row + (mine_w + 3u % 1u * 8u) * 4u <= last_row {
        finish(part, first_token + (mine_x + 3u / 4u * 8u) * 4u + 3u / 1u % 4u, place.z + (first_row + (mine_w + 3u % 1u * 8u) * 4u) / 4u, sum0_3);
    }
}
