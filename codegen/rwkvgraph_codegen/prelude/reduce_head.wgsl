fn $name(thread: u32, value: V, place: u32) -> f32 {
    var a = $folded;
    var b = a;
$steps
    let bits = firstTrailingBit(width);
    let count = (${threads}u + width - 1u) >> bits;
    let first = place * ${threads}u + thread % ${shares}u;
    if (thread & (width - 1u)) < ${shares}u {
        shared_sums[first + (thread >> bits) * ${shares}u] = a;
    }
    workgroupBarrier();
    // All of them are loaded at once, where subgroups have 32 threads or more.
    a = shared_sums[first];
$rest
    return a;
}
