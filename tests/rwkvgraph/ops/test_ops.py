"""Every operation on a device against numpy: examples of odd sizes, random graphs, and views."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings

from rwkvgraph import ops
from rwkvgraph.compiler import Target
from rwkvgraph.errors import ShapeError
from rwkvgraph.gpu import Context
from rwkvgraph.graph import Graph
from rwkvgraph.op import BEFORE, Array, Buffer, Map, Reduction, Row, Tensor, TensorOp, operand, tape, updated
from rwkvgraph.ops import elementwise, move, norm, shift
from rwkvgraph.ops import sample as drawing
from rwkvgraph.ops.matmul import Matmul
from rwkvgraph.ops.recurrence import Recurrence
from rwkvgraph.ops.wkv4 import EMPTY_PP, Wkv4
from rwkvgraph.ops.wkv6 import Wkv6
from rwkvgraph.ops.wkv7 import Wkv7
from rwkvgraph.testing import CheckError, check_graph, check_op, compare, holding, matrix, run_on_device
from tests.rwkvgraph.random_graphs import Sample, samples
from tests.rwkvgraph.recurrences import constant_heads, cursors_of, recurrence

Numbers = np.random.Generator
WIDTHS = [1, 3, 4, 30, 256]
HEAD = 32
"""The widest. One of 64 takes llvmpipe 5 s or more to compile; those are in the tests of models."""
Example = Callable[[Numbers, int], TensorOp]
"""Makes an op of rows of the given width, on random numbers."""


def rows(rng: Numbers, width: int, count: int = 5) -> Tensor:
    return holding(rng.normal(size=(count, width)))


def vector(rng: Numbers, width: int) -> Tensor:
    return holding(rng.normal(size=width))


def heads(rng: Numbers, width: int) -> Tensor:
    """(5, 2, width)."""
    return holding(rng.normal(size=(5, 2, width)))


def three_slots(rng: Numbers) -> Tensor:
    return cursors_of(rng, (1, 3, 1), 4)[1]


def channels(rng: Numbers, width: int) -> TensorOp:
    """Wkv4 of `width` channels; one of the slots is empty."""
    starts, cursors = cursors_of(rng, (1, 4, 2), 4)
    w, u = -np.exp(rng.normal(size=width)), rng.normal(size=width)
    k, v = rng.normal(size=(2, 7, width)) * 3
    state = np.stack([rng.normal(size=(4, width)), np.exp(rng.normal(size=(4, width))), k[:4]], 1)
    assert isinstance(cursors.source, Buffer)
    state[cursors.source.read()[0, 0]] = np.array([0, 0, EMPTY_PP])[:, None]
    return Wkv4(starts, cursors, holding(w), holding(u), holding(k), holding(v), holding(state))


def ids(rng: Numbers, most: int) -> Tensor:
    return holding(rng.integers(0, most, 7).astype(np.uint32))


def draws(rng: Numbers, width: int, **changes: float) -> TensorOp:
    """Three rows of logits, some tokens of which were seen, the first barred where there is another."""
    rule = {"rate": 1.25, "top_k": 0, "top_p": 0.7, "reach": 9.0, "presence": 0.2, "frequency": 0.1} | changes
    more: Any = {**rule, "decay": 0.9, "text": 0}
    settings = [drawing.Settings(**more, key=(seed, 1)).words() for seed in range(3)]
    bias = np.where(np.arange(width) < (width > 1), -np.inf, rng.normal(size=width))
    zeros = holding(np.zeros(3, np.uint32)), holding(np.zeros((3, 8), np.uint32))
    seen = holding(rng.integers(0, 3, (3, width)).astype(np.float32))
    return drawing.Sample(holding(bias), rows(rng, width, 3), seen, holding(np.stack(settings)), *zeros)


def halves(rng: Numbers, count: int, width: int) -> Tensor:
    return holding(rng.normal(size=(count, width)).astype(np.float16))


EXAMPLES: dict[type[TensorOp], list[Example]] = {
    elementwise.Add: [lambda r, n: elementwise.Add(rows(r, n), rows(r, n)),
                      lambda r, n: elementwise.Add(vector(r, n), heads(r, n)),
                      lambda r, n: elementwise.Add(rows(r, n), rows(r, 1)),
                      lambda r, n: elementwise.Add(rows(r, n, 1), rows(r, 1, 5)),
                      lambda r, n: elementwise.Add(vector(r, n), vector(r, 1))],
    elementwise.Subtract: [lambda r, n: elementwise.Subtract(vector(r, n), rows(r, n))],
    elementwise.Multiply: [lambda r, n: elementwise.Multiply(heads(r, n), rows(r, n, 2)),
                           lambda r, n: elementwise.Multiply(rows(r, n)[1:4], rows(r, n, 4)[::2][1])],
    elementwise.Divide: [lambda r, n: elementwise.Divide(rows(r, n), holding(np.exp(r.normal(size=n))))],
    elementwise.Lerp: [lambda r, n: elementwise.Lerp(rows(r, n), rows(r, n), vector(r, n))],
    elementwise.Affine: [lambda r, n: elementwise.Affine(rows(r, n), -1.7, 0.3)],
    elementwise.Identity: [lambda r, n: elementwise.Identity(rows(r, n)),
                           lambda r, n: elementwise.Identity(heads(r, n).transpose(1, 0, 2)),
                           lambda r, n: elementwise.Identity(rows(r, n).transpose(1, 0)),
                           lambda r, n: elementwise.Identity(heads(r, n)[:, 1]),
                           lambda r, n: elementwise.Identity(halves(r, 5, n))],
    elementwise.Sigmoid: [lambda r, n: elementwise.Sigmoid(holding(40 * r.normal(size=(3, n))))],
    elementwise.Tanh: [lambda r, n: elementwise.Tanh(holding(40 * r.normal(size=(3, n))))],
    elementwise.Silu: [lambda r, n: elementwise.Silu(holding(10 * r.normal(size=(3, n))))],
    elementwise.SquaredRelu: [lambda r, n: elementwise.SquaredRelu(rows(r, n))],
    elementwise.Exp: [lambda r, n: elementwise.Exp(rows(r, n))],
    elementwise.StableExp: [lambda r, n: elementwise.StableExp(rows(r, n))],
    elementwise.Decay: [lambda r, n: elementwise.Decay(holding(10 * r.normal(size=(3, n))))],
    elementwise.ScaleKey: [lambda r, n: elementwise.ScaleKey(rows(r, n), rows(r, n), vector(r, n))],
    norm.LayerNorm: [lambda r, n: norm.LayerNorm(rows(r, n), vector(r, n), vector(r, n)),
                     lambda r, n: norm.LayerNorm(heads(r, n), rows(r, n, 2), rows(r, n, 2), 64e-5),
                     lambda r, n: norm.LayerNorm(vector(r, n), vector(r, n), vector(r, n))],
    norm.L2Norm: [lambda r, n: norm.L2Norm(rows(r, n)), lambda r, n: norm.L2Norm(heads(r, n))],
    norm.Bonus: [lambda r, n: norm.Bonus(heads(r, n), heads(r, n), rows(r, n, 2), heads(r, n))],
    norm.Softmax: [lambda r, n: norm.Softmax(holding(30 * r.normal(size=(3, n)))),
                   lambda r, n: norm.Softmax(holding(r.normal(size=(3, n)) - 1000))],
    move.Blit: [lambda r, n: move.Blit(rows(r, n), rows(r, n)),
                lambda r, n: move.Blit(vector(r, n), rows(r, n)),
                lambda r, n: move.Blit(rows(r, n)[2], rows(r, n)[1]),
                lambda r, n: move.Blit(vector(r, n), heads(r, n)[2, 0]),
                lambda r, n: move.Blit(rows(r, n, 2), heads(r, n)[1:3, 1]),
                lambda r, n: move.Blit(vector(r, n), rows(r, 5, n)[:, 2])],
    move.Gather: [lambda r, n: move.Gather(ids(r, 9), halves(r, 9, n)),
                  lambda r, n: move.Gather(ids(r, 3), rows(r, n))],
    move.ReplaceRows: [lambda r, n: move.ReplaceRows(ids(r, 4), rows(r, n, 7), rows(r, n, 3))],
    move.GatherClamped: [lambda r, n: move.GatherClamped(ids(r, 9), halves(r, 4, n), 4.0)],
    move.GatherPart: [lambda r, n: move.GatherPart(ids(r, 9), rows(r, n, 7), halves(r, 3, n), 4.0, 3.0)],
    shift.PreviousToken: [lambda r, n: shift.PreviousToken(three_slots(r), rows(r, n), rows(r, n, 4))],
    shift.KeepLast: [lambda r, n: shift.KeepLast(three_slots(r), rows(r, n), rows(r, n, 4))],
    Matmul: [lambda r, n: Matmul(matrix(r.normal(size=(n, 30)) / 6), rows(r, 30)),
                    lambda r, n: Matmul(matrix(r.normal(size=(5, n)) / n**0.5), rows(r, n, 1)),
                    lambda r, n: Matmul(matrix(r.normal(size=(37, n)) / n**0.5), rows(r, n, 33))],
    drawing.Sample: [draws, lambda r, n: draws(r, n, rate=0.0),
                     lambda r, n: draws(r, n, top_k=max(1, n // 2), top_p=1.0, reach=np.inf)],
    Wkv4: [channels],
    Wkv6: [lambda r, n: constant_heads(r, min(n, HEAD)),
           lambda r, n: constant_heads(r, min(n, 32), is_constant=False)],
    Wkv7: [lambda r, n: recurrence(r, min(n, HEAD)), lambda r, n: recurrence(r, min(n, 16), 3, (9, 2))],
}  # fmt: skip


def op_classes(base: type[TensorOp] = TensorOp) -> Iterator[type[TensorOp]]:
    for kind in base.__subclasses__():
        if kind.__module__.startswith("rwkvgraph.ops."):
            yield kind
        yield from op_classes(kind)


def test_every_operation_has_an_example() -> None:
    assert set(op_classes()) - {Recurrence} == set(EXAMPLES)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_a_device_gives_what_numpy_gives(
    gpu: Context, rng: Numbers, kind: type[TensorOp], width: int
) -> None:
    check_op([example(rng, width) for example in EXAMPLES[kind]], gpu)


def targets(context: Context) -> list[Target]:
    """Kernels for a GPU and for software, with and without subgroups, and of unknown subgroup size."""
    plain = [replace(context.target, kind=kind, subgroups=False, lanes=0) for kind in ("cpu", "gpu")]
    if not context.target.subgroups:
        return plain
    return [*plain, *(replace(target, subgroups=True) for target in plain)]


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@seed(7)  # a shader takes 30 ms to compile: few graphs, the same in every run
@given(samples())
def test_a_random_graph_does_on_a_device_what_it_does_on_numpy(gpu: Context, sample: Sample) -> None:
    wide = replace(gpu.target.limits, max_storage_buffers=min(gpu.target.limits.max_storage_buffers, 16))
    check_graph(sample.graph, gpu, sample.contents, sample.sizes, replace(gpu.target, limits=wide))


@pytest.mark.parametrize("number", range(4))
def test_the_kernels_of_other_devices_give_the_same(gpu: Context, rng: Numbers, number: int) -> None:
    choices = targets(gpu)
    target = choices[number % len(choices)]
    for width in (30, 64):
        with tape() as items:
            x = rows(rng, width)
            y = ops.layer_norm(x, vector(rng, width), vector(rng, width))
            ops.blit(ops.softmax(ops.matmul(matrix(rng.normal(size=(37, width)) / 8), y)), rows(rng, 37))
            recurrence(rng, width // 2, 1)
            recurrence(rng, width // 2, 2, cuts=(1, 1, 1))
            ops.blit(ops.matmul(matrix(rng.normal(size=(9, 8))), rows(rng, 8, 40)), rows(rng, 9, 40))
        check_graph(Graph(tuple(items)), gpu, target=target)


@pytest.mark.parametrize("shape", [(2, 3, 3), (2, 2, 1), (3, 6), (2, 2, 2, 3)])
def test_writing_a_part_of_a_row_leaves_its_neighbours_alone(
    gpu: Context, rng: Numbers, shape: tuple[int, ...]
) -> None:
    buffer = holding(rng.normal(size=shape))
    first, last = buffer[0, 0], buffer[1, -1]
    with tape() as items:
        ops.blit(holding(np.full(shape[2:] or 1, 7.0))[0 if len(shape) == 2 else slice(None)], first)
        ops.blit(ops.exp(buffer[0, 1]), last)
    check_graph(Graph(tuple(items)), gpu)


@pytest.mark.parametrize("width", [4, 8])
def test_rows_of_a_result_can_be_read_as_one_row(gpu: Context, rng: Numbers, width: int) -> None:
    with tape() as items:
        a = ops.exp(rows(rng, width, 4))
        b = ops.tanh(rows(rng, width, 4))
        c = ops.add(a, b)
        ops.blit(c, rows(rng, width, 4))
        ops.blit(ops.softmax(a.reshape(4 * width)), vector(rng, 4 * width))
        ops.blit(ops.exp(b.reshape(2, 2 * width)), rows(rng, 2 * width, 2))
        ops.blit(ops.softmax(b[1:3].reshape(2 * width)), vector(rng, 2 * width))
    check_graph(Graph(tuple(items)), gpu)


def test_a_gathered_table_has_rows() -> None:
    with pytest.raises(ShapeError, match="table"):
        ops.gather(holding(np.arange(5.0)), holding(np.array([1, 2], np.uint32)))


@dataclass(frozen=True, eq=False, repr=False)
class Softcap(Map):
    """A user's map: cap * tanh(x / cap)."""

    x: Tensor
    cap: float = 2.0

    wgsl = "cap * tanh(x / cap)"

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(np.float32(self.cap) * np.tanh(arrays[0] / np.float32(self.cap)))

    @classmethod
    def example(cls, rng: Numbers) -> list[TensorOp]:
        return [*(cls(rows(rng, width)) for width in WIDTHS), cls(heads(rng, 6), 0.5)]


