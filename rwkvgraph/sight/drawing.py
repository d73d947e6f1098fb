"""A stage as nodes and edges: what DOT, Mermaid, GraphML and JSON are written from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rwkvgraph.graph import Edge as Dependency
from rwkvgraph.graph import Graph
from rwkvgraph.hook import Site
from rwkvgraph.op import Buffer, Tensor, TensorOp, format_shape
from rwkvgraph.show import number_ops, op_text, operand_text
from rwkvgraph.sight.stages import Lowered, Stages, hooked_at, position, tensor_name
from rwkvgraph.sight.traffic import sizes_of, traffic_of

Fact = str | int | float | bool
Microseconds = Mapping[int, float]
"""By pass."""


@dataclass(frozen=True)
class Node:
    """An operation, a hook site, a pass or a slot. name: unique, as dumps number it. inside: its pass."""

    id: int
    kind: str
    name: str
    layer: int | None
    facts: Mapping[str, Fact] = field(default_factory=dict)
    inside: int | None = None


@dataclass(frozen=True)
class Link:
    """An edge, by the nodes' ids. why: data, a hazard, "site", or what a pass does to a slot."""

    source: int
    target: int
    why: str


@dataclass(frozen=True)
class Drawing:
    """A stage's nodes in order of execution, and its edges."""

    stage: str
    title: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]


def draw(stages: Stages, stage: str, tokens: int = 1, times: Microseconds | None = None) -> Drawing:
    """A stage as nodes and edges. tokens: of the run whose bytes are counted. Raises ValueError."""
    stages.value(stage)
    title = f"{stages.subject.info}: {stage}"
    match stage:
        case "build":
            return _draw_tape(stages, stage, title, stages.build)
        case "splice":
            return _draw_tape(stages, stage, title, stages.splice)
        case "simplify":
            return _draw_tape(stages, stage, title, stages.simplified.graph)
        case "fuse":
            return _draw_groups(stages, title)
        case _:
            return _draw_passes(stages, stage, title, tokens, times or {})


def _draw_tape(stages: Stages, stage: str, title: str, graph: Graph) -> Drawing:
    names = number_ops(graph.ops)
    nodes: list[Node] = []
    links: list[Link] = []
    ids: dict[int, int] = {}
    last: int | None = None
    for item in graph.items:
        at = len(nodes)
        if isinstance(item, TensorOp):
            ids[id(item)] = last = at
            nodes.append(
                Node(at, "op", f"{names[id(item)]} {item.name}", item.layer, _op(item, stages, names))
            )
        else:
            nodes.append(_site(at, item, stages, names))
            links += [] if last is None else [Link(last, at, "site")]
    links += [Link(ids[id(graph.ops[a])], ids[id(graph.ops[b])], why) for a, b, why in graph.dependencies]
    return Drawing(stage, title, tuple(nodes), tuple(links))


def _op(op: TensorOp, stages: Stages, names: dict[int, str]) -> dict[str, Fact]:
    facts: dict[str, Fact] = {
        "op": op.name,
        "skeleton": op.kind,
        "shape": format_shape(op.shape),
        "dtype": op.dtype.value,
        "text": op_text(op, names),
    }
    at = position(op)
    if at is not None and at in stages.slot_names:
        facts["slots"] = " ".join(stages.slot_names[at])
    weights = [tensor_name(tensor, stages.subject.tensors) for tensor in _buffers(op)]
    if weights:
        facts["buffers"] = " ".join(dict.fromkeys(weights))
    if id(op) in stages.spliced:
        facts |= {"spliced": True, "where": str(op.where)}
    return facts


def _buffers(op: TensorOp) -> list[Tensor]:
    return [tensor for tensor in op.operands().values() if isinstance(tensor.source, Buffer)]


def _site(at: int, site: Site, stages: Stages, names: dict[int, str]) -> Node:
    slots = ", ".join(f"{name} = {operand_text(tensor, names)}" for name, tensor in site.slots.items())
    facts: dict[str, Fact] = {"slots": slots}
    functions = hooked_at(stages.hooks, site.hook)
    if functions:
        facts["hooks"] = ", ".join(functions)
    return Node(at, "site", repr(site.hook), getattr(site.hook, "layer", None), facts)


def _draw_groups(stages: Stages, title: str) -> Drawing:
    ops = stages.fused.ops()
    names = number_ops(ops)
    place = {id(op): index for index, op in enumerate(ops)}
    nodes: list[Node] = []
    for number, group in enumerate(stages.fused.groups):
        for op in group.ops:
            facts = _op(op, stages, names) | {"pass": number}
            nodes.append(
                Node(len(nodes), "op", f"{names[id(op)]} {op.name}", group.layer, facts, inside=number)
            )
    graph = stages.simplified.graph
    links = _moved(graph.dependencies, lambda at: [place[id(graph.ops[at])]])
    return Drawing("fuse", title, tuple(nodes), links)


def _moved(edges: Iterable[Dependency], to: Callable[[int], Sequence[int]]) -> tuple[Link, ...]:
    """Dependencies between operations as edges between whatever they became, each once and none to itself."""
    found = (Link(a, b, why) for earlier, later, why in edges for a in to(earlier) for b in to(later))
    return tuple(dict.fromkeys(link for link in found if link.source != link.target))


