"""Rewrite rules: each before and after, and that none of them changes what a graph does."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings

from rwkvgraph import ops
from rwkvgraph.compiler import simplify
from rwkvgraph.compiler.simplify import RULES
from rwkvgraph.graph import Graph
from rwkvgraph.op import Buffer, Tensor, in_layer, tape
from rwkvgraph.testing import holding, run_on_numpy
from tests.rwkvgraph.random_graphs import Sample, samples

AFFINE_TOLERANCE = 1e-6  # affine-of-affine rounds once where two affines round twice


def x() -> Tensor:
    return ops.tanh(holding(np.linspace(-2.0, 2.0, 12).reshape(3, 4)))


def graph_of(build: Callable[[], Tensor]) -> tuple[Graph, Buffer]:
    """A graph that keeps what is built, and the buffer it keeps it in."""
    with tape() as items:
        made = build()
        kept = Buffer("kept", tuple(size for size in made.shape if isinstance(size, int)))
        ops.blit(made, kept.tensor)
    return Graph(tuple(items)), kept


CASES: list[tuple[str, Callable[[], Tensor], list[str]]] = [
    ("drop-identity", lambda: ops.exp(ops.identity(x())), ["tanh", "exp", "blit"]),
    ("drop-identity", lambda: ops.identity(ops.identity(x())), ["tanh", "blit"]),
    ("drop-affine", lambda: ops.affine(x(), 1.0, 0.0), ["tanh", "blit"]),
    ("affine-of-affine", lambda: ops.affine(ops.affine(x(), 2.0, 3.0), 5.0, 7.0), ["tanh", "affine", "blit"]),
    ("affine-of-affine", lambda: (x() * 2.0 + 1.0 - 1.0) * 0.5, ["tanh", "blit"]),
    ("drop-identity", lambda: ops.identity(x()).reshape(4, 3)[1:], ["tanh", "blit"]),
]


@pytest.mark.parametrize(("rule", "build", "after"), CASES)
def test_a_rule_turns_before_into_after(rule: str, build: Callable[[], Tensor], after: list[str]) -> None:
    graph, kept = graph_of(build)
    simplified = simplify(graph)
    assert [op.name for op in simplified.graph.ops] == after
    assert rule in dict(simplified.fired)
    want, got = run_on_numpy(graph)[kept], run_on_numpy(simplified.graph)[kept]
    np.testing.assert_allclose(got, want, rtol=AFFINE_TOLERANCE, atol=AFFINE_TOLERANCE)


def test_every_rule_has_a_case() -> None:
    assert {rule.__name__.replace("_", "-") for rule in RULES} == {rule for rule, _, _ in CASES}


def test_a_part_of_a_result_is_no_identity_to_drop() -> None:
    graph, kept = graph_of(lambda: ops.affine(ops.affine(x(), 2.0, 1.0)[1:], 3.0, 0.0))
    np.testing.assert_array_equal(run_on_numpy(simplify(graph).graph)[kept], run_on_numpy(graph)[kept])


@pytest.mark.parametrize("keep", [ops.identity, lambda old: ops.affine(ops.affine(old, 2.0), 3.0)])
def test_what_was_read_before_a_write_stays_what_it_was(keep: Callable[[Tensor], Tensor]) -> None:
    state, out = Buffer("state", (4,)), Buffer("out", (4,))
    state.write(np.arange(4.0))
    with tape() as items:
        old = ops.affine(state.tensor, 2.0, 1.0) if keep is ops.identity else ops.affine(state.tensor, 2.0)
        ops.blit(holding(np.full(4, 9.0)), state.tensor)
        ops.blit(keep(old), out.tensor)
    graph = Graph(tuple(items))
    want, got = run_on_numpy(graph)[out], run_on_numpy(simplify(graph).graph)[out]
    np.testing.assert_allclose(got, want, rtol=AFFINE_TOLERANCE)


def test_an_identity_of_a_buffer_stays_for_the_buffer_may_change() -> None:
    state, out = Buffer("state", (4,)), Buffer("out", (4,))
    state.write(np.arange(4.0))
    with tape() as items:
        old = ops.identity(state.tensor)
        ops.blit(holding(np.full(4, 9.0)), state.tensor)
        ops.blit(old, out.tensor)
    assert run_on_numpy(simplify(Graph(tuple(items))).graph)[out].tolist() == [0, 1, 2, 3]


def test_what_nothing_needs_is_dropped_and_what_writes_is_not() -> None:
    captured = Buffer("captured", (3, 4))
    with tape() as items:
        ops.exp(ops.sigmoid(x()))
        ops.blit(x(), captured.tensor)
    simplified = simplify(Graph(tuple(items)))
    assert [op.name for op in simplified.graph.ops] == ["tanh", "blit"]
    assert dict(simplified.fired) == {"dead": 3}
    assert str(simplified).endswith("dead ×3")


def test_an_operation_that_a_rule_makes_belongs_where_the_old_one_did() -> None:
    with in_layer(4):
        graph, _ = graph_of(lambda: ops.affine(ops.affine(x(), 2.0), 3.0))
    old = graph.ops[2]
    new = simplify(graph).graph.ops[1]
    assert (new.name, new.layer, new.where) == ("affine", 4, old.where)


def test_operations_of_hooks_stay_marked_through_rules() -> None:
    graph, _ = graph_of(lambda: ops.affine(ops.affine(x(), 2.0), 3.0))
    spliced = frozenset(id(op) for op in graph.ops if op.name == "affine")
    after = simplify(Graph(graph.items, spliced)).graph
    assert [op.name for op in after.ops if id(op) in after.spliced] == ["affine"]


@settings(max_examples=60, deadline=None)
@given(samples())
def test_simplifying_a_random_graph_keeps_its_meaning(sample: Sample) -> None:
    want = run_on_numpy(sample.graph, sample.contents, sample.sizes)
    got = run_on_numpy(simplify(sample.graph).graph, sample.contents, sample.sizes)
    for buffer, values in got.items():
        np.testing.assert_allclose(values, want[buffer], rtol=1e-5, atol=1e-5, err_msg=str(buffer))
