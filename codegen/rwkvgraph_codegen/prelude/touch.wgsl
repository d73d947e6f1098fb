// Workgroups that a leg has nothing for read what later legs multiply by, so that the cache that all share has it.
fn touch(index: u32, count: u32, thread: u32, first: u32, blocks: u32) {
    var seen = vec4<u32>(0u);
    let step = count * ${threads}u * 2u; // a load of 16 bytes brings 32
    for (var at = (index * ${threads}u + thread) * 2u; at < blocks; at += 4u * step) {
        let a = weight(0u, first + at);
        let b = weight(0u, first + min(at + step, blocks - 1u));
        let c = weight(0u, first + min(at + 2u * step, blocks - 1u));
        let d = weight(0u, first + min(at + 3u * step, blocks - 1u));
        seen ^= a ^ b ^ c ^ d;
    }
    if all(seen == vec4<u32>(0x9e3779b9u, 0x7f4a7c15u, 0xf39cc060u, 0x5cedc834u)) {
        atomicStore(&$meeting[32], 1u); // never, but who compiles this cannot know
    }
}
