fn $name(thread: u32, value: $type, subgroup: u32, place: u32) -> $type {
    let mine = $subgroup(value);
    let bits = firstTrailingBit(subgroup);
    if (thread & (subgroup - 1u)) == 0u {
        $memory[place + (thread >> bits)]$part = mine;
    }
    workgroupBarrier();
    // All of them are loaded at once, where subgroups have 32 threads or more.
    let count = (${threads}u + subgroup - 1u) >> bits;
    var a = $memory[place]$part;
    var b = a;
$rest
    return a;
}
