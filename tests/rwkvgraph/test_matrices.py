"""Models whose products are by matrices of subgroups, and what those make of large and small numbers."""

from collections.abc import Iterator

import numpy as np
import pytest

from rwkvgraph import Hooks, assets, ops, v7
from rwkvgraph.compiler import Target, compile, tuning
from rwkvgraph.gpu import Context
from rwkvgraph.gpu.runner import Runner
from rwkvgraph.graph import Graph
from rwkvgraph.model import Model
from rwkvgraph.op import Array, Buffer, tape
from rwkvgraph.testing import holding, matrix, run_on_device
from rwkvgraph_codegen import Shape
from tests.rwkvgraph.hardware import hardware, units_of

TABLE = (
    tuning.GPU.matmul[0],
    Shape("matrix", 64, 16, 16, wide=2, depth=32, splits=3, max_groups=200),
    Shape("matrix", 64, 16, 16, wide=1, teams=2, depth=32, max_tokens=40),
    Shape("matrix", 128, 16, 16, wide=2, depth=32),
    tuning.GPU.matmul[-1],
)
"""Small enough for any device, whose lanes do what units would."""

CLOSE = 2e-4
"""Logits of about 10 in f32, sums in other orders, inputs of 22 bits."""


def with_matrices(target: Target) -> Target:
    return hardware(target, matrices=units_of(target), matmul=TABLE)


@pytest.fixture
def matrices(gpu: Context) -> Iterator[Context]:
    """The device, whose products of two and more tokens are by matrices."""
    before, gpu.target = gpu.target, with_matrices(gpu.target)
    yield gpu
    gpu.target = before


def story(count: int, seed: int = 0) -> list[int]:
    tokens: list[int] = np.random.default_rng(seed).integers(1, 4096, count).tolist()
    return tokens


def test_a_model_by_matrices_agrees_with_numpy(matrices: Context) -> None:
    model, wanted = (Model.load(assets.default_model(), device) for device in (matrices, "cpu"))
    program = model.program()
    assert isinstance(program, Runner)
    texts = [source.text for source in program.program.sources()]
    assert sum("var<workgroup> matrix" in text for text in texts) > 5
    found, others = model.state(3), wanted.state(3)
    for lengths in ((70, 3, 0), (1, 20, 41), (1, 1, 1)):
        tokens = [story(count, count) for count in lengths]
        mine = model.run([list(row) for row in tokens], found)
        theirs = wanted.run([list(row) for row in tokens], others)
        for row, other in zip(mine, theirs, strict=True):
            assert (row is None) == (other is None)
            if row is not None and other is not None:
                np.testing.assert_allclose(row, other, atol=CLOSE)
    np.testing.assert_allclose(found.read(0), others.read(0), atol=CLOSE)


def test_where_a_prompt_is_split_makes_no_difference(matrices: Context) -> None:
    model, tokens = Model.load(assets.default_model(), matrices), story(60)
    (whole,) = model.run([list(tokens)], model.state())
    assert whole is not None
    for at in (1, 17, 33):
        state = model.state()
        model.run([tokens[:at]], state)
        (row,) = model.run([tokens[at:]], state)
        np.testing.assert_allclose(row, whole, atol=CLOSE)  # type: ignore[arg-type]


def test_two_runs_are_equal_to_the_bit(matrices: Context) -> None:
    model = Model.load(assets.default_model(), matrices)
    rows = [model.run([story(50), story(9, 1)], model.state(2)) for _ in range(2)]
    np.testing.assert_array_equal(rows[0], rows[1])


def test_hooks_with_weights_of_their_own_do_without_matrices(matrices: Context) -> None:
    """Where the matrices of a pass are in several buffers each load is a choice: other kernels do that."""
    model, extra = Model.load(assets.default_model(), matrices), matrix(np.eye(256))

    def beside(frame: v7.Frame) -> None:
        frame.att_k = frame.att_k + ops.matmul(extra, frame.att_kx)

    hooks = Hooks({v7.PostAttLinear(2): beside})
    program = compile(model.graph, hooks, matrices.target)
    for item in program.passes:
        buffers = {region.buffer for region in item.reads}
        if len(buffers) > 1:
            assert not any("var<workgroup> matrix" in variant.source.text for variant in item.variants)
    (row,) = model.run_with_hooks([story(30)], model.state(), hooks)
    plain = Model.load(assets.default_model(), "cpu")
    (wanted,) = plain.run_with_hooks([story(30)], plain.state(), hooks)
    np.testing.assert_allclose(row, wanted, atol=CLOSE)  # type: ignore[arg-type]


def product_of(x: Array, w: Array, context: Context) -> Array:
    y = Buffer("y", (x.shape[0], w.shape[0]))
    with tape() as items:
        ops.blit(ops.matmul(matrix(w), holding(x)), y.tensor)
    return run_on_device(Graph(tuple(items)), context)[y]


@pytest.mark.parametrize("power", range(-30, 19, 4))
def test_inputs_of_any_size_keep_their_bits(matrices: Context, power: int) -> None:
    """An input is off by 2^-21 of itself, or by 2^-21 where it is small: roundings to 2^-24, times 8."""
    random = np.random.default_rng(power + 40)
    x = (random.uniform(-1, 1, (20, 96)) * 2.0**power).astype(np.float32)
    w = random.normal(size=(48, 96)).astype(np.float16).astype(np.float32)
    wanted = x.astype(np.float64) @ w.T.astype(np.float64)
    inputs = np.maximum(np.abs(x), 1.0) * 2.0**-21
    room = inputs @ np.abs(w).T + np.abs(x) @ np.abs(w).T * 2.0**-20  # and sums of f32
    assert (np.abs(product_of(x, w, matrices) - wanted) <= room).all()


def test_inputs_that_are_too_large_give_no_number(matrices: Context) -> None:
    if matrices.target.matrices != "native":
        pytest.skip(f"{matrices.info.name} has no matrix units; what is beyond f16 is up to those")
    x = np.ones((20, 32), np.float32)
    x[3, 5] = 1e6
    found = product_of(x, np.ones((16, 32), np.float32), matrices)
    assert not np.isfinite(found[3]).any()
    assert (found[[*range(3), *range(4, 20)]] == 32).all()
