"""The kernels of the matrix product that tuning tables hold: their numbers, and which of them a run takes."""

from dataclasses import replace

import numpy as np
import pytest

from rwkvgraph import ops
from rwkvgraph.compiler import NAGA, TINT, Limits, Target, compile, tuning
from rwkvgraph.compiler.tuning import CPU, CPU_NARROW, GPU, fits, fitted, kernel_of, kernels_for
from rwkvgraph.gpu import Context
from rwkvgraph.gpu.probe import COHERENT
from rwkvgraph.gpu.runner import Runner
from rwkvgraph.graph import Graph
from rwkvgraph.op import Buffer, DType, Role, tape
from rwkvgraph.quant import Fp16, Matrix
from rwkvgraph.testing import check_graph, holding, matrix
from rwkvgraph.view import Dim, round_up
from rwkvgraph_codegen import MOST_HANDED, Shape, Units, flaw, workgroup_bytes
from tests.rwkvgraph.hardware import units_of

BROWSER = Limits.webgpu_default()
ROOMY = replace(
    BROWSER, max_workgroup_storage=49152, max_workgroup_invocations=1024, max_workgroup_size_x=1024
)
OTHERS = (
    Shape("team", 64, 4, 4, wide=4, teams=4, depth=16),
    Shape("team", 64, 4, 8, wide=8, teams=8, depth=64, buffers=2),
    Shape("team", 64, 16, 4, wide=2, teams=2, depth=64, ahead=2),
    Shape("team", 96, 8, 4, wide=4, teams=3, depth=24, buffers=2, ahead=2),
)
"""No table holds these: cells of 4 columns, two buffers, several cells a team, steps two ahead."""


def product_in_one(rows: int, columns: int, tokens: int) -> Graph:
    """The same with both matrices in one buffer, and inputs beside each other in another, as in models."""
    random, stride, wide = np.random.default_rng(rows + columns), round_up(columns, 8), round_up(columns, 4)
    weights = np.zeros((rows + 12, stride), np.float16)
    weights[:, :columns] = random.normal(size=(rows + 12, columns))
    w, x = holding(weights), holding(random.normal(size=(tokens, 2 * wide)) * columns**-0.5)
    with tape() as items:
        for at, (first, count) in enumerate(((0, rows), (rows, 12))):
            part = w[first : first + count, :columns]
            y = ops.matmul(Matrix(Fp16(), (part,)), x[:, at * wide : at * wide + columns])
            ops.blit(ops.tanh(y), Buffer("y", (tokens, count)).tensor)
    return Graph(tuple(items))


WHOLE = [shape for shape in GPU.matmul if shape.splits == 1]
"""The kernels of the table whose workgroups share no tile."""


def product(rows: int, columns: int, tokens: int, scale: float = 1.0) -> Graph:
    """A product of two matrices side by side, the second of a few rows, followed by a map."""
    random = np.random.default_rng(rows + columns + tokens)
    with tape() as items:
        for count in (rows, 12):
            x = holding(random.normal(size=(tokens, columns)) * scale)
            y = ops.matmul(matrix(random.normal(size=(count, columns))), x)
            ops.blit(ops.tanh(y), Buffer("y", (tokens, count)).tensor)
    return Graph(tuple(items))


@pytest.mark.parametrize(
    ("rows", "columns", "tokens"), [(200, 136, 77), (20, 3, 5), (64, 520, 1), (200, 40, 1)]
)
@pytest.mark.parametrize(
    "shape", dict.fromkeys(map(kernel_of, [*OTHERS, *CPU_NARROW.matmul, *WHOLE])), ids=str
)
def test_a_kernel_agrees_with_numpy(
    gpu: Context, monkeypatch: pytest.MonkeyPatch, shape: Shape, rows: int, columns: int, tokens: int
) -> None:
    only = kernel_of(shape)
    monkeypatch.setattr(tuning, "GPU", replace(GPU, matmul=(only,)))
    target = replace(gpu.target, kind="gpu", matrices="none")
    if not fits(only, target.limits):
        pytest.skip(f"{gpu.info.name} has no room for it")
    check_graph(product(rows, columns, tokens), gpu, target=target)


