"""The formats of `rwkvgraph graph` that are text: dumps, DOT, Mermaid, GraphML and JSON."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from rwkvgraph.op import TensorOp
from rwkvgraph.sight.drawing import Drawing, Fact, Node, shader_name, speed
from rwkvgraph.sight.kinds import kind_of
from rwkvgraph.sight.stages import Stages
from rwkvgraph.sight.timing import Timing
from rwkvgraph.sight.traffic import sizes_of, traffic_of

if TYPE_CHECKING:
    import networkx as nx

TEXT_COLOURS = {"map": "#e8eef7", "row": "#e6f2ec", "matmul": "#faf0dc", "wkv": "#f6e6ee"}
EDGE_COLOURS = {
    "data": "#334155",
    "read after write": "#2563eb",
    "write after read": "#dc2626",
    "write after write": "#9333ea",
    "site": "#94a3b8",
    "read": "#2563eb",
    "write": "#dc2626",
}


def text_of(stages: Stages, stage: str, full: bool = False, timing: Timing | None = None) -> str:
    """A stage's dump, and the passes with their times where there are some.

    Equal layers are folded unless `full`, which is for stages before fusion.
    """
    value = stages.value(stage)
    tapes = {"build": stages.build, "splice": stages.splice, "simplify": stages.simplified.graph}
    text = tapes[stage].text(full=True) if full and stage in tapes else str(value)
    return text if timing is None else f"{text}\n\n{timed_passes(stages, timing)}"


def timed_passes(stages: Stages, timing: Timing) -> str:
    """One line a pass: its number, label, bytes read and written, microseconds, gigabytes a second."""
    sizes, lines = sizes_of(timing.tokens), []
    for step in stages.lowered:
        us = timing.microseconds.get(step.index)
        if us is not None:
            moved = traffic_of(step, stages.plan, sizes)
            total = moved.read + moved.written
            figures = f"{total:>13,} B {us:>10,.1f} µs {speed(total, us):>8,.1f} GB/s"
            lines.append(f"{step.index:>4} {figures}   {step.item.label}")
    lines.append(f"{timing.total:,.1f} µs for T = {timing.tokens} on {timing.adapter}; {timing.method}")
    return "\n".join(lines)


def dot(drawing: Drawing) -> str:
    """DOT. Layers, or passes of operations, are clusters; Netron, which shows names, reads it too."""
    lines = [
        "digraph rwkvgraph {",
        f"  label={_quoted(drawing.title)}; labelloc=t;",
        '  graph [fontname="Helvetica", nodesep=0.25, ranksep=0.4];',
        '  node [shape=box, style="rounded,filled", fillcolor="#ffffff", fontname="Helvetica", fontsize=11];',
        '  edge [arrowsize=0.6, fontname="Helvetica", fontsize=9];',
    ]
    names = {node.id: _quoted(node.name) for node in drawing.nodes}
    lines += [f"  {names[node.id]} [{_dot_attributes(node)}];" for node in drawing.nodes]
    for link in drawing.links:
        style = "style=dashed, arrowhead=none, " if link.why == "site" else ""
        colour = f'color="{EDGE_COLOURS[link.why]}"'
        lines.append(
            f"  {names[link.source]} -> {names[link.target]} [{style}{colour}, why={_quoted(link.why)}];"
        )
    # Members last, as names alone: Netron does not look for nodes in clusters.
    for number, (title, members) in enumerate(_clusters(drawing).items()):
        inside = " ".join(f"{names[node.id]};" for node in members)
        lines.append(f'  subgraph cluster_{number} {{ label={_quoted(title)}; color="#cbd5e1"; {inside} }}')
    return "\n".join([*lines, "}"])


def _dot_attributes(node: Node) -> str:
    rows = [node.name]
    rows += [str(node.facts[key]) for key in ("slots", "shape") if key in node.facts and node.kind != "site"]
    if "microseconds" in node.facts:
        rows.append(f"{node.facts['microseconds']} µs, {node.facts['gigabytes_per_second']} GB/s")
    colour = TEXT_COLOURS.get(str(node.facts.get("skeleton")), "#ffffff")
    found = {"label": "\n".join(rows), "fillcolor": "#fde68a" if node.facts.get("spliced") else colour}
    if node.kind in ("site", "slot"):
        found["shape"] = "ellipse" if node.kind == "site" else "cylinder"
    shown = {"shape": "tensor", "label": "operations"}  # not to be taken for graphviz's own
    found |= {shown.get(key, key): str(value) for key, value in node.facts.items()}
    return ", ".join(f"{key}={_quoted(value)}" for key, value in found.items())


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _clusters(drawing: Drawing) -> dict[str, list[Node]]:
    found: dict[str, list[Node]] = {}
    for node in drawing.nodes:
        if node.inside is not None:
            found.setdefault(f"pass {node.inside}", []).append(node)
        elif node.layer is not None:
            found.setdefault(f"layer {node.layer}", []).append(node)
    return found


def mermaid(drawing: Drawing) -> str:
    """A Mermaid flowchart, for Markdown. Renderers take up to 500 edges by default: fold large models."""
    lines = ["flowchart TD", f"  %% {drawing.title}"]
    clusters = _clusters(drawing)
    held = {node.id for members in clusters.values() for node in members}
    lines += [f"  {_mermaid_node(node)}" for node in drawing.nodes if node.id not in held]
    for number, (title, members) in enumerate(clusters.items()):
        lines += [
            f'  subgraph c{number} ["{title}"]',
            *(f"    {_mermaid_node(node)}" for node in members),
            "  end",
        ]
    for link in drawing.links:
        arrow = {"data": "-->", "site": "-.-"}.get(link.why, f"-. {link.why} .->")
        lines.append(f"  n{link.source} {arrow} n{link.target}")
    spliced = [f"n{node.id}" for node in drawing.nodes if node.facts.get("spliced")]
    if spliced:
        lines += ["  classDef spliced fill:#fde68a,color:#1f2937", f"  class {','.join(spliced)} spliced"]
    return "\n".join(lines)


def _mermaid_node(node: Node) -> str:
    shape = f"<br/>{node.facts['shape']}" if "shape" in node.facts else ""
    text = f"{node.name}{shape}".replace('"', "#quot;").replace("%", "#37;")
    left, right = {"site": ("([", "])"), "slot": ("[(", ")]")}.get(node.kind, ("[", "]"))
    return f'n{node.id}{left}"{text}"{right}'


def network(drawing: Drawing) -> nx.MultiDiGraph[int]:
    """The stage for networkx: nodes and edges in order, with attributes of plain types; keys number edges."""
    import networkx as nx  # 0.3 s to import, and only GraphML and JSON need it

    graph: nx.MultiDiGraph[int] = nx.MultiDiGraph(stage=drawing.stage, title=drawing.title)
    for node in drawing.nodes:
        facts: dict[str, Fact] = {"kind": node.kind, "name": node.name, **node.facts}
        if node.layer is not None:
            facts["layer"] = node.layer
        graph.add_node(node.id, **facts)
    for key, link in enumerate(drawing.links):
        graph.add_edge(link.source, link.target, key=key, why=link.why)
    return graph


def graphml(drawing: Drawing) -> str:
    """GraphML, as networkx writes it; `read_graphml(…, node_type=int, edge_key_type=int)` reads it back."""
    import networkx as nx  # see network()

    file = io.BytesIO()
    nx.write_graphml(network(drawing), file, encoding="utf-8", named_key_ids=True)
    return file.getvalue().decode()


def document(drawing: Drawing, stages: Stages, timing: Timing | None = None) -> dict[str, Any]:
    """The stage in networkx's node-link form, with what nodes refer to: kinds of operation and shaders.

    `networkx.node_link_graph(document, edges="edges")` reads it back. `graph.schema.json` describes it.
    """
    import networkx as nx  # see network()

    found: dict[str, Any] = nx.node_link_data(network(drawing), edges="edges")
    used = {node.facts["op"] for node in drawing.nodes if "op" in node.facts}
    ops: tuple[TensorOp, ...] = (*stages.splice.ops, *stages.simplified.graph.ops)
    classes = dict.fromkeys(type(op) for op in ops if op.name in used)
    found["kinds"] = {(kind := kind_of(cls)).name: kind.facts() for cls in classes}
    found["timing"] = timing and {"method": timing.method, "adapter": timing.adapter, "tokens": timing.tokens}
    found["shaders"] = {}
    if drawing.stage == "program":
        found["shaders"] = {shader_name(s.label, s.text): s.text for s in stages.program.sources()}
    return found


def as_json(drawing: Drawing, stages: Stages, timing: Timing | None = None) -> str:
    """`document` as text."""
    return json.dumps(document(drawing, stages, timing), ensure_ascii=False, indent=1)
