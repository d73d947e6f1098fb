"""The skeletons' texts: a kernel of each kind against its golden file. `--update-golden` accepts a change."""

from collections.abc import Callable

import pytest

from rwkvgraph_codegen import (
    NAGA,
    TINT,
    Binding,
    Call,
    Dialect,
    Function,
    Load,
    Parts,
    Phase,
    Shape,
    Statement,
    Store,
    Sum,
    Units,
    adding,
    assemble,
    block,
    fill,
    map_kernel,
    matmul_main,
    number,
    row_kernel,
)
from rwkvgraph_codegen.kernel import reductions

Golden = Callable[[str, str], None]
X, VECTOR, OUT = Binding(1, "f32", False, True), Binding(2, "f16", False, True), Binding(3, "f32", True, True)
IDS = Binding(2, "u32", False, False)


def parts(
    bindings: tuple[Binding, ...], functions: tuple[Function, ...], lanes: int, subgroups: bool = False
) -> Parts:
    return Parts(bindings, functions, (), 4, lanes, subgroups)


def narrow(binding: Binding) -> Binding:
    return Binding(binding.index, binding.element, binding.writable, False)


def test_a_map_kernel(golden: Golden) -> None:
    double = Function("op_affine", (("x", "V"), ("scale", "f32")), "V", "x * scale")
    add = Function("op_add", (("a", "V"), ("b", "V")), "V", "a + b")
    body: list[Statement] = [
        Load("v0", X, "lane", "0"),
        Load("v1", VECTOR, "splat", "1"),
        Call("v2", "op_affine", ("v0", number("3", 1))),
        Call("v3", "op_add", ("v2", "v1")),
        Store(OUT, "2", "v3"),
    ]
    source = map_kernel("affine+add", parts((X, VECTOR, OUT), (double, add), 4), body, NAGA)
    assert source.bindings == (X, VECTOR, OUT)
    golden("kernels/map.wgsl", source.text)


def test_a_map_kernel_of_single_elements_with_a_row_and_a_guard(golden: Golden) -> None:
    x, out = narrow(X), narrow(OUT)
    body: list[Statement] = [
        Load("v0", IDS, "word", "1"),
        Load("v1", x, "lane", "0", "v0"),
        Store(out, "2", "v1", "v0", "v0 < 3u"),
    ]
    golden("kernels/map_narrow.wgsl", map_kernel("gather", parts((x, IDS, out), (), 1), body, NAGA).text)


@pytest.mark.parametrize(
    ("name", "dialect", "subgroups"),
    [("row", NAGA, False), ("row_subgroups", NAGA, True), ("row_subgroups_tint", TINT, True)],
)
def test_a_row_kernel(golden: Golden, name: str, dialect: Dialect, subgroups: bool) -> None:
    share = Function(
        "op_share", (("x", "V"), ("top", "f32"), ("total", "f32")), "V", "(x - V(top)) / V(total)"
    )
    loads = (Load("v0", X, "lane", "0"),)
    phases = [
        Phase(loads, (Sum("top", "v0", "max"),)),
        Phase(loads, (Sum("total", "v0", "+"), Sum("again", "v0", "+"))),
    ]
    body: list[Statement] = [*loads, Call("v1", "op_share", ("v0", "top", "total")), Store(OUT, "2", "v1")]
    source = row_kernel("share", parts((X, OUT), (share,), 4, subgroups), phases, body, 64, dialect)
    assert source.threads == 64
    golden(f"kernels/{name}.wgsl", source.text)


SHAPES = [
    (Shape("split", 64, 4, 1), False),
    (Shape("split", 32, 4, 2), True),
    (Shape("lanes", 8, 8, 1), True),
    (Shape("lanes", 8, 4, 2), True),
    (Shape("team", 32, 4, 4, wide=2, teams=4, depth=32), False),
    (Shape("team", 32, 4, 8, wide=8, teams=4, depth=16, buffers=2, ahead=2), False),
]


@pytest.mark.parametrize(("shape", "subgroups"), SHAPES)
def test_an_entry_point_of_the_matrix_product(golden: Golden, shape: Shape, subgroups: bool) -> None:
    name = f"kernels/matmul_{shape.family}_{shape.rows}x{shape.tokens}.wgsl"
    golden(name, matmul_main(shape, subgroups).strip("\n") + "\n")