@dataclass(frozen=True, eq=False, repr=False)
class Standout(Row):
    """A user's row: how far x lies from the row's largest, in shares of Σ |x|."""

    x: Tensor

    reduce = (
        Reduction("top", "x", "max"),
        Reduction("total", "abs(x)"),
        Reduction("most", "abs(x - V(top))", "max"),
    )
    wgsl = "(V(top) - x) / V(total) + V(most / n)"

    def numpy(self, *arrays: Array) -> Array:
        (x,) = arrays
        top, total = x.max(-1, keepdims=True), np.abs(x).sum(-1, keepdims=True)
        most = np.abs(x - top).max(-1, keepdims=True)
        return np.asarray((top - x) / total + most / np.float32(x.shape[-1]))

    @classmethod
    def example(cls, rng: Numbers) -> list[TensorOp]:
        return [cls(rows(rng, width)) for width in WIDTHS]


@dataclass(frozen=True, eq=False, repr=False)
class Accumulate(Map):
    """A user's op with state: the row above plus x is written to `total`."""

    x: Tensor
    above: Tensor = operand(row=BEFORE)
    total: Tensor = updated()

    wgsl = "x + above"

    def numpy(self, *arrays: Array) -> Array:
        x, above, total = arrays
        total[...] = x + above[np.maximum(np.arange(len(above)), 1) - 1]
        return total

    @classmethod
    def example(cls, rng: Numbers) -> list[TensorOp]:
        return [cls(rows(rng, width), rows(rng, width), rows(rng, width)) for width in WIDTHS]


