// A number without the bits that an f16 has not: a conversion there and back is what compilers drop.
fn cut(value: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(value) & vec4<u32>(0xffffe000u));
}
fn weights_of(two: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(two.x), unpack2x16float(two.y));
}
fn short(four: vec4<f32>) -> vec4<f32> {
    return weights_of(vec2<u32>(pack2x16float(four.xy), pack2x16float(four.zw)));
}
alias Total = array<f32, 8>;

var<workgroup> matrix: array<f32, 1280>;
var<workgroup> high: array<f32, 2560>;
var<workgroup> low: array<f32, 2560>;
var<workgroup> results: array<f32, 1024>;
fn multiply_high(lane: u32, at_w: u32, at_x: u32, total: ptr<function, Total>) {
    for (var column = 0u; column < 16u; column++) {
        let w = matrix[at_w + lane / 2u * 40u + column];
        for (var i = 0u; i < 8u; i++) {
            (*total)[i] += w * high[at_x + (lane % 2u * 8u + i) * 40u + column];
        }
    }
}
fn multiply_low(lane: u32, at_w: u32, at_x: u32, total: ptr<function, Total>) {
    for (var column = 0u; column < 16u; column++) {
        let w = matrix[at_w + lane / 2u * 40u + column];
        for (var i = 0u; i < 8u; i++) {
            (*total)[i] += w * low[at_x + (lane % 2u * 8u + i) * 40u + column];
        }
    }
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    // Workgroups beyond the last repeat it and write nothing, so that every thread reaches every barrier.
    let index = (group.y + group.z * groups.y) / 2u;
    let split = (group.y + group.z * groups.y) % 2u;
    let unit = min(index, here.size.y - 1u);
    let part = part_of(unit);
    let shape = here.at[part * 3u];
    let place = here.at[part * 3u + 1u];
    let source = here.at[part * 3u + 2u];
    let is_inside = index < here.size.y;
    let last_row = shape.y - 1u;
    let last_token = here.size.x - 1u;
    let each = (shape.z + 7u) / 8u * 4u;
    let begin = split * each;
    let end = min(begin + each, shape.z);
    let tile = index * groups.x + group.x;
    let first_row = (unit - shape.x) * 32u;
    let first_token = group.x * 64u;
    let subgroup = thread / 32u;
    let lane = thread % 32u;
    let mine = subgroup % 4u;
    let column = subgroup / 4u * 32u;
    let at_w = mine % 2u * 640u + column;
    let at_x = mine / 2u * 1280u + column;
    let whole = begin + (max(end, begin) - begin) / 4u * 4u;
    var total0_0: Total;
    var total0_1: Total;
    let block_w = thread % 4u;
    let row_w = thread / 4u;
    let spot_w = row_w * 40u + block_w * 8u;
    let quad_x = thread % 8u;
    let token_x = thread / 8u;
    let spot_x = token_x * 40u + quad_x * 4u;
    let from_w0 = place.x + min(first_row + row_w + 0u, last_row) * place.y;
    var held_w0 = vec4<u32>(0u);
    let from_x0 = (source.x + min(first_token + token_x + 0u, last_token) * source.y) / 4u;
    var held_x0 = vec4<f32>(0.0);
    let from_x1 = (source.x + min(first_token + token_x + 16u, last_token) * source.y) / 4u;
    var held_x1 = vec4<f32>(0.0);
    let from_x2 = (source.x + min(first_token + token_x + 32u, last_token) * source.y) / 4u;
    var held_x2 = vec4<f32>(0.0);
    let from_x3 = (source.x + min(first_token + token_x + 48u, last_token) * source.y) / 4u;
    var held_x3 = vec4<f32>(0.0);
    if begin < whole {
        let block = begin + block_w;
        let quad = begin * 2u + quad_x;
        {
            held_w0 = weight(part, from_w0 + block);
        }
        {
            held_x0 = input(part, from_x0, quad);
        }
        {
            held_x1 = input(part, from_x1, quad);
        }
        {
            held_x2 = input(part, from_x2, quad);
        }
        {
            held_x3 = input(part, from_x3, quad);
        }
    }
    for (var start = begin; start < whole; start += 4u) {
        {
            let first = weights_of(held_w0.xy);
            let second = weights_of(held_w0.zw);
            matrix[spot_w + 0u] = first.x;
            matrix[spot_w + 1u] = first.y;
            matrix[spot_w + 2u] = first.z;
            matrix[spot_w + 3u] = first.w;
            matrix[spot_w + 4u] = second.x;
            matrix[spot_w + 5u] = second.y;
            matrix[spot_w + 6u] = second.z;
            matrix[spot_w + 7u] = second.w;
        }
        {
            let value = held_x0 * 0.125;
            let first = cut(value);
            let highs = short(first);
            let lows = short(value - first);
            high[spot_x + 0u] = highs.x;
            high[spot_x + 1u] = highs.y;
            high[spot_x + 2u] = highs.z;
            high[spot_x + 3u] = highs.w;
            low[spot_x + 0u] = lows.x;
            low[spot_x + 1u] = lows.y;
            low[spot_x + 2u] = lows.z;
            low[spot_x + 3u] = lows.w;
        }
        {
            let value = held_x1 * 0.125;
            let first = cut(value);
            let highs = short(first);
            let lows = short(value - first);
            high[spot_x + 640u] = highs.x;
            high[spot_x + 641u] = highs.y;
            high[spot_x + 642u] = highs.z;
            high[spot_x + 643u] = highs.w;
            low[spot_x + 640u] = lows.x;
            low[spot_x + 641u] = lows.y;
            low[spot_x + 642u] = lows.z;
            low[spot_x + 643u] = lows.w;
        }
        {
            let value = held_x2 * 0.125;
            let first = cut(value);
            let highs = short(first);
            let lows = short(value - first);
            high[spot_x + 1280u] = highs.x;
            high[spot_x + 1281u] = highs.y;
            high[spot_x + 1282u] = highs.z;
            high[spot_x + 1283u] = highs.w;
            low[spot_x + 1280u] = lows.x;
            low[spot_x + 1281u] = lows.y;
            low[spot_x + 1282u] = lows.z;
            low[spot_x + 1283u] = lows.w;
        }
        {
            let value = held_x3 * 0.125;
            let first = cut(value);
            let highs = short(first);
            let lows = short(value - first);
            high[spot_x + 1920u] = highs.x;
            high[spot_x + 1921u] = highs.y;
            high[spot_x + 1922u] = highs.z;
            high[spot_x + 1923u] = highs.w;
            low[spot_x + 1920u] = lows.x;
            low[spot_x + 1921u] = lows.y;
            low[spot_x + 1922u] = lows.z;
            low[spot_x + 1923u] = lows.w;
        }
        workgroupBarrier();
        let next = min(start + 4u, whole - 4u);
        let block = next + block_w;
        let quad = next * 2u + quad_x;
        {
            held_w0 = weight(part, from_w0 + block);
        }
        {
            held_x0 = input(part, from_x0, quad);
        }
        {
            held_x1 = input(part, from_x1, quad);
        }
        {
            held_x2 = input(part, from_x2, quad);
        }
        {
            held_x3 = input(part, from_x3, quad);
        }
        multiply_high(lane, at_w + 0u, at_x + 0u, &total0_0);
        multiply_low(lane, at_w + 0u, at_x + 0u, &total0_0);
        multiply_high(lane, at_w + 0u, at_x + 640u, &total0_1);
        multiply_low(lane, at_w + 0u, at_x + 640u, &total0_1);
        multiply_high(lane, at_w + 16u, at_x + 16u, &total0_0);
        multiply_low(lane, at_w + 16u, at_x + 16u, &total0_0);
        multiply_high(lane, at_w + 16u, at_x + 656u, &total0_1);
        multiply_low(lane, at_w + 16u, at_x + 656u, &total0_1);
        workgroupBarrier();
    }
    if whole < end {
        let block = min(whole + block_w, shape.z - 1u);
        let wanted = whole * 2u + quad_x;
        let quad = min(wanted, shape.z * 2u - 1u);
        let is_there = wanted == quad;
        {
            held_w0 = weight(part, from_w0 + block);
        }
        {
            held_x0 = select(vec4<f32>(0.0), input(part, from_x0, quad), is_there);
        }
        {
            held_x1 = select(vec4<f32>(0.0), input(part, from_x1, quad), is_there);
        }
        {
            held_x2 = select(vec4<f32>(0.0), input(part, from_x2, quad), is_there);
        }
        {
            held_x3 = select(vec4<f32>(0.0), input(part, from_x3, quad), is_there);
        }
        {
            let first = weights_of(held_w0.xy);
            let second = weights_of(held_w0.zw);
            matrix[spot_w + 0u] = first.x;
            matrix[spot_w + 1u] = first.y;
            matrix[spot_w + 2u] = first.z;
            matrix[spot_w + 3u] = first.w;
            matrix[spot_w + 4u] = second.x;
            matrix[spot_w + 5u] = second.y;
            matrix[spot_w + 6u] = second.z;
            matrix[spot_w + 7u] = second.w;
        }
        {
            let value = held_x0 * 0.125;
            let first = cut(value);
            let highs = short(first);
            let lows = short(value - first);
            high[spot_x + 0u] = highs.x;
            high[spot_x + 1u] = highs.y;
            high[spot_x + 2u] = highs.z;
            high[spot_x + 3u] = highs.w;
            low[spot_x + 0u] = lows.x;
            low[spot_x + 1u] = lows.y;
            low[spot_x + 2u] = lows.z;
            low[spot_x + 3u] = lows.w;
        }
        {
            let value = held_x1 * 0.125;
            let first = cut(value);
            let highs = short(first);
            let lows = short(value - first);
            high[spot_x + 640u] = highs.x;
            high[spot_x + 641u] = highs.y;
            high[spot_x + 642u] = highs.z;
            high[spot_x + 643u] = highs.w;
            low[spot_x + 640u] = lows.x;
            low[spot_x + 641u] = lows.y;
            low[spot_x + 642u] = lows.z;
            low[spot_x + 643u] = lows.w;
        }
        {
            let value = held_x2 * 0.125;
            let first = cut(value);
            let highs = short(first);
            let lows = short(value - first);
            high[spot_x + 1280u] = highs.x;
            high[spot_x + 1281u] = highs.y;
            high[spot_x + 1282u] = highs.z;
            high[spot_x + 1283u] = highs.w;
            low[spot_x + 1280u] = lows.x;
            low[spot_x + 1281u] = lows.y;
            low[spot_x + 1282u] = lows.z;
            low[spot_x + 1283u] = lows.w;
        }
        {
            let value = held_x3 * 0.125;
            let first = cut(value);
            let highs = short(first);
            let lows = short(value - first);
            high[spot_x + 1920u] = highs.x;
            high[spot_x + 1921u] = highs.y;
            high[spot_x + 1922u] = highs.z;
            high[spot_x + 1923u] = highs.w;
            low[spot_x + 1920u] = lows.x;
            low[spot_x + 1921u] = lows.y;
            low[spot_x + 1922u] = lows.z;
            low[spot_x + 1923u] = lows.w;
        }
        workgroupBarrier();
        multiply_high(lane, at_w + 0u, at_x + 0u, &total0_0);
        multiply_low(lane, at_w + 0u, at_x + 0u, &total0_0);
        multiply_high(lane, at_w + 0u, at_x + 640u, &total0_1);
        multiply_low(lane, at_w + 0u, at_x + 640u, &total0_1);
        multiply_high(lane, at_w + 16u, at_x + 16u, &total0_0);
        multiply_low(lane, at_w + 16u, at_x + 16u, &total0_0);
        multiply_high(lane, at_w + 16u, at_x + 656u, &total0_1);
        multiply_low(lane, at_w + 16u, at_x + 656u, &total0_1);
        workgroupBarrier();
    }
    for (var i = 0u; i < 8u; i++) {
        results[subgroup * 256u + (lane % 2u * 8u + i) * 16u + lane / 2u] = total0_0[i];
    }
    workgroupBarrier();
    for (var item = thread; item < 256u; item += 128u) {
        var total = vec4<f32>(0.0);
        for (var other = 0u; other < 1u; other++) {
            let at = (other * 256u + item) * 4u;
            total += vec4<f32>(results[at], results[at + 1u], results[at + 2u], results[at + 3u]);
        }
        total *= 8.0;
        let cell = item / 64u;
        let lane_w = cell % 2u * 4u + item % 4u + 0u;
        let in_team = cell / 2u * 32u;
        let lane_x = in_team + item / 4u % 16u + 0u;
        if is_inside {
            let spot = (tile * 2u + split) * 512u;
            hand_over(spot + lane_x * 8u + lane_w, total);
        }
    }
    workgroupBarrier();
    for (var i = 0u; i < 8u; i++) {
        results[subgroup * 256u + (lane % 2u * 8u + i) * 16u + lane / 2u] = total0_1[i];
    }
    workgroupBarrier();
    for (var item = thread; item < 256u; item += 128u) {
        var total = vec4<f32>(0.0);
        for (var other = 0u; other < 1u; other++) {
            let at = (other * 256u + item) * 4u;
            total += vec4<f32>(results[at], results[at + 1u], results[at + 2u], results[at + 3u]);
        }
        total *= 8.0;
        let cell = item / 64u;
        let lane_w = cell % 2u * 4u + item % 4u + 0u;
        let in_team = cell / 2u * 32u;
        let lane_x = in_team + item / 4u % 16u + 16u;
        if is_inside {
            let spot = (tile * 2u + split) * 512u;
            hand_over(spot + lane_x * 8u + lane_w, total);
        }
    }
    workgroupBarrier();
}
