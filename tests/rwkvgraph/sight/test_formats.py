"""Every stage as text, DOT, Mermaid, GraphML and JSON: read back, and taken by the programs they are for."""

import io
import json
import shutil
import subprocess
from importlib.resources import files
from typing import Any

import networkx as nx
import pytest

from rwkvgraph.graph import Graph
from rwkvgraph.sight.drawing import Drawing, draw, fold
from rwkvgraph.sight.formats import as_json, document, dot, graphml, mermaid, network, text_of
from rwkvgraph.sight.stages import STAGES, Stages
from tests.rwkvgraph.sight.conftest import ADDED_AT

NODES_OF = {
    "build": "site",
    "splice": "op",
    "simplify": "op",
    "fuse": "op",
    "plan": "slot",
    "program": "pass",
}


def contents(graph: Any) -> tuple[dict[int, Any], list[tuple[int, int, int, str]]]:
    """Nodes and edges with attributes, in an order of their own."""
    assert isinstance(graph, nx.MultiDiGraph)
    return dict(graph.nodes(data=True)), sorted(graph.edges(keys=True, data="why"))


def graph_at(stages: Stages, stage: str) -> Graph:
    return {"build": stages.build, "splice": stages.splice, "simplify": stages.simplified.graph}[stage]


@pytest.mark.parametrize("stage", STAGES)
def test_graphml_reads_back_to_the_same_graph(hooked: Stages, stage: str) -> None:
    drawing = draw(hooked, stage)
    back = nx.read_graphml(
        io.BytesIO(graphml(drawing).encode()), node_type=int, edge_key_type=int, force_multigraph=True
    )
    assert contents(back) == contents(network(drawing))
    assert (back.graph["stage"], back.graph["title"]) == (stage, drawing.title)


@pytest.mark.parametrize("stage", STAGES)
def test_json_reads_back_to_the_same_graph(hooked: Stages, stage: str) -> None:
    drawing = draw(hooked, stage)
    back = nx.node_link_graph(json.loads(as_json(drawing, hooked)), edges="edges")
    assert contents(back) == contents(network(drawing))
    assert back.graph == network(drawing).graph


@pytest.mark.parametrize("stage", ["build", "splice", "simplify"])
def test_nodes_and_edges_are_those_of_the_graph(hooked: Stages, stage: str) -> None:
    graph, drawing = graph_at(hooked, stage), draw(hooked, stage)
    ops = [node for node in drawing.nodes if node.kind == "op"]
    assert [node.facts["op"] for node in ops] == [op.name for op in graph.ops]
    assert [node.layer for node in ops] == [op.layer for op in graph.ops]
    number = {node.id: index for index, node in enumerate(ops)}
    edges = {(number[a.source], number[a.target], a.why) for a in drawing.links if a.why != "site"}
    assert edges == set(graph.dependencies)
    assert sum(node.kind == "site" for node in drawing.nodes) == len(graph.sites())


def test_fused_operations_know_their_pass(stages: Stages) -> None:
    drawing = draw(stages, "fuse")
    groups = [group for number, group in enumerate(stages.fused.groups) for _ in group.ops]
    assert [stages.fused.groups[node.inside or 0] for node in drawing.nodes] == groups


def test_an_edge_between_passes_goes_forward(hooked: Stages) -> None:
    drawing = draw(hooked, "program")
    assert [node.facts["label"] for node in drawing.nodes] == [item.label for item in hooked.program.passes]
    assert all(link.source < link.target for link in drawing.links)
    assert len({(link.source, link.target, link.why) for link in drawing.links}) == len(drawing.links)


def test_passes_write_and_read_slots(stages: Stages) -> None:
    drawing = draw(stages, "plan")
    slots = {node.id for node in drawing.nodes if node.kind == "slot"}
    assert len(slots) == len(stages.plan.slots)
    written = {link.target for link in drawing.links if link.why == "write"}
    read = {link.source for link in drawing.links if link.why == "read"}
    assert written == read == slots


def test_what_hooks_added_is_marked_with_its_line(hooked: Stages) -> None:
    for stage in ("splice", "simplify", "fuse"):
        added = [node.facts["where"] for node in draw(hooked, stage).nodes if node.facts.get("spliced")]
        assert set(added) == set(ADDED_AT)
    sites = [node for node in draw(hooked, "build").nodes if "hooks" in node.facts]
    assert [node.name for node in sites] == ["PostFfn(1)", "PostAttLinear(2)"]


