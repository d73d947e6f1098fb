"""Several kernels as one module: names, bindings, workgroup memory, the engine that several share."""

import re

import pytest

from rwkvgraph_codegen import Binding, Leg, Source, can_be_leg, relay, relay_bytes, starts_of

X, Y = Binding(1, "f32", False, True), Binding(2, "f32", True, True)
ENGINE = """fn work(at: u32) -> u32 { return here.at[at].x + weight(at); }
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>) { let y = work(group.x); }
"""


def kernel(body: str, threads: int = 64, before: str = "", bindings: tuple[Binding, ...] = (X, Y)) -> Source:
    declared = "\n".join(binding.declaration() for binding in bindings)
    text = f"""// a kernel; b1 and here in a comment stay out of the way
alias V = vec4<f32>;
struct Here {{
    size: vec4<u32>,
    at: array<vec4<u32>, 1>,
}}
@group(0) @binding(0) var<uniform> here: Here;
{declared}
{before}fn twice(value: V) -> V {{
    return value + value;
}}
@compute @workgroup_size({threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {{
{body}
}}
"""
    return Source(text, bindings, threads, "a kernel")


COPY = kernel("    b2[here.at[0].x + thread] = twice(b1[thread]);\n    workgroupBarrier();")


def with_engine(weight: str) -> Source:
    text = f"""struct Here {{
    size: vec4<u32>,
    at: array<vec4<u32>, 2>,
}}
@group(0) @binding(0) var<uniform> here: Here;
{X.declaration()}
fn part_of(unit: u32) -> u32 {{
    return here.at[1u].x;
}}
fn weight(index: u32) -> u32 {{
    return {weight};
}}
fn bring(index: u32) -> u32 {{
    return index;
}}
fn finish(index: u32) {{
    let done = index;
}}
{ENGINE}"""
    return Source(text, (X,), 64, "with an engine", ENGINE)


def test_each_kernel_has_names_of_its_own_and_all_share_the_bindings() -> None:
    joint = relay(
        "two", [Leg(COPY, (0, 1), 1), Leg(COPY, (1, 2), 1)], (X, Y, Binding(3, "f32", True, True)), 64
    )
    # Behind (turns, legs) and four rows a leg: a leg's `size`, then its table.
    assert "b2[table[10u + 0].x + thread] = twice_0(b1[thread]);" in joint.text
    assert "b3[table[12u + 0].x + thread] = twice_1(b2[thread]);" in joint.text
    assert re.findall(r"@binding\((\d)\)", joint.text) == ["1", "2", "3", "4", "0"]
    assert joint.is_tabled
    assert [binding.name for binding in joint.bindings] == ["b1", "b2", "b3", "b4"]  # the last: the meeting
    assert joint.bindings[-1].declaration().endswith("array<atomic<u32>>;")
    declared = re.findall(r"^(?:fn|struct|alias) (\w+)", joint.text, re.MULTILINE)
    assert len(declared) == len(set(declared))


def test_members_and_comments_keep_their_names() -> None:
    source = kernel(
        "    let b1x = here.size.x;\n    b2[0] = V(f32(b1x));",
        before="fn size() -> u32 {\n    return 1u;\n}\n",
    )
    text = relay("one", [Leg(source, (0, 1), 1)], (X, Y), 64).text
    assert "table[5u].x" in text
    assert "fn size_0()" in text


def test_equal_workgroup_memory_of_several_kernels_is_one() -> None:
    shared = "var<workgroup> {}: array<V, {}>;\n"
    one = kernel("    workgroupBarrier();", before=shared.format("sums", 256))
    other = kernel(
        "    workgroupBarrier();", before=shared.format("parts", 256) + shared.format("more", "2 * 8")
    )
    twice = kernel("    workgroupBarrier();", before=shared.format("a", 256) + shared.format("b", 256))
    assert relay_bytes([one]) == 4096
    assert relay_bytes([one, other]) == 4096 + 256
    assert relay_bytes([one, twice]) == 2 * 4096
    text = relay("both", [Leg(one, (0, 1), 1), Leg(other, (0, 1), 1)], (X, Y), 64).text
    assert text.count("var<workgroup>") == 2 + 2  # and the table, and that of the next lap
    with pytest.raises(ValueError, match="type mat4x4<f32>"):
        relay_bytes([kernel("", before="var<workgroup> m: mat4x4<f32>;\n")])


def test_an_engine_is_there_once_on_the_table_of_all_legs() -> None:
    legs = [
        Leg(with_engine("b1[index]"), (0,), 3),
        Leg(COPY, (0, 1), 1),
        Leg(with_engine("b1[index]"), (1,), 5),
    ]
    text = relay("three", legs, (X, Y), 64).text
    assert starts_of(legs) == [13, 17, 19, 25]
    assert text.count("fn work(") == 1
    assert "table[leg_at + at].x" in text
    assert "let meets = turn != 0u && table[leg * 4u + 2u].z == 0u;" in text  # legs side by side do not
    assert "if thread >= subgroup && group.x < table[leg * 4u + 4u].y" in text
    assert "return table[20u + 1u].x;" in text
    assert "var<workgroup> table: array<vec4<u32>, 25>;" in text
    # What differs is chosen by leg, what does not is asked for without.
    assert re.search(r"fn weight\(index: u32\) -> u32 \{\n    switch leg_now", text)
    assert re.search(r"fn bring\(index: u32\) -> u32 \{\n    return bring_0\(index\);", text)


def test_functions_that_call_what_reads_their_own_tables_are_not_the_same() -> None:
    def ragged(source: Source) -> Source:
        inside = "fn inside(index: u32) -> u32 {\n    return min(index, here.at[0u].w);\n}\nfn bring("
        text = source.text.replace("fn bring(", inside, 1).replace(
            "    return index;", "    return inside(index);"
        )
        return Source(text, source.bindings, 64, source.label, source.engine)

    same = [Leg(with_engine("b1[index]"), (0,), 3), Leg(with_engine("b1[index]"), (0,), 3)]
    assert "return bring_1(index);" not in relay("two", same, (X, Y), 64).text
    apart = [Leg(ragged(leg.source), (0,), 3) for leg in same]
    assert "return bring_1(index);" in relay("two", apart, (X, Y), 64).text


def test_a_relay_has_one_engine() -> None:
    other = Source(with_engine("1u").text, (X,), 64, "other", ENGINE[1:])
    with pytest.raises(ValueError, match="2 engines; a relay has one"):
        relay("two", [Leg(with_engine("1u"), (0,), 1), Leg(other, (0,), 1)], (X,), 64)


def test_kernels_of_fewer_threads_are_legs_where_barriers_part_reading_from_writing() -> None:
    assert can_be_leg(COPY, 256, subgroups=True)
    assert can_be_leg(kernel("", threads=256), 256, subgroups=True)
    assert not can_be_leg(kernel("", threads=64), 256, subgroups=True)  # no barrier
    assert not can_be_leg(kernel("    workgroupBarrier();", threads=48), 256, subgroups=False)
    assert not can_be_leg(kernel("    workgroupBarrier();", threads=16), 256, subgroups=True)
    text = relay("one", [Leg(COPY, (0, 1), 1)], (X, Y), 256).text
    assert "main_0(vec3<u32>(unit, 0u, 0u), thread % 64u);" in text
