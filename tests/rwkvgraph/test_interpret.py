"""Running tapes on numpy."""

from dataclasses import dataclass

import numpy as np
import pytest

from rwkvgraph import ops
from rwkvgraph.errors import ShapeError
from rwkvgraph.graph import Graph
from rwkvgraph.interpret import Host, HostMemory, interpret
from rwkvgraph.op import Array, Buffer, DType, Map, Role, Tensor, TensorOp, tape
from rwkvgraph.testing import buffers_of, holding, matrix, run_on_numpy
from rwkvgraph.view import T


def run(*wanted: Tensor) -> list[Array]:
    """The values of tensors, made from users' buffers alone."""
    order: dict[TensorOp, None] = {}

    def visit(tensor: Tensor) -> None:
        if isinstance(tensor.source, TensorOp):
            for operand in tensor.source.operands().values():
                visit(operand)
            order[tensor.source] = None

    for tensor in wanted:
        visit(tensor)
    results = interpret(order, Host(), {})
    return [results[tensor.source] for tensor in wanted if isinstance(tensor.source, TensorOp)]


def test_arithmetic_of_tensors_is_arithmetic(rng: np.random.Generator) -> None:
    a, b = (rng.normal(size=(3, 5)).astype(np.float32) for _ in range(2))
    x, y = holding(a), holding(b)
    for got, want in zip(
        run(x + y, x - y, x * y, 2 * x + 1, 1 - x, -x, x - 3.0),
        [a + b, a - b, a * b, 2 * a + 1, 1 - a, -a, a - 3],
        strict=True,
    ):
        np.testing.assert_array_equal(got, want.astype(np.float32))


def test_a_view_of_a_result_sees_through_the_padding_of_its_rows(rng: np.random.Generator) -> None:
    a = rng.normal(size=(4, 2, 3)).astype(np.float32)
    x = ops.identity(holding(a))
    views = [x[1], x[:, 1], x[1:3, :, 1], x.transpose(1, 0, 2), x.reshape(4, 6)[::2, 2:5]]
    wanted = [a[1], a[:, 1], a[1:3, :, 1], a.transpose(1, 0, 2), a.reshape(4, 6)[::2, 2:5]]
    for view, want in zip(views, wanted, strict=True):
        np.testing.assert_array_equal(run(ops.identity(view))[0], want)


def test_the_last_token_is_that_of_the_run() -> None:
    x, last = Buffer("x", (T, 3), DType.F32, Role.STATE), Buffer("last", (3,))
    with tape() as items:
        ops.blit(ops.tanh(x.tensor)[-1], last.tensor)
    for tokens in (1, 4):
        values = np.arange(3.0 * tokens).reshape(tokens, 3)
        got = run_on_numpy(Graph(tuple(items)), {x: values}, {T: tokens})[last]
        np.testing.assert_array_equal(got, np.tanh(values[-1].astype(np.float32)))


@pytest.mark.parametrize("keep", [ops.identity, lambda x: ops.blit(x, Buffer("copy", (4,)).tensor).result])
def test_a_value_stays_when_the_buffer_it_came_from_is_written(keep: object) -> None:
    state, out = Buffer("state", (4,)), Buffer("out", (4,))
    state.write([1, 2, 3, 4])
    with tape() as items:
        old = keep(state.tensor)  # type: ignore[operator]  # one of the two above
        ops.blit(holding(np.zeros(4)), state.tensor)
        ops.blit(old, out.tensor)
    assert run_on_numpy(Graph(tuple(items)))[out].tolist() == [1, 2, 3, 4]


def test_what_a_blit_wrote_stays_its_result_when_the_target_is_written_again() -> None:
    state, out = Buffer("state", (2,)), Buffer("out", (2,))
    with tape() as items:
        first = ops.blit(holding(np.array([1.0, 2.0])), state.tensor).result
        ops.blit(holding(np.zeros(2)), state.tensor)
        ops.blit(first, out.tensor)
    assert run_on_numpy(Graph(tuple(items)))[out].tolist() == [1, 2]


def test_matrices_mean_their_half_precision_weights(rng: np.random.Generator) -> None:
    w, x = rng.normal(size=(5, 7)), rng.normal(size=(3, 7)).astype(np.float32)
    got = run(ops.matmul(matrix(w), holding(x)))[0]
    np.testing.assert_allclose(got, x @ w.astype(np.float16).astype(np.float32).T, rtol=1e-6, atol=1e-6)


def test_host_memory_pads_rows_as_devices_do() -> None:
    memory = HostMemory((2, 3), DType.F32, {})
    memory.write(np.arange(6.0).reshape(2, 3))
    assert memory.flat.tolist() == [0, 1, 2, 0, 3, 4, 5, 0]
    assert memory.read().tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_users_buffer_is_read_and_written_where_it_is() -> None:
    total = Buffer("total", (3,))
    total.write([1, 2, 3])
    with tape() as items:
        ops.blit(total.tensor * 2.0, total.tensor)
    host = Host()
    for _ in range(2):
        interpret(items, host, {})
    assert total.read().tolist() == [4, 8, 12]
    total.write([0, 0, 1])
    interpret(items, host, {})
    assert total.read().tolist() == [0, 0, 2]


def test_a_buffer_of_unknown_size_must_be_placed() -> None:
    with tape() as items:
        ops.tanh(Buffer("x", (T, 3), DType.F32, Role.STATE).tensor)
    with pytest.raises(ShapeError, match=r"buffer x: f32\[T, 3\] state has no memory; place it"):
        interpret(items, Host(), {T: 2})


@dataclass(frozen=True, eq=False, repr=False)
class Wider(Map):
    """Gives twice the row it says."""

    x: Tensor

    wgsl = "x"

    def numpy(self, *arrays: Array) -> Array:
        return np.concatenate([arrays[0], arrays[0]], -1)


def test_a_result_of_another_shape_than_said_names_the_line_of_the_operation() -> None:
    with pytest.raises(
        ShapeError,
        match=r"wider f32\[3\] gave \(6,\) on numpy, not \(3,\) \(built at test_interpret.py:\d+\)",
    ):
        run(Wider(holding(np.ones(3))).result)


def test_overflow_is_infinity_and_no_error() -> None:
    with np.errstate(all="raise"):
        assert run(ops.exp(holding(np.array([1000.0, -1000.0]))))[0].tolist() == [np.inf, 0]


def test_the_buffers_of_a_graph_are_listed_once_each() -> None:
    a, b = Buffer("a", (3,)), Buffer("b", (3,))
    with tape() as items:
        ops.blit(ops.add(a.tensor, a.tensor), b.tensor)
    assert buffers_of(Graph(tuple(items))) == [a, b]