def _draw_passes(stages: Stages, stage: str, title: str, tokens: int, times: Microseconds) -> Drawing:
    nodes = [
        Node(step.index, "pass", f"{step.index} {step.item.label}", step.item.layer,
             pass_facts(step, stages, tokens, times.get(step.index)))
        for step in stages.lowered
    ]  # fmt: skip
    if stage == "plan":
        return Drawing(stage, title, *_with_slots(stages, nodes))
    graph = stages.simplified.graph
    home: dict[int, list[int]] = {}
    for step in stages.lowered:
        for op in step.group.ops:
            home.setdefault(id(op), []).append(step.index)
    links = _moved(graph.dependencies, lambda at: home[id(graph.ops[at])])
    return Drawing(stage, title, tuple(nodes), tuple(link for link in links if link.source < link.target))


def pass_facts(step: Lowered, stages: Stages, tokens: int, microseconds: float | None) -> dict[str, Fact]:
    """What there is to say of a pass in one word or number each."""
    sizes = sizes_of(tokens)
    variant = step.item.variant(sizes)
    moved = traffic_of(step, stages.plan, sizes)
    grid = variant.grid.at(sizes, stages.target.limits.max_workgroups_per_dimension)
    facts: dict[str, Fact] = {
        "label": step.item.label,
        "skeleton": step.group.kind,
        "binds": " ".join(buffer.name for buffer in step.item.buffers),
        "shader": shader_name(variant.source.label, variant.source.text),
        "workgroups": "×".join(map(str, grid)),
        "threads": variant.source.threads,
        "bytes_read": moved.read,
        "bytes_written": moved.written,
    }
    if microseconds is not None:
        facts["microseconds"] = round(microseconds, 3)
        facts["gigabytes_per_second"] = speed(moved.read + moved.written, microseconds)
    return facts


def speed(moved: int, microseconds: float) -> float:
    """Gigabytes (10⁹) a second."""
    return round(moved / max(microseconds, 1e-3) / 1e3, 2)


def shader_name(label: str, text: str) -> str:
    """A shader's name: its label, and a few digits that differ where texts do."""
    return f"{label}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _with_slots(stages: Stages, nodes: list[Node]) -> tuple[tuple[Node, ...], tuple[Link, ...]]:
    """The passes, and the slots that they write and read."""
    slots = {
        slot: Node(len(nodes) + index, "slot", slot.name, None,
                   {"rows": str(slot.rows), "elements": slot.width, "residents": len(slot.residents)})
        for index, slot in enumerate(stages.plan.slots)
    }  # fmt: skip
    links: list[Link] = []
    sizes = sizes_of(1)
    for step in stages.lowered:
        moved = traffic_of(step, stages.plan, sizes)
        links += [Link(node.id, step.index, "read") for slot, node in slots.items() if slot in moved.reads]
        links += [Link(step.index, node.id, "write") for slot, node in slots.items() if slot in moved.writes]
    return (*nodes, *slots.values()), tuple(links)


def fold(drawing: Drawing) -> Drawing:
    """Runs of equal layers as one node each: "layers 2–22 as layer 1"."""
    chunks = _chunks(drawing.nodes)
    stands_for: dict[int, int] = {}
    nodes: list[Node] = []
    index = 0
    while index < len(chunks):
        last = index
        while last + 1 < len(chunks) and _signature(chunks[last + 1]) == _signature(chunks[index]):
            last += 1
        nodes += chunks[index]
        stands_for |= {node.id: node.id for node in chunks[index]}
        if last > index:
            first, final = chunks[index + 1][0].layer, chunks[last][0].layer
            span = f"layer {first}" if first == final else f"layers {first}–{final}"
            one = Node(chunks[index + 1][0].id, "layers", f"{span} as layer {chunks[index][0].layer}", None,
                       {"count": last - index})  # fmt: skip
            nodes.append(one)
            stands_for |= {node.id: one.id for chunk in chunks[index + 1 : last + 1] for node in chunk}
        index = last + 1
    links = (Link(stands_for[a.source], stands_for[a.target], a.why) for a in drawing.links)
    kept = tuple(dict.fromkeys(link for link in links if link.source != link.target))
    return replace(drawing, nodes=tuple(nodes), links=kept)


def _chunks(nodes: Sequence[Node]) -> list[list[Node]]:
    chunks: list[list[Node]] = []
    for node in nodes:
        if not chunks or chunks[-1][0].layer != node.layer:
            chunks.append([])
        chunks[-1].append(node)
    return chunks


def _signature(chunk: Sequence[Node]) -> tuple[object, ...]:
    """What equal layers agree in. Layerless nodes never fold: each chunk of them is itself."""
    if chunk[0].layer is None:
        return (chunk[0].id,)
    keys = ("op", "shape", "label", "spliced", "where", "hooks", "workgroups")
    start = chunk[0].inside or 0
    return tuple(
        (node.kind, *(node.facts.get(key) for key in keys), node.inside is not None and node.inside - start,
         node.name.partition("(")[0] if node.kind == "site" else "")
        for node in chunk
    )  # fmt: skip
