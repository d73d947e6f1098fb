fn $name(thread: u32, value: vec4<f32>, subgroup: u32) -> vec4<f32> {
    let mine = $subgroup(value);
    workgroupBarrier(); // the threads may still read the sums of the phase before
    if thread % subgroup == 0u {
        $memory[thread / subgroup] = mine;
    }
    workgroupBarrier();
    var a = $start;
    for (var index = 0u; index < (${threads}u + subgroup - 1u) / subgroup; index++) {
        let b = $memory[index];
        a = $combined;
    }
    return a;
}
