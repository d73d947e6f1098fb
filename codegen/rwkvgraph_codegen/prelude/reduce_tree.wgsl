fn $name(thread: u32, value: vec4<f32>) -> vec4<f32> {
    workgroupBarrier(); // the threads may still read the sums of the phase before
    partials[thread] = value;
    workgroupBarrier();
    for (var step = ${threads}u / 2u; step > 0u; step /= 2u) {
        if thread < step {
            let a = partials[thread];
            let b = partials[thread + step];
            partials[thread] = $combined;
        }
        workgroupBarrier();
    }
    return partials[0];
}