@pytest.mark.parametrize(
    ("columns", "threads", "teams"),
    [
        (768, 288, 3),
        (1024, 256, 2),
        (1280, 320, 2),
        (2048, 256, 1),
        (2560, 320, 1),
        (3072, 384, 1),
        (10240, 256, 1),
    ],
)
def test_as_many_threads_as_none_idles(gpu: Context, columns: int, threads: int, teams: int) -> None:
    target = replace(gpu.target, kind="gpu", limits=ROOMY)
    shape = fitted(GPU.matmul[0], columns, replace(target, subgroups=True))
    assert (shape.threads, shape.teams_for(columns)) == (threads, teams)
    assert fitted(GPU.matmul[0], columns, replace(target, subgroups=False)) == GPU.matmul[0]
    check_graph(product(36, columns, 1), gpu, target=target)


@pytest.mark.parametrize("columns", range(8, 40000, 1000))
@pytest.mark.parametrize("limits", [BROWSER, ROOMY], ids=["browser", "roomy"])
def test_fitted_kernels_are_ones_that_run(limits: Limits, columns: int) -> None:
    target = Target(limits, NAGA, True, "gpu")
    shape = fitted(GPU.matmul[0], columns, target)
    assert fits(shape, limits)
    assert shape.threads // shape.teams_for(columns) % 32 == 0
    assert replace(shape, threads=256) == GPU.matmul[0]


def sharing_target(gpu: Context, coherent: bool) -> Target:
    """The device, taken for a GPU on which the last workgroup of a tile can add up, or not."""
    if coherent and COHERENT not in gpu.device.features:
        pytest.skip(f"{gpu.info.name} has no @coherent")
    return replace(gpu.target, kind="gpu", coherent=coherent, matrices="none")


SPLITS = (
    Shape("team", 64, 4, 4, wide=4, teams=4, depth=16, splits=2, max_groups=200),
    Shape("team", 64, 4, 8, wide=8, teams=8, depth=64, buffers=2, splits=3, max_groups=300),
    Shape("team", 96, 8, 4, wide=4, teams=3, depth=24, buffers=2, ahead=2, splits=8, max_groups=800),
    *(kernel_of(shape) for shape in GPU.matmul if shape.splits > 1),
)


@pytest.mark.parametrize(
    ("rows", "columns", "tokens"), [(200, 136, 77), (20, 3, 5), (64, 1030, 32), (12, 2048, 17)]
)
@pytest.mark.parametrize("shape", SPLITS, ids=str)
@pytest.mark.parametrize("coherent", [True, False], ids=["by the last", "later"])
def test_workgroups_that_share_a_tile_agree_with_numpy(
    gpu: Context,
    monkeypatch: pytest.MonkeyPatch,
    shape: Shape,
    rows: int,
    columns: int,
    tokens: int,
    coherent: bool,
) -> None:
    target = sharing_target(gpu, coherent)
    monkeypatch.setattr(tuning, "GPU", replace(GPU, matmul=(shape, GPU.matmul[-1])))
    assert flaw(shape) is None
    assert (kernels_for(target, [rows, 12])[0][0] == shape) == fits(shape, target.limits)
    assert kernels_for(target, [rows, 12], can_split=False)[0][0] == GPU.matmul[-1]
    check_graph(product(rows, columns, tokens, columns**-0.5), gpu, target=target)


MATRICES = (
    Shape("matrix", 64, 16, 16, wide=2, depth=32),
    Shape("matrix", 64, 16, 32, wide=1, teams=2, depth=64),
    Shape("matrix", 128, 32, 16, wide=2, depth=16),
    Shape("matrix", 256, 16, 16, wide=2, teams=2, depth=32),
    Shape("matrix", 128, 32, 16, wide=1, teams=2, depth=32, splits=3, max_groups=200),
)
SUMS_OF_MATRICES = 2e-5
"""Of results of about 1: what inputs lose of theirs, 2^-21, and what units cut off of sums, 6e-6."""


