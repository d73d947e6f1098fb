"""Pairs: for a token alone, a product that works out by itself the rows that it multiplies."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

import rwkvgraph as rg
from rwkvgraph import ops, v7
from rwkvgraph.compiler import compile, tuning
from rwkvgraph.compiler.program import Relay
from rwkvgraph.gpu import Context
from rwkvgraph.gpu.runner import Runner
from rwkvgraph.graph import Graph
from rwkvgraph.model import Model
from rwkvgraph.op import Reduction, Role, Row, Tensor, tape
from rwkvgraph.testing import check_graph, holding, matrix
from rwkvgraph.view import T
from rwkvgraph_codegen import Shape
from tests.rwkvgraph.hardware import hardware
from tests.rwkvgraph.models.oracle_v7 import Array
from tests.rwkvgraph.models.synthetic import synthetic
from tests.rwkvgraph.models.yardstick import Expected, expect, feed

pytestmark = pytest.mark.gpu
PROMPT = [0, 17, 91, 4, 255, 3]


@pytest.fixture(scope="module", params=["subgroups", "plain", "looks"])
def pairing(request: pytest.FixtureRequest) -> Iterator[Context]:
    context = Context.create()
    subgroups = request.param != "plain"
    if subgroups and not context.target.subgroups:
        pytest.skip("no subgroups here")
    context.target = hardware(context.target, subgroups=subgroups, looks=request.param == "looks")
    yield context
    context.destroy()


def check_one_by_one(model: Model, wanted: Expected) -> list[Array]:
    """Hold what comes of tokens, every one a run of its own, to the oracle; gives the logits."""
    state = model.state()
    logits = feed(model, state, [[[token] for token in PROMPT]])[0]
    for at, row in enumerate(logits):
        wanted.check_logits(row, at)
    wanted.check_state(state.read(0))
    return logits


def pairs_of(model: Model, hooks: rg.Hooks | None = None) -> list[Relay]:
    runner = model.program(hooks)
    assert isinstance(runner, Runner)
    return [relay for relay in runner.program.relays if not relay.meets]


@pytest.mark.parametrize(
    ("version", "width"),
    [
        ("v7", 128),
        ("v6", 64),
        *(pytest.param(each, 64, marks=pytest.mark.slow) for each in ("v4", "v5.0", "v5.1", "v5.2")),
    ],
)
def test_a_token_at_a_time_is_what_the_mathematics_say(pairing: Context, version: str, width: int) -> None:
    tensors = synthetic(layers=2, width=width, version=version)
    model, wanted = Model.load(tensors, pairing), expect(tensors, PROMPT)
    logits = check_one_by_one(model, wanted)
    again = feed(model, model.state(), [[[token] for token in PROMPT]])[0]
    assert all(np.array_equal(a, b) for a, b in zip(logits, again, strict=True))
    assert pairs_of(model)


def test_operations_of_hooks_are_in_pairs_and_change_what_they_multiply(pairing: Context) -> None:
    tensors = synthetic(layers=3, width=64, version="v7")
    seen, push = rg.Buffer("seen", (64,)), rg.Buffer("push", (64,))
    push.write(np.linspace(-1, 1, 64, dtype=np.float32))
    hooks = rg.Hooks()

    @hooks.on(v7.PostFfnTokenShift(1))
    def keep(frame: v7.Frame) -> None:
        frame.ffn_kx = ops.softmax(frame.ffn_kx + push.tensor)
        ops.blit(frame.ffn_kx[-1], seen.tensor)

    answers = []
    for device in (pairing, "cpu"):
        model = Model.load(tensors, device)
        state = model.state()
        rows = [np.asarray(model.run_with_hooks([[token]], state, hooks)[0]) for token in PROMPT]
        answers.append((rows[-1].ravel(), seen.read().copy(), state.read(0)))
        if device is pairing:
            assert any("softmax" in relay.label for relay in pairs_of(model, hooks))
    for given, wanted in zip(*answers, strict=True):
        given, wanted = np.asarray(given), np.asarray(wanted)
        assert np.abs(given - wanted).max() <= 2e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("width", [128, 192])
def test_rows_wider_than_what_is_held_and_than_a_turn_of_threads(
    pairing: Context, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """Few threads stand in for many columns: a second held lane, a loop behind, more turns of a product.

    Of 128 columns a thread keeps four lanes while it prepares a product, of 192 it reads six again.
    """
    few = replace(
        tuning.GPU,
        row_threads=8,
        single_threads=8,
        share=replace(tuning.GPU.share, threads=8),
        matmul=(Shape("split", 8, 4, 1, max_tokens=1), *tuning.GPU.matmul[1:]),
    )
    monkeypatch.setattr(tuning, "GPU", few)
    tensors = synthetic(layers=2, width=width, version="v7")
    model, wanted = Model.load(tensors, pairing), expect(tensors, PROMPT)
    check_one_by_one(model, wanted)
    assert pairs_of(model)


def test_a_device_of_384_threads_a_workgroup(pairing: Context) -> None:
    limits = replace(pairing.target.limits, max_workgroup_invocations=384)
    context = Context.create()
    context.target = replace(pairing.target, limits=limits)
    tensors = synthetic(layers=2, width=128, version="v5.2")
    model, wanted = Model.load(tensors, context), expect(tensors, PROMPT)
    check_one_by_one(model, wanted)


def test_without_pairs_every_pass_is_a_dispatch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RWKVGRAPH_PAIRS", "0")
    assert not Context.create().target.pairs


def row_named(reduction: str, operand: str) -> Callable[[Tensor], Row]:
    """A row operation of a user's, less its largest element, with these names."""
    subtracted = f"{operand} - {reduction}"

    def numpy(self: Row, *arrays: np.ndarray) -> np.ndarray:
        return np.asarray(arrays[0] - arrays[0].max(-1, keepdims=True), np.float32)

    members = {
        "__doc__": "Less its largest element.",
        "__annotations__": {operand: Tensor},
        "reduce": (Reduction(reduction, operand, "max"),),
        "wgsl": subtracted,
        "numpy": numpy,
    }
    return dataclass(frozen=True, eq=False, repr=False)(type("Less", (Row,), members))


