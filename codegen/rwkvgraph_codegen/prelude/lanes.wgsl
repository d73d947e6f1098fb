// Lanes of a row beyond its n elements are padding: they count for nothing.
fn add_lanes(value: vec4<f32>, i2: u32) -> f32 {
    let inside = i2 * 4u + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>($elements);
    return dot(select(vec4<f32>(0.0), value, inside), vec4<f32>(1.0));
}
fn max_lanes(value: vec4<f32>, i2: u32) -> f32 {
    let inside = i2 * 4u + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>($elements);
    let known = select(vec4<f32>(-0x1.fffffep+127f), value, inside);
    return max(max(known.x, known.y), max(known.z, known.w));
}