@pytest.mark.parametrize(
    ("rows", "columns", "tokens"),
    [(200, 136, 77), (20, 3, 5), (64, 1030, 32), (12, 2048, 17), (64, 44, 16), (33, 96, 1), (250, 257, 100)],
)
@pytest.mark.parametrize("shape", MATRICES, ids=str)
def test_matrices_of_subgroups_agree_with_numpy(
    gpu: Context, shape: Shape, rows: int, columns: int, tokens: int
) -> None:
    """By the units of a GPU that has them, or else each lane does its part of what those would do."""
    target = replace(gpu.target, kind="gpu", matrices=units_of(gpu.target), matmul=(shape, GPU.matmul[-1]))
    assert flaw(shape) is None
    assert kernels_for(target, [rows, 12])[0][0] == shape
    assert kernels_for(replace(target, matrices="none"), [rows, 12])[0][0] == GPU.matmul[-1]
    assert kernels_for(target, [rows, 12], in_one=False)[0][0] == GPU.matmul[-1]
    graph = product_in_one(rows, columns, tokens)
    (item,) = compile(graph, None, target).passes
    assert "var<workgroup> matrix" in item.variants[0].source.text
    assert (item.variants[0].after is None) == (shape.splits == 1)
    check_graph(graph, gpu, target=target, tolerance=SUMS_OF_MATRICES)


def test_the_table_for_matrices_is_of_kernels_that_are_some() -> None:
    assert all(flaw(kernel_of(shape)) is None for shape in tuning.MATRICES)
    assert all(workgroup_bytes(shape) <= 49152 for shape in tuning.MATRICES)
    target = Target(ROOMY, TINT, True, "gpu", matrices="native")
    for rows in ([64], [2048], [8192], [65536], [2048] * 3 + [64]):
        for tokens in (9, 16, 17, 32, 33, 64, 65, 128, 129, 256, 1024, 65535):
            shape = next(s for s, most in kernels_for(target, rows) if most is None or tokens <= most)
            assert shape.family == "matrix" or (tokens <= 32 and sum(rows) <= 1200), (rows, tokens)
            assert shape.splits == 1 or shape.groups(rows, tokens) <= shape.max_groups
    little = replace(ROOMY, max_workgroup_storage=32768)  # less than any of them takes
    assert tuning.tuning_for(Target(little, TINT, True, "gpu", matrices="native")) == GPU


def test_a_table_that_ends_with_matrices_leaves_no_run_without_a_kernel() -> None:
    target = Target(ROOMY, TINT, True, "gpu", matrices="native", matmul=MATRICES[:1])
    assert kernels_for(target, [64], in_one=False) == [(GPU.matmul[-1], None)]
    assert kernels_for(replace(target, matrices="none"), [64]) == [(GPU.matmul[-1], None)]


@pytest.mark.parametrize("coherent", [True, False], ids=["by the last", "later"])
def test_the_same_memory_serves_all_that_share_tiles_and_each_run(
    gpu: Context, monkeypatch: pytest.MonkeyPatch, coherent: bool
) -> None:
    monkeypatch.setattr(tuning, "GPU", replace(GPU, matmul=(SPLITS[1], GPU.matmul[-1])))
    random, ends = np.random.default_rng(0), []
    with tape() as items:
        for rows, columns in ((200, 136), (20, 1030), (64, 3)):
            w, x = random.normal(size=(rows, columns)) * columns**-0.5, random.normal(size=(17, columns))
            ends.append((Buffer("y", (17, rows)), x @ w.astype(np.float16).astype(np.float64).T))
            ops.blit(ops.matmul(matrix(w), holding(x)), ends[-1][0].tensor)
    program = compile(Graph(tuple(items)), None, sharing_target(gpu, coherent))
    assert all("hand_over" in item.variants[0].source.text for item in program.passes)
    none = Dim("none")
    runner = Runner(gpu, program, {}, Buffer("nothing", (none, 1), DType.F32, Role.OUTPUT))
    for _ in range(3):
        for y, _ in ends:
            y.write(np.zeros(y.shape, np.float32))
        runner.run({}, {none: 0}, program, {})
        for y, wanted in ends:
            assert np.abs(y.read() - wanted).max() < 2e-5  # results of about 1 in f32


