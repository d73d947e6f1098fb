fn $name(thread: u32, value: $type) -> $type {
    workgroupBarrier(); // the threads may still read the sums of the phase before
    $memory[thread]$part = value;
    workgroupBarrier();
    for (var step = ${threads}u / 2u; step > 0u; step /= 2u) {
        if thread < step {
            let a = $memory[thread]$part;
            let b = $memory[thread + step]$part;
            $memory[thread]$part = $combined;
        }
        workgroupBarrier();
    }
    return $memory[0]$part;
}
