// Draws a token for each row of logits, a workgroup a row. Whatever decides is a whole number: shares of probability are
// words, WHOLE of them all of it, so that sums do not depend on the order in which threads add.
//
// Tokens rank by how far below the best one they lie, then by id. The place where the cuts end is found without sorting:
// histograms over ever smaller ranges, until few enough are left to be ranked against one another.
const BINS = 1024u;
const EACH = ${each}u; // bins of a thread
const THREADS = ${threads}u;
const LISTED = 128u;
const WHOLE = 4293918720.0; // 2^32 - 2^20: what rounding adds to a sum still fits a word
const NOTHING = 0xffffffffu;
const LOWEST = -0x1.fffffep+127f;
const FAR = 0x1.fffffep+127f;
const MINUS_INFINITY = 0xff800000u;
const PER_UNIT = 32.0; // bins of one unit of a logit

const LINEAR = 0u; // ranges of distances, in bins of 1 / PER_UNIT
const BITS = 1u; // ranges of the bits of distances, which rise with them
const IDS = 2u; // ranges of ids, of tokens whose distance is `tie`

struct Choice {
    rate: f32, top_k: u32, top_p: f32, reach: f32, presence: f32, frequency: f32, decay: f32,
    key: vec2<u32>, text: u32, drawn: u32, adjusts: u32, has_cuts: u32,
}
// Where the last token that is kept may be: in [low, high), bins of `step`; tokens and shares before, tokens in it.
struct Span { kind: u32, low: u32, high: u32, step: u32, tie: u32, before: vec2<u32>, members: u32 }
// The last token that is kept.
struct Cut { bits: u32, id: u32 }
// Ids among which the drawn one is, and how far along them it is.
struct Goal { low: u32, high: u32, step: u32, aim: u32 }

var<workgroup> counts: array<atomic<u32>, BINS>;
var<workgroup> shares: array<atomic<u32>, BINS>;
var<workgroup> bests: array<f32, THREADS>;
var<workgroup> sums: array<f32, THREADS>;
var<workgroup> spots: array<u32, THREADS>;
var<workgroup> scans: array<vec2<u32>, THREADS>;
var<workgroup> list: array<vec3<u32>, LISTED>; // bits of the distance, id, share
var<workgroup> ranks: array<u32, LISTED>;
var<workgroup> chosen: atomic<u32>;
var<workgroup> is_bad: atomic<u32>;
var<workgroup> choice: Choice;
var<workgroup> top: f32;
var<workgroup> best_id: u32;
var<workgroup> span: Span;
var<workgroup> cut: Cut;
var<workgroup> goal: Goal;
var<workgroup> total: f32;