@pytest.mark.parametrize("kind", [Softcap, Standout, Accumulate])
def test_a_users_operation_is_checked_by_its_example(gpu: Context, kind: type[TensorOp]) -> None:
    check_op(kind, gpu)


@dataclass(frozen=True, eq=False, repr=False)
class Wrong(Softcap):
    """Says one thing on numpy and another on devices."""

    wgsl = "tanh(x / cap)"


def test_an_operation_that_means_two_things_is_found_out(gpu: Context) -> None:
    with pytest.raises(CheckError, match=r"element \(\d, 0\) is .* on the device and .* on numpy; 5 of 5"):
        check_op(Wrong, gpu)


@dataclass(frozen=True, eq=False, repr=False)
class Misshapen(Softcap):
    """Its numpy gives another shape than it says."""

    def numpy(self, *arrays: Array) -> Array:
        return arrays[0][:1]


def test_a_shape_rule_that_numpy_does_not_follow_is_found_out(gpu: Context) -> None:
    with pytest.raises(
        ShapeError, match=r"misshapen .* gave \(1, 1\) on numpy, not \(5, 1\) \(built at test_ops.py:\d+"
    ):
        check_op(Misshapen, gpu)


def test_an_operation_without_examples_is_told_how_to_have_some(gpu: Context) -> None:
    with pytest.raises(TypeError, match=r"give it a class method example\(rng\)"):
        check_op(elementwise.Add, gpu)


def test_a_nan_on_one_side_is_a_difference() -> None:
    compare(np.array([np.nan, 1.0]), np.array([np.nan, 1.0]), "equal")
    for got, want in [([np.nan], [1.0]), ([1.0], [np.nan]), ([np.inf], [1.0])]:
        with pytest.raises(CheckError):
            compare(np.array(got), np.array(want), "x")


def test_checking_leaves_the_buffers_as_they_were(gpu: Context, rng: Numbers) -> None:
    target = Buffer("target", (3,))
    with tape() as items:
        ops.blit(vector(rng, 3), target.tensor)
    assert run_on_device(Graph(tuple(items)), gpu)[target].any()
    assert not target.read().any()