MATRICES = Shape("matrix", 128, 16, 32, wide=2, depth=32, splits=2, max_groups=64)


@pytest.mark.parametrize("units", ["native", "emulated"])
def test_an_entry_point_by_matrices(golden: Golden, units: Units) -> None:
    text = matmul_main(MATRICES, subgroups=False, units=units)
    golden(f"kernels/matmul_matrix_{units}.wgsl", text.strip("\n") + "\n")


def test_an_entry_point_of_a_relays_product(golden: Golden) -> None:
    text = matmul_main(Shape("share", 64, 4, 1, depth=8), subgroups=True)
    golden("kernels/matmul_share.wgsl", text.strip("\n") + "\n")


def test_an_entry_point_whose_subgroups_add_up_and_keep(golden: Golden) -> None:
    text = matmul_main(Shape("split", 64, 4, 1), subgroups=True, keeps=True)
    golden("kernels/matmul_split_4x1_subgroups.wgsl", text.strip("\n") + "\n")


def test_an_entry_point_that_adds_up(golden: Golden) -> None:
    golden("kernels/matmul_adding.wgsl", adding(MATRICES) + "\n")


@pytest.mark.parametrize("subgroups", [False, True])
@pytest.mark.parametrize("combine", ["+", "max"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_single_reduction_moves_single_numbers(combine: str, count: int, subgroups: bool) -> None:
    sums = tuple(Sum(f"total_{at}", f"v{at}", combine) for at in range(count))
    (text,) = reductions([Phase((), sums)], 64, subgroups)
    name = ("reduce_add" if combine == "+" else "reduce_max") + ("_one" if count == 1 else "")
    kind = "f32" if count == 1 else "vec4<f32>"
    assert text.startswith(f"fn {name}(thread: u32, value: {kind}")
    assert ("subgroupAdd" in text or "subgroupMax" in text) == subgroups
    assert text.count("workgroupBarrier") == (1 if subgroups else 3)


def test_only_accessors_that_are_used_are_written() -> None:
    text = map_kernel(
        "copy", parts((X, OUT), (), 4), [Load("v0", X, "lane", "0"), Store(OUT, "1", "v0")], NAGA
    ).text
    assert [line.split("(")[0] for line in text.splitlines() if line.startswith("fn ")] == [
        "fn load_b1_lane", "fn store_b3", "fn main",
    ]  # fmt: skip


def test_a_function_that_two_operations_share_is_written_once() -> None:
    tanh = Function("op_tanh", (("x", "V"),), "V", "tanh(x)")
    body: list[Statement] = [
        Load("v0", X, "lane", "0"),
        Call("v1", "op_tanh", ("v0",)),
        Call("v2", "op_tanh", ("v1",)),
        Store(OUT, "1", "v2"),
    ]
    assert map_kernel("tanh×2", parts((X, OUT), (tanh, tanh), 4), body, NAGA).text.count("fn op_tanh") == 1


def test_a_hole_without_a_value_is_an_error() -> None:
    with pytest.raises(KeyError, match="missing"):
        fill("let x = $missing;", present=1)


def test_only_float_buffers_are_written() -> None:
    with pytest.raises(ValueError, match="kernels write f32, and whole lanes of f16, not f16"):
        VECTOR.store()


def test_a_module_starts_with_its_header_and_ends_with_one_newline() -> None:
    source = assemble("x", parts((), (), 1, subgroups=True), "fn main() {}", 1, TINT)
    assert source.text.startswith("enable subgroups;\n")
    assert source.text.endswith("fn main() {}\n")
    assert "subgroups" not in assemble("x", parts((), (), 1), "fn main() {}", 1, TINT).text


def test_statements_are_lines_of_wgsl() -> None:
    lines = block(
        [
            Load("a", IDS, "words", "2", "i0"),
            Call("b", "f", ("a", "n")),
            Store(OUT, "0", "b", guard="a.x == 0u"),
        ],
        1,
    )
    assert lines.splitlines() == [
        "    let a = load_b2_words(here.at[2], i0);",
        "    let b = f(a, n);",
        "    if a.x == 0u { store_b3(here.at[0], i0, i1, i2, b); }",
    ]
