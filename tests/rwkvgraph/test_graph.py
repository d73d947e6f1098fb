"""Tapes: the edges that their order implies, what is live, and how they print."""

import shutil
import subprocess

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings

from rwkvgraph import ops, v7
from rwkvgraph.errors import ShapeError
from rwkvgraph.graph import Graph
from rwkvgraph.hooks import Hooks
from rwkvgraph.model import Model
from rwkvgraph.op import Buffer, Tensor, tape
from rwkvgraph.splice import splice
from rwkvgraph.tensor import overlap
from rwkvgraph.testing import holding
from tests.rwkvgraph.models.synthetic import synthetic_v7
from tests.rwkvgraph.random_graphs import Sample, samples

STATE = Buffer("state", (4, 8))


def x() -> Tensor:
    return holding(np.ones(8))


def model(layers: int = 4) -> Model:
    return Model.load(
        synthetic_v7(layers, 8, head_size=4, hidden=8, vocab=5, low_rank=(4, 4, 4, 4)), device="cpu"
    )


def dependencies(items: list[object]) -> set[tuple[int, int, str]]:
    return set(Graph(tuple(items)).dependencies)  # type: ignore[arg-type]  # ops


def test_a_value_is_an_edge_from_its_maker_to_its_user() -> None:
    with tape() as items:
        a = ops.tanh(x())
        ops.add(a, ops.exp(a))
    assert dependencies(items) == {(0, 1, "data"), (0, 2, "data"), (1, 2, "data")}


def test_a_read_after_a_write_waits_for_it() -> None:
    with tape() as items:
        ops.blit(x(), STATE[1])
        ops.tanh(STATE[1])
        ops.tanh(STATE.tensor)
        ops.tanh(STATE[2])
    assert dependencies(items) == {(0, 1, "read after write"), (0, 2, "read after write")}


def test_a_write_waits_for_what_was_to_be_read_and_written_before() -> None:
    with tape() as items:
        ops.tanh(STATE[0])
        ops.blit(x(), STATE[0])
        ops.blit(x()[2:4], STATE[0, 2:4])
        ops.blit(x(), STATE[1])
    found = dependencies(items)
    assert (0, 1, "write after read") in found
    assert any(edge[:2] == (1, 2) and "after write" in edge[2] for edge in found)
    assert not any(later == 3 for _, later, _ in found)


def test_an_operation_does_not_wait_for_itself() -> None:
    with tape() as items:
        ops.blit(STATE[0], STATE[1])
    assert dependencies(items) == set()


def test_views_overlap_where_they_may_share_an_element() -> None:
    assert overlap(STATE[0], STATE.tensor)
    assert overlap(STATE[1:3], STATE[2])
    assert not overlap(STATE[0], STATE[1])
    assert not overlap(STATE[0, 0:4], STATE[0, 4:8])
    assert not overlap(STATE[0], Buffer("other", (4, 8))[0])


def test_what_neither_writes_nor_is_needed_is_not_live() -> None:
    with tape() as items:
        a, b, c = ops.tanh(x()), ops.exp(x()), ops.sigmoid(x())
        ops.blit(ops.add(a, a), STATE[0])
    graph = Graph(tuple(items))
    assert [op.name for op in graph.live().ops] == ["tanh", "add", "blit"]
    assert [op.name for op in graph.live((b,)).ops] == ["tanh", "exp", "add", "blit"]
    assert c.source not in graph.live((b,)).ops


def test_every_site_stays_where_only_operations_die() -> None:
    graph = model().graph
    assert graph.live().sites() == graph.sites()


def test_networkx_finds_an_order_and_no_circle() -> None:
    graph = model().graph
    edges = graph.edges()
    assert nx.is_directed_acyclic_graph(edges)
    assert edges.number_of_nodes() == len(graph.ops)
    assert nx.get_edge_attributes(edges, "why").keys() == set(edges.edges(keys=True))
    assert edges.nodes[0]["label"] == graph.ops[0].name


@settings(max_examples=50, deadline=None)
@given(samples())
def test_edges_point_forward(sample: Sample) -> None:
    assert all(earlier < later for earlier, later, _ in sample.graph.dependencies)


def test_a_dump_folds_layers_that_are_alike() -> None:
    graph = model(6).graph
    short, full = graph.text(), graph.text(full=True)
    assert "  … layers 2-5: as layer 1 (4 ×)" in short.splitlines()
    assert len(full.splitlines()) == len(graph.items)
    assert "    -- PostFfn(0)" in short
    assert "PostFfn(5)" not in short
    assert "PostFfn(5)" in full


def test_a_layer_with_a_hook_is_not_folded_away() -> None:
    hooks = Hooks()
    hooks.add(v7.PostFfn(3), lambda frame: setattr(frame, "x", ops.tanh(frame.x)))
    text = splice(model(6).graph, hooks).text()
    assert any(line.startswith("+ %") and "test_graph.py:" in line for line in text.splitlines())


def test_a_short_form_says_how_much_there_is() -> None:
    graph = model().graph
    assert repr(graph) == f"Graph({len(graph.ops)} ops, {len(graph.sites())} sites)"
    assert len(repr(graph.ops[0])) < 60


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
def test_graphviz_draws_the_picture() -> None:
    done = subprocess.run(
        ["dot", "-Tplain"], input=model(1).graph.dot(), capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("graph ")


def test_a_picture_has_a_node_an_operation_and_an_edge_a_dependency() -> None:
    graph = model(1).graph
    lines = graph.dot().splitlines()
    assert sum("[label=" in line for line in lines) == len(graph.ops)
    assert sum("->" in line for line in lines) == len(graph.dependencies)
    assert sum('color="red"' in line for line in lines) == sum(
        edge[2] == "write after read" for edge in graph.dependencies
    )
    assert graph.dot().count('"') % 2 == 0


def test_an_operation_knows_the_line_it_was_built_on() -> None:
    with tape() as items:
        x() + x()
    assert items[0].where.startswith("test_graph.py:")


def test_a_shape_that_does_not_fit_is_refused_where_it_is_built() -> None:
    with pytest.raises(
        ShapeError,
        match=r"add: shapes \(8,\), \(3,\) do not broadcast together \(built at test_graph.py:\d+\)",
    ):
        ops.add(x(), holding(np.ones(3)))