fn weight(below: f32, rate: f32) -> f32 {
    return exp(-min(below * rate, 200.0));
}
fn below_of(value: f32, best: f32) -> f32 {
    return select(min(best - value, FAR), FAR, value <= LOWEST);
}
fn logits_at(row: u32) -> u32 {
    return (here.at[$logits_at].x + row * here.at[$logits_at].y) / 4u;
}
fn high_word(a: u32, b: u32) -> u32 {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let one = (a >> 16u) * (b & 0xffffu);
    let two = (a & 0xffffu) * (b >> 16u);
    let middle = (low >> 16u) + (one & 0xffffu) + (two & 0xffffu);
    return (a >> 16u) * (b >> 16u) + (one >> 16u) + (two >> 16u) + (middle >> 16u);
}
// Threefry-2x32 of 20 rounds: Salmon et al. 2011.
fn random_word(key: vec2<u32>, counter: vec2<u32>) -> u32 {
    var keys = array<u32, 3>(key.x, key.y, key.x ^ key.y ^ 0x1bd11bdau);
    var turns = array<u32, 8>(13u, 15u, 26u, 6u, 17u, 29u, 16u, 24u);
    var a = counter.x + key.x;
    var b = counter.y + key.y;
    for (var block = 0u; block < 5u; block++) {
        for (var round = 0u; round < 4u; round++) {
            let turn = turns[block % 2u * 4u + round];
            a += b;
            b = ((b << turn) | (b >> (32u - turn))) ^ a;
        }
        a += keys[(block + 1u) % 3u];
        b += keys[(block + 2u) % 3u] + block + 1u;
    }
    return a;
}
fn read_choice(row: u32) {
    let e = here.at[$rules_at].x + row * here.at[$rules_at].y;
    choice.rate = bitcast<f32>($rules[e]);
    choice.top_k = $rules[e + 1u];
    choice.top_p = bitcast<f32>($rules[e + 2u]);
    choice.reach = min(bitcast<f32>(min($rules[e + 3u], 0x7f7fffffu)), FAR);
    choice.presence = bitcast<f32>($rules[e + 4u]);
    choice.frequency = bitcast<f32>($rules[e + 5u]);
    choice.decay = bitcast<f32>($rules[e + 6u]);
    choice.key = vec2<u32>($rules[e + 7u], $rules[e + 8u]);
    choice.text = $rules[e + 9u];
    choice.drawn = $rules[e + 10u];
    choice.adjusts = $rules[e + 11u];
    choice.has_cuts = select(0u, 1u, choice.top_k > 0u || choice.top_p < 1.0 || choice.reach < FAR);
    $rules[e + 10u] = choice.drawn + 1u;
}
fn has_penalties(c: Choice) -> bool {
    return c.presence != 0.0 || c.frequency != 0.0;
}
// The logits that decide, which are left in memory: biases added, penalties taken off. Counts of what was seen fade.
fn adjusted(c: Choice, row: u32, lane: u32) -> vec4<f32> {
    let raw = $logits[logits_at(row) + lane];
    let bits = bitcast<vec4<u32>>(raw);
    let is_none = bits == vec4<u32>(MINUS_INFINITY);
    let is_inside = lane * 4u + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(here.size.z);
    let is_no_number = (bits & vec4<u32>(0x7fffffffu)) >= vec4<u32>(0x7f800000u);
    if any(is_inside & is_no_number & !is_none) {
        atomicStore(&is_bad, 1u);
    }
    if c.adjusts == 0u {
        return select(raw, vec4<f32>(LOWEST), is_none);
    }
    let bias = $bias[here.at[$bias_at].x / 4u + lane];
    var value = raw + bias;
    if has_penalties(c) {
        let e = (here.at[$seen_at].x + row * here.at[$seen_at].y) / 4u + lane;
        let count = $seen[e];
        value -= c.presence * select(vec4<f32>(0.0), vec4<f32>(1.0), count > vec4<f32>(0.0)) + c.frequency * count;
        let faded = count * c.decay;
        $seen[e] = select(faded, vec4<f32>(0.0), faded < vec4<f32>(0x1p-100f));
    }
    let is_barred = bitcast<vec4<u32>>(bias) == vec4<u32>(MINUS_INFINITY);
    value = select(value, vec4<f32>(LOWEST), is_none | is_barred);
    $logits[logits_at(row) + lane] = value;
    return value;
}
// The best logit, of equals the lowest id, and the sum of all weights against it.
fn find_best(c: Choice, row: u32, thread: u32) {
    let rate = select(c.rate, 1.0, c.has_cuts > 0u);
    var best = LOWEST;
    var id = 0u;
    var sum = 0.0;
    for (var lane = thread; lane < here.size.w; lane += THREADS) {
        let four = adjusted(c, row, lane);
        for (var part = 0u; part < min(4u, here.size.z - lane * 4u); part++) {
            let value = four[part];
            if value > best {
                sum = select(sum * weight(value - best, rate), 0.0, sum == 0.0) + 1.0;
                best = value;
                id = lane * 4u + part;
            } else if value > LOWEST {
                sum += weight(best - value, rate);
            }
        }
    }
    bests[thread] = best;
    sums[thread] = sum;
    spots[thread] = id;
    workgroupBarrier();
    for (var step = THREADS / 2u; step > 0u; step /= 2u) {
        if thread < step {
            let a = bests[thread];
            let b = bests[thread + step];
            let most = max(a, b);
            sums[thread] = sums[thread] * weight(most - a, rate) + sums[thread + step] * weight(most - b, rate);
            let first = min(spots[thread], spots[thread + step]);
            spots[thread] = select(select(spots[thread], spots[thread + step], b > a), first, a == b);
            bests[thread] = most;
        }
        workgroupBarrier();
    }
    if thread == 0u {
        top = bests[0];
        best_id = spots[0];
        total = sums[0];
    }
    workgroupBarrier();
}
fn clear_bins(thread: u32) {
    for (var bin = thread; bin < BINS; bin += THREADS) {
        atomicStore(&counts[bin], 0u);
        atomicStore(&shares[bin], 0u);
    }
    if thread == 0u {
        atomicStore(&chosen, 0u);
    }
    workgroupBarrier();
}
// What is in the bins before those of this thread.
fn scan_bins(thread: u32) -> vec2<u32> {
    workgroupBarrier();
    var mine = vec2<u32>(0u);
    for (var bin = thread * EACH; bin < (thread + 1u) * EACH; bin++) {
        mine += vec2<u32>(atomicLoad(&counts[bin]), atomicLoad(&shares[bin]));
    }
    scans[thread] = mine;
    workgroupBarrier();
    for (var step = 1u; step < THREADS; step *= 2u) {
        var other = vec2<u32>(0u);
        if thread >= step {
            other = scans[thread - step];
        }
        workgroupBarrier();
        scans[thread] += other;
        workgroupBarrier();
    }
    return scans[thread] - mine;
}
// The bin of a token in a span, BINS if it is not in it.
fn bin_of(s: Span, bits: u32, id: u32) -> u32 {
    if s.kind == LINEAR {
        return u32(min(bitcast<f32>(bits) * PER_UNIT, f32(BINS - 1u)));
    }
    let value = select(bits, id, s.kind == IDS);
    let is_inside = value >= s.low && value < s.high && (s.kind == BITS || bits == s.tie);
    return select(BINS, (value - s.low) / s.step, is_inside);
}
fn is_before(s: Span, bits: u32, id: u32) -> bool {
    return (s.kind == BITS && bits < s.low) || (s.kind == IDS && (bits < s.tie || (bits == s.tie && id < s.low)));
}
fn is_kept(c: Choice, before: vec2<u32>) -> bool {
    return (c.top_k == 0u || before.x < c.top_k) && (c.top_p >= 1.0 || before.y <= u32(c.top_p * WHOLE));
}
fn step_of(low: u32, high: u32) -> u32 {
    return (high - low - 1u) / BINS + 1u;
}
// One of a span's bins as a span.
fn narrowed(s: Span, bin: u32) -> Span {
    var next = s;
    if s.kind == LINEAR {
        next.kind = BITS;
        next.low = bitcast<u32>(f32(bin) / PER_UNIT);
        next.high = select(bitcast<u32>(f32(bin + 1u) / PER_UNIT), 0x7f800000u, bin == BINS - 1u);
    } else {
        next.low = s.low + bin * s.step;
        next.high = min(s.high, next.low + s.step);
    }
    if next.kind == BITS && next.high - next.low == 1u {
        next.kind = IDS;
        next.tie = next.low;
        next.low = 0u;
        next.high = here.size.z;
    }
    next.step = step_of(next.low, next.high);
    return next;
}
// Narrows the span to the last of its bins whose first token is kept.
fn narrow(c: Choice, s: Span, thread: u32) {
    var before = s.before + scan_bins(thread);
    var next = s;
    var last = 0u;
    for (var bin = thread * EACH; bin < (thread + 1u) * EACH; bin++) {
        let inside = vec2<u32>(atomicLoad(&counts[bin]), atomicLoad(&shares[bin]));
        if inside.x > 0u && is_kept(c, before) {
            last = bin + 1u;
            next = narrowed(s, bin);
            next.before = before;
            next.members = inside.x;
        }
        before += inside;
    }
    atomicMax(&chosen, last);
    workgroupBarrier();
    if last > 0u && atomicLoad(&chosen) == last {
        span = next;
    }
    workgroupBarrier();
}
// Finds the last token that is kept, and the sum of the weights of those kept, or a little more.
fn find_cut(c: Choice, best: f32, row: u32, thread: u32) {
    let scale = WHOLE / total;
    if thread == 0u {
        span = Span(LINEAR, 0u, 0u, 0u, 0u, vec2<u32>(0u), here.size.z);
        if c.top_k == 0u && c.top_p >= 1.0 {
            span = Span(BITS, 0xffffffffu, 0xffffffffu, 1u, 0u, vec2<u32>(0u), 0u);
            cut = Cut(0xffffffffu, 0u);
        }
    }
    loop {
        let s = workgroupUniformLoad(&span);
        if s.members <= LISTED {
            break;
        }
        clear_bins(thread);
        for (var lane = thread; lane < here.size.w; lane += THREADS) {
            let four = $logits[logits_at(row) + lane];
            for (var part = 0u; part < min(4u, here.size.z - lane * 4u); part++) {
                let below = below_of(four[part], best);
                let bin = bin_of(s, bitcast<u32>(below), lane * 4u + part);
                if bin < BINS {
                    let share = u32(weight(below, 1.0) * scale + 0.5);
                    atomicAdd(&counts[bin], 1u);
                    if share > 0u {
                        atomicAdd(&shares[bin], share);
                    }
                }
            }
        }
        narrow(c, s, thread);
    }
    let s = workgroupUniformLoad(&span);
    clear_bins(thread);
    sums[thread] = list_span(c, s, best, scale, row, thread);
    workgroupBarrier();
    for (var step = THREADS / 2u; step > 0u; step /= 2u) {
        if thread < step {
            sums[thread] += sums[thread + step];
        }
        workgroupBarrier();
    }
    rank_list(c, s, thread);
    if thread == 0u {
        total = sums[0];
    }
    workgroupBarrier();
}
// Lists the tokens of a span; gives this thread's part of the weights of those in it and before it.
fn list_span(c: Choice, s: Span, best: f32, scale: f32, row: u32, thread: u32) -> f32 {
    var sum = 0.0;
    for (var lane = thread; lane < here.size.w; lane += THREADS) {
        let four = $logits[logits_at(row) + lane];
        for (var part = 0u; part < min(4u, here.size.z - lane * 4u); part++) {
            let below = below_of(four[part], best);
            let bits = bitcast<u32>(below);
            let id = lane * 4u + part;
            let is_listed = bin_of(s, bits, id) < BINS;
            if is_listed {
                let share = u32(weight(below, 1.0) * scale + 0.5);
                list[atomicAdd(&chosen, 1u)] = vec3<u32>(bits, id, share);
            }
            if (is_listed || is_before(s, bits, id)) && below <= c.reach && below < FAR {
                sum += weight(below, c.rate);
            }
        }
    }
    return sum;
}
// Ranks the listed tokens against one another, and cuts behind the last that is kept.
fn rank_list(c: Choice, s: Span, thread: u32) {
    let length = atomicLoad(&chosen);
    workgroupBarrier();
    for (var index = thread; index < length; index += THREADS) {
        let mine = list[index];
        var before = s.before;
        for (var other = 0u; other < length; other++) {
            let there = list[other];
            if there.x < mine.x || (there.x == mine.x && there.y < mine.y) {
                before += vec2<u32>(1u, there.z);
            }
        }
        if is_kept(c, before) {
            atomicMax(&counts[0], before.x + 1u);
        }
        ranks[index] = before.x + 1u;
    }
    workgroupBarrier();
    for (var index = thread; index < length; index += THREADS) {
        if ranks[index] == atomicLoad(&counts[0]) {
            cut = Cut(list[index].x, list[index].y);
        }
    }
}
// Draws among the tokens that are kept, each as wide as its weight, in order of their ids.
fn find_drawn(c: Choice, best: f32, row: u32, thread: u32) {
    let scale = WHOLE / total;
    if thread == 0u {
        goal = Goal(0u, here.size.z, step_of(0u, here.size.z), 0u);
    }
    loop {
        let g = workgroupUniformLoad(&goal);
        if g.high - g.low == 1u {
            break;
        }
        clear_bins(thread);
        for (var lane = g.low / 4u + thread; lane * 4u < g.high; lane += THREADS) {
            let four = $logits[logits_at(row) + lane];
            for (var part = 0u; part < 4u; part++) {
                let id = lane * 4u + part;
                let below = below_of(four[part], best);
                let bits = bitcast<u32>(below);
                let is_here = id >= g.low && id < g.high && below <= c.reach && below < FAR;
                if is_here && (bits < cut.bits || (bits == cut.bits && id <= cut.id)) {
                    let share = u32(weight(below, c.rate) * scale + 0.5);
                    if share > 0u {
                        atomicAdd(&shares[(id - g.low) / g.step], share);
                    }
                }
            }
        }
        step_towards(c, g, thread);
    }
}
// Narrows the ids to the bin that the goal is in.
fn step_towards(c: Choice, g: Goal, thread: u32) {
    var before = scan_bins(thread).y;
    var aim = g.aim;
    if g.low == 0u && g.high == here.size.z {
        aim = high_word(random_word(c.key, vec2<u32>(c.drawn, c.text)), scans[THREADS - 1u].y);
    }
    for (var bin = thread * EACH; bin < (thread + 1u) * EACH; bin++) {
        let inside = atomicLoad(&shares[bin]);
        if before <= aim && aim - before < inside {
            let low = g.low + bin * g.step;
            let high = min(g.high, low + g.step);
            goal = Goal(low, high, step_of(low, high), aim - before);
        }
        before += inside;
    }
    workgroupBarrier();
}
fn write_drawn(c: Choice, row: u32, id: u32, is_drawn: bool) {
    $ids[here.at[$ids_at].x + row * here.at[$ids_at].y] = select(0u, id, is_drawn);
    let e = here.at[$history_at].x + row * here.at[$history_at].y + c.drawn % here.at[$history_at].z;
    $history[e] = select(NOTHING, id, is_drawn);
    if is_drawn && has_penalties(c) {
        let place = here.at[$seen_at].x + row * here.at[$seen_at].y + id;
        $seen[place / 4u][place % 4u] += 1.0;
    }
$keep
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    let row = group.x + group.y * groups.x;
    if row >= here.size.x {
        return;
    }
    if thread == 0u {
        read_choice(row);
        atomicStore(&is_bad, 0u);
        cut = Cut(0xffffffffu, 0u);
    }
    let c = workgroupUniformLoad(&choice);
    find_best(c, row, thread);
    let best = workgroupUniformLoad(&top);
    let is_drawn = best > LOWEST && atomicLoad(&is_bad) == 0u;
    var id = best_id;
    storageBarrier(); // logits that were changed are read by other threads
    if c.rate > 0.0 && best > LOWEST {
        if c.has_cuts > 0u {
            find_cut(c, best, row, thread);
        }
        find_drawn(c, best, row, thread);
        id = goal.low;
    }
    if thread == 0u {
        write_drawn(c, row, id, is_drawn);
    }
}
