"""Matrices of users' own: how they are made and written, and what is refused as one."""

import numpy as np
import pytest

import rwkvgraph as rg
from rwkvgraph.op import DType, tape
from rwkvgraph.quant import Fp16
from rwkvgraph.testing import GPU_TOLERANCE, check_op, holding, run_on_device, run_on_numpy

Numbers = np.random.Generator


@pytest.mark.parametrize("columns", [1, 4, 8, 12, 20, 33])
def test_a_matrix_of_any_width_does_on_a_device_what_it_does_on_numpy(
    gpu: rg.Context, rng: Numbers, columns: int
) -> None:
    x = holding(rng.normal(size=(3, columns)))
    check_op([rg.matmul(rg.matrix(rng.normal(size=(16, columns))), x).source], gpu)  # type: ignore[list-item]


def test_a_matrix_is_half_precision(rng: Numbers) -> None:
    values = rng.normal(size=(5, 7))
    stored = rg.matrix(values, "mine").parts[0].source
    assert isinstance(stored, rg.Buffer)
    np.testing.assert_array_equal(stored.read().reshape(5, 8)[:, :7], values.astype(np.float16))


def test_a_matrix_that_is_written_is_another_in_the_next_run(gpu: rg.Context, rng: Numbers) -> None:
    w, rows, result = rg.matrix(np.zeros((4, 6))), rng.normal(size=(2, 6)), rg.Buffer("result", (2, 4))
    with tape() as items:
        rg.blit(rg.matmul(w, holding(rows)), result)
    graph = rg.Graph(tuple(items))
    values = rng.normal(size=(4, 6)).astype(np.float16)
    for weights in (np.zeros((4, 6)), values):
        w.write(weights)
        want = rows.astype(np.float32) @ weights.astype(np.float32).T
        np.testing.assert_allclose(run_on_numpy(graph)[result], want, atol=GPU_TOLERANCE)
        np.testing.assert_allclose(run_on_device(graph, gpu)[result], want, atol=GPU_TOLERANCE)
    with pytest.raises(rg.ShapeError, match=r"was given weights of shape \(6, 4\)"):
        w.write(values.T)


@pytest.mark.parametrize("given", [np.zeros(4), np.zeros((2, 3, 4)), np.zeros((0, 4)), 1.0])
def test_what_is_no_matrix_is_refused(given: object) -> None:
    with pytest.raises(rg.ShapeError, match="a matrix has rows and columns"):
        rg.matrix(given)


@pytest.mark.parametrize("value", [1e6, -np.inf, 1j])
def test_numbers_that_half_precision_cannot_hold_are_refused(value: complex) -> None:
    if value == -np.inf:
        rg.matrix([[value]])  # infinite before as after
        return
    with pytest.raises(rg.ShapeError, match="holds f16; it was given"):
        rg.matrix([[value, 0.0]])


@pytest.mark.parametrize("value", [-1, 1.5, 2.0**33])
def test_words_are_whole_numbers_of_32_bits(value: float) -> None:
    with pytest.raises(rg.ShapeError, match=rf"holds u32; it was given {value}"):
        rg.Buffer("ids", 1, DType.U32).write([value])


@pytest.mark.parametrize(
    "buffer", [rg.Buffer("w", (16, 12), DType.F16), rg.Buffer("w", (16, 8)), rg.Buffer("w", (16,), DType.F16)]
)
def test_a_buffer_that_kernels_would_misread_is_no_matrix(buffer: rg.Buffer) -> None:
    with pytest.raises(rg.ShapeError, match=r"is no matrix of fp16.*rg\.matrix\(values\) makes one"):
        rg.Matrix(Fp16(), (buffer.tensor,))


def test_matmul_takes_a_matrix_and_says_how_to_make_one() -> None:
    with pytest.raises(rg.ShapeError, match=r"rg\.matrix\(values\) makes a matrix.*test_quant\.py:"):
        rg.matmul(rg.Buffer("w", (8, 8), DType.F16), holding(np.zeros((2, 8))))  # type: ignore[arg-type]