@pytest.mark.parametrize("stage", STAGES)
def test_json_is_as_the_schema_says(hooked: Stages, stage: str) -> None:
    validator = pytest.importorskip("jsonschema", reason="pip install 'rwkvgraph[test]'").Draft202012Validator
    schema = json.loads((files("rwkvgraph.sight") / "graph.schema.json").read_text("utf-8"))
    validator.check_schema(schema)
    data = json.loads(as_json(draw(hooked, stage), hooked))
    assert not list(validator(schema).iter_errors(data))
    assert {node["kind"] for node in data["nodes"]} >= {NODES_OF[stage]}
    data["nodes"][0]["unheard of"] = 1
    assert list(validator(schema).iter_errors(data))


def test_json_has_every_shader_and_kind_that_nodes_name(stages: Stages) -> None:
    program = document(draw(stages, "program"), stages)
    assert {node["shader"] for node in program["nodes"]} <= program["shaders"].keys()
    tape = document(draw(stages, "simplify"), stages)
    assert {node["op"] for node in tape["nodes"]} == tape["kinds"].keys()
    assert "inverseSqrt" in str(tape["kinds"]["layer_norm"]["wgsl"])
    assert "np.sqrt" in tape["kinds"]["layer_norm"]["numpy"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("is_folded", [True, False])
def test_graphviz_takes_the_dot(hooked: Stages, stage: str, is_folded: bool) -> None:
    command = shutil.which("dot")
    if command is None:
        pytest.skip("graphviz is not installed: apt install graphviz")
    drawing = draw(hooked, stage)
    drawing = fold(drawing) if is_folded else drawing
    done = subprocess.run([command, "-Tsvg"], input=dot(drawing).encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert b"Warning" not in done.stderr
    assert done.stdout.count(b'class="node"') == len(drawing.nodes)
    assert done.stdout.count(b'class="edge"') == len(drawing.links)


def test_equal_layers_fold_into_one_node(stages: Stages) -> None:
    folded = fold(draw(stages, "simplify"))
    (one,) = [node for node in folded.nodes if node.kind == "layers"]
    assert one.name == "layers 2–4 as layer 1"
    assert {node.layer for node in folded.nodes} == {None, 0, 1}
    ids = {node.id for node in folded.nodes}
    assert {end for link in folded.links for end in (link.source, link.target)} <= ids


def test_a_hooked_layer_does_not_fold(hooked: Stages) -> None:
    folded = fold(draw(hooked, "simplify"))
    assert {node.layer for node in folded.nodes} >= {1, 2, 3}
    assert "layer 4 as layer 3" in {node.name for node in folded.nodes}


@pytest.mark.parametrize("stage", STAGES)
def test_mermaid_names_every_node_and_edge_once(hooked: Stages, stage: str) -> None:
    drawing = fold(draw(hooked, stage))
    lines = mermaid(drawing).splitlines()
    assert lines[0] == "flowchart TD"
    assert sum(line.count(" --> ") + line.count(" -.- ") + line.count(".-> ") for line in lines) == len(
        drawing.links
    )
    assert all(
        sum(line.strip().startswith(f"n{node.id}{mark}") for mark in "([" for line in lines)
        for node in drawing.nodes
    )
    assert sum(line.startswith("  subgraph") for line in lines) == lines.count("  end")


@pytest.mark.parametrize("stage", STAGES)
def test_text_is_the_dump(hooked: Stages, stage: str) -> None:
    assert text_of(hooked, stage) == str(hooked.value(stage))


def test_full_text_has_every_layer(stages: Stages) -> None:
    assert "as layer" in text_of(stages, "build")
    assert "as layer" not in text_of(stages, "build", full=True)
    assert text_of(stages, "build", full=True).count("PostFfn(") == 5


def test_a_stage_that_is_none_is_refused(stages: Stages) -> None:
    with pytest.raises(ValueError, match="no stage 'lower', only build, splice"):
        draw(stages, "lower")


def test_drawings_are_plain_values(hooked: Stages) -> None:
    drawing: Drawing = draw(hooked, "program", tokens=3)
    assert json.loads(json.dumps([dict(node.facts) for node in drawing.nodes]))
    assert drawing == draw(hooked, "program", tokens=3)