@pytest.mark.parametrize(("reduction", "operand"), [("held0", "x"), ("held1", "x"), ("most", "here")])
def test_names_of_a_users_operation_are_no_others(pairing: Context, reduction: str, operand: str) -> None:
    random = np.random.default_rng(0)
    source = rg.Buffer("source", (T, 64), role=Role.STATE)
    ends = [rg.Buffer("product", (T, 40), role=Role.STATE), rg.Buffer("row", (T, 64), role=Role.STATE)]
    with tape() as items:
        row = ops.multiply(
            row_named(reduction, operand)(source.tensor).result, holding(random.normal(size=64))
        )
        ops.blit(ops.matmul(matrix(random.normal(size=(40, 64))), row), ends[0].tensor)
        ops.blit(row, ends[1].tensor)
    graph, target = Graph(tuple(items)), pairing.target
    assert any(not relay.meets for relay in compile(graph, None, target).relays)
    contents = {source: random.normal(size=(1, 64)).astype(np.float32)}
    contents |= {end: np.zeros((1, width), np.float32) for end, width in zip(ends, (40, 64), strict=True)}
    check_graph(graph, pairing, contents, {T: 1}, target)


@pytest.mark.parametrize("shape", [Shape("split", 256, 4, 4), Shape("split", 4, 4, 1)], ids=str)
def test_tables_with_other_kernels_for_a_token_are_right(pairing: Context, shape: Shape) -> None:
    context = Context.create()
    context.target = replace(pairing.target, matmul=(replace(shape, max_tokens=1), *tuning.GPU.matmul[1:]))
    tensors = synthetic(layers=1, width=64, version="v5.2")
    model, wanted = Model.load(tensors, context), expect(tensors, PROMPT)
    check_one_by_one(model, wanted)


def test_the_kernel_for_one_token_may_serve_several(pairing: Context) -> None:
    """A table may have it alone: it takes a token a workgroup."""
    context = Context.create()
    context.target = replace(pairing.target, matmul=(Shape("split", 64, 4, 1),))
    tensors = synthetic(layers=2, width=64, version="v7")
    model, wanted = Model.load(tensors, context), expect(tensors, PROMPT)
    (logits,) = feed(model, model.state(), [[PROMPT]])
    wanted.check_logits(logits[0])
