// For each lap (most turns of a wait, legs, before which of them the next lap's rows are read, laps); of each leg
// (grid, workgroups), (whether the engine is its kernel, where its rows begin, whether it runs beside the one
// before, 1 where the last workgroup takes the first unit), (what to touch: twice a first block and a number),
// (whose weights are asked for before it, workgroups that do); then the rows of all legs. All are read at once:
// each line of them has to come from memory, as the weights have been through every cache since the token before.
@group(0) @binding(0) var<storage, read> given: array<vec4<u32>>;
var<workgroup> table: array<vec4<u32>, $rows>;
var<workgroup> following: array<vec4<u32>, $rows>;
// Every workgroup arrives as often as any other: all run at the same time, as many as the device has room
// for. What they wrote before they arrived is there for those that have waited for all, where none of these
// has looked before it was written. What is asked for between the two is on its way meanwhile: after a fence,
// which waits for it.
fn arrive(thread: u32) {
    storageBarrier();
    if thread == 0u {
        atomicAdd(&$meeting[0], 1u);
    }
}
fn wait_for(thread: u32, goal: u32) {
    if thread == 0u {
        for (var turns = 1u; i32(atomicLoad(&$meeting[0]) - goal) < 0; turns++) {
            if turns >= table[0].x || (turns % 1024u == 0u && atomicLoad(&$meeting[$late]) != 0u) {
                atomicStore(&$meeting[$late], 1u);
                break;
            }
        }
    }
    workgroupBarrier();
}
$touch
fn read_lap(thread: u32, lap: u32) {
    for (var row = thread; row < ${rows}u; row += ${threads}u) {
        following[row] = given[lap * ${rows}u + row];
    }
}
fn begin_lap(thread: u32) {
    workgroupBarrier(); // others may still read the rows of the lap before
    for (var row = thread; row < ${rows}u; row += ${threads}u) {
        table[row] = following[row]; // which the same thread has read
    }
    workgroupBarrier();
}
@compute @workgroup_size($threads)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32, @builtin(subgroup_size) subgroup: u32,
        @builtin(subgroup_invocation_id) lane: u32) {
    // A loop, not one leg after another: what many legs have in common is there once, and stays in the cache.
    var goal = 0u;
    read_lap(thread, 0u);
    begin_lap(thread);
    if thread == 0u {
        // A multiple of their number, or at most all but one more: this one is missing.
        let before = atomicLoad(&$meeting[0]);
        goal = before - before % groups.x;
    }
    let legs = table[0].y;
    let laps = table[0].w;
    var lap = 0u;
    var leg = 0u;
    for (var turn = 0u; turn < legs * laps; turn++) {
        if turn != 0u {
            leg++;
            lap += u32(leg == legs);
            leg = select(leg, 0u, leg == legs);
        }
        let meets = turn != 0u && table[leg * ${words}u + 2u].z == 0u;
        if meets {
            arrive(thread);
            if leg == 0u {
                begin_lap(thread);
            }
            if leg == table[0].z && lap + 1u < laps {
                read_lap(thread, lap + 1u);
            }
$ask
            goal += groups.x;
            wait_for(thread, goal);
        }
        let kind = table[leg * ${words}u + 2u];
        let grid = table[leg * ${words}u + 1u];
        let own = select(group.x + kind.w, 0u, group.x + kind.w == groups.x);
$now
$idle
        switch leg {
$cases
        }
    }
}
