fn $name(thread: u32, value: vec4<f32>) -> vec4<f32> {
    workgroupBarrier(); // the threads may still read the sums of the phase before
    $memory[thread] = value;
    workgroupBarrier();
    for (var step = ${threads}u / 2u; step > 0u; step /= 2u) {
        if thread < step {
            let a = $memory[thread];
            let b = $memory[thread + step];
            $memory[thread] = $combined;
        }
        workgroupBarrier();
    }
    return $memory[0];
}