def test_tiles_are_not_shared_where_a_buffer_is_too_small_for_their_sums() -> None:
    target = Target(ROOMY, NAGA, True, "gpu", coherent=True, matmul=(SPLITS[0], GPU.matmul[-1]))
    small = replace(target, limits=replace(ROOMY, max_storage_binding=MOST_HANDED - 4))
    for own, splits in ((target, True), (small, False)):
        texts = [
            variant.source.text for variant in compile(product(64, 1030, 32), None, own).passes[0].variants
        ]
        assert any("hand_over" in text for text in texts) == splits


def test_what_workgroups_hand_over_is_seen_by_the_last() -> None:
    target = Target(ROOMY, NAGA, True, "gpu", coherent=True, matmul=(SPLITS[0], GPU.matmul[-1]))
    first, last = compile(product(64, 1030, 32), None, target).passes[0].variants
    declared = [line for line in first.source.text.splitlines() if "read_write" in line]
    assert [line.startswith("@coherent") for line in declared] == [False, False, True, False]
    assert "atomic<u32>" in declared[-1]
    assert "@coherent" not in last.source.text


@pytest.mark.parametrize("limits", [BROWSER, ROOMY], ids=["browser", "roomy"])
@pytest.mark.parametrize("rows", [[4], [2048], [2048] * 3 + [512], [65536]])
@pytest.mark.parametrize("matrices", ["none", "native"])
def test_a_run_takes_the_first_kernel_that_suits(limits: Limits, rows: list[int], matrices: Units) -> None:
    table = (*GPU.matmul[:3], SPLITS[1], *GPU.matmul[3:7], SPLITS[2], *tuning.MATRICES, *GPU.matmul[7:])
    target = Target(limits, NAGA, True, "gpu", matrices=matrices, matmul=table)
    kernels = kernels_for(target, rows)
    for tokens in (1, 2, 4, 5, 8, 16, 31, 32, 33, 64, 127, 128, 200, 256, 1024, 5000, 65535):
        chosen = next(shape for shape, most in kernels if most is None or tokens <= most)
        wanted = next(
            shape
            for shape in table
            if fits(shape, limits)
            and (shape.family != "matrix" or matrices == "native")
            and (shape.max_tokens is None or tokens <= shape.max_tokens)
            and shape.groups(rows, tokens) >= shape.min_groups
            and (not shape.max_groups or shape.groups(rows, tokens) <= shape.max_groups)
        )
        assert chosen == kernel_of(wanted)


@pytest.mark.parametrize("table", [CPU, CPU_NARROW, GPU], ids=["CPU", "CPU_NARROW", "GPU"])
def test_the_last_kernel_of_a_table_serves_every_run_on_every_device(table: tuning.Tuning) -> None:
    last = table.matmul[-1]
    assert last.max_tokens is None
    assert not last.min_groups
    assert fits(last, BROWSER)


def test_no_kernel_needs_more_memory_than_the_software_adapter_of_the_tests_has() -> None:
    assert all(workgroup_bytes(shape) <= 32768 for shape in GPU.matmul)


def test_a_kernel_that_needs_more_memory_than_there_is_does_not_fit() -> None:
    shape = Shape("team", 256, 8, 8, wide=8, teams=8, depth=64)
    assert workgroup_bytes(shape) == 8 * 25 * 9 * 16
    assert fits(shape, ROOMY)
    assert not fits(shape, BROWSER)
