"""Stages as the page shows them: sections (layers) of cards (passes) of rows (operations and hook sites).

Plain lists, dicts, texts and numbers. What differs between equal layers is kept to few values: references to
operations count from the section's first, and `{L}` in names is the section's own layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from rwkvgraph.compiler.variant import Variant
from rwkvgraph.graph import Graph
from rwkvgraph.hook import Site
from rwkvgraph.op import Buffer, Map, Tensor, TensorOp, format_shape
from rwkvgraph.sight.kinds import kind_of
from rwkvgraph.sight.stages import Beside, Lowered, Stages, hooked_at, position, sites_by_op, tensor_name
from rwkvgraph.sight.traffic import elements_of, sizes_of, traffic_of
from rwkvgraph.view import resolve

Value = dict[str, Any]


@dataclass
class Tables:
    """What rows refer to by number, each distinct thing once."""

    kinds: dict[type[TensorOp], int] = field(default_factory=dict)
    shaders: dict[str, int] = field(default_factory=dict)
    sites: dict[str, str] = field(default_factory=dict)

    def kind(self, op: TensorOp) -> int:
        """The number of an operation's class."""
        return self.kinds.setdefault(type(op), len(self.kinds))

    def shader(self, text: str) -> int:
        """The number of a shader."""
        return self.shaders.setdefault(text, len(self.shaders))

    def values(self) -> Value:
        """The tables as plain values."""
        kinds = [{"name": (kind := kind_of(cls)).name, **kind.facts()} for cls in self.kinds]
        return {"kinds": kinds, "shaders": list(self.shaders), "sites": self.sites}


class Writer:
    """Turns one stage's operations and sites into rows."""

    def __init__(
        self, stages: Stages, ops: Sequence[TensorOp], tables: Tables, tokens: int, beside: Beside
    ) -> None:
        self.stages = stages
        self.tables = tables
        self.sizes = sizes_of(tokens)
        self.number = {id(op): index for index, op in enumerate(ops)}
        self._origin = {at: op for op in ops if (at := position(op)) is not None}
        self._names = self._slot_names()
        self._sites = beside
        self.base = 0
        self.layer: int | None = None

    def begin(self, layer: int | None, ops: Sequence[TensorOp]) -> None:
        """Start a section: its own layer, and the first of its operations."""
        self.layer = layer
        self.base = min((self.number[id(op)] for op in ops), default=0)

    def rows(self, ops: Iterable[TensorOp]) -> list[Value]:
        """Operations, with the sites that stand between them."""
        found: list[Value] = []
        for op in ops:
            before, after = self._sites.get(id(op), ([], []))
            found += [self.site(site) for site in before]
            found.append(self.op(op))
            found += [self.site(site) for site in after]
        return found

    def op(self, op: TensorOp) -> Value:
        """One operation."""
        size = prod(resolve(size, self.sizes) for size in op.shape)
        row: Value = {
            "n": self.number[id(op)] - self.base,
            "k": self.tables.kind(op),
            "name": " ".join(self._names.get(id(op), ())),
            "shape": format_shape(op.shape),
            "dtype": op.dtype.value,
            "bytes": size * op.dtype.bytes,
            "in": [self._operand(op, name, tensor) for name, tensor in op.operands().items()],
            "par": [[name, f"{value:g}"] for name, value in op.parameters().items()],
            "at": str(op.where) if id(op) in self.stages.spliced else "",
            "built": str(op.where),
            "lives": self._lives(op),
        }
        return row

    def _lives(self, op: TensorOp) -> list[Any]:
        place = self.stages.plan.places.get(op)
        return [place.slot.name, place.column, place.stride] if place is not None else []

    def _operand(self, op: TensorOp, name: str, tensor: Tensor) -> list[Any]:
        """[field, reference or name, shape, how, bytes, buffer, first element, type, slot as written]"""
        rows = op.rows() if isinstance(op, Map) else {}
        how = "writes" if name in op.updates() else f"row {rows[name]}" if name in rows else ""
        how = "reads and writes" if how == "writes" and op.kind == "wkv" else how
        size = elements_of(tensor, op, name, self.sizes) * tensor.dtype.bytes
        if isinstance(tensor.source, Buffer):
            called = self.own(tensor_name(tensor, self.stages.subject.tensors))
            home = [self.own(tensor.source.name), tensor.view.offset]
            return [name, called, format_shape(tensor.shape), how, size, *home, tensor.dtype.value, ""]
        how = how or ("" if tensor.is_whole else "last row" if tensor.view.from_last else "a view")
        return [name, self._reference(tensor.source), format_shape(tensor.shape), how, size, "", 0,
                tensor.dtype.value, self._as_written(op, name)]  # fmt: skip

    def _as_written(self, op: TensorOp, name: str) -> str:
        """The slot by which the model reads an operand; copies of values have slots of their own."""
        at = position(op)
        source = None if at is None else self.stages.build.ops[at].operands()[name].source
        written = position(source)
        return self.stages.slot_names.get(-1 if written is None else written, ("",))[0]

    def _reference(self, op: TensorOp) -> int | None:
        """An operation of this stage, counted from the section's first; None where it has none left."""
        left = self._left_of(op)
        return None if left is None else self.number[id(left)] - self.base

    def _slot_names(self) -> dict[int, dict[str, None]]:
        """By `id` of an operation the slots that hold its result, those of copies that are gone last."""
        found: dict[int, dict[str, None]] = {}
        for is_copy in (False, True):
            for op in self.stages.build.ops:
                left, at = self._left_of(op), position(op)
                if left is not None and at is not None and (position(left) != at) == is_copy:
                    names = self.stages.slot_names.get(at, ())
                    found.setdefault(id(left), {}).update(dict.fromkeys(names))
        return found

    def _left_of(self, op: TensorOp) -> TensorOp | None:
        """What stands for an operation in this stage: itself as it is now, or what it was a copy of."""
        seen: TensorOp | None = op
        while seen is not None:
            at = position(seen)
            here = seen if id(seen) in self.number else self._origin.get(-1 if at is None else at)
            if here is not None:
                return here
            inner = [tensor for tensor in seen.operands().values() if tensor.is_whole]
            source = inner[0].source if len(inner) == 1 else None
            seen = source if isinstance(source, TensorOp) else None
        return None

    def site(self, site: Site) -> Value:
        """One hook site."""
        name = type(site.hook).__name__
        self.tables.sites[name] = " ".join((type(site.hook).__doc__ or "").split())
        slots: list[list[Any]] = []
        for slot, tensor in site.slots.items():
            source = tensor.source
            ref = self._reference(source) if isinstance(source, TensorOp) else self.own(source.name)
            slots.append([slot, ref, format_shape(tensor.shape)])
        return {"h": name, "l": getattr(site.hook, "layer", None) is not None, "slots": slots,
                "fn": hooked_at(self.stages.hooks, site.hook)}  # fmt: skip

    def own(self, name: str) -> str:
        """A name in which the section's own layer is `{L}`."""
        return name if self.layer is None else re.sub(rf"\.{self.layer}\.", ".{L}.", name)


def tape_sections(stages: Stages, graph: Graph, has_sites: bool, tables: Tables, tokens: int) -> list[Value]:
    """A stage before fusion: a card without a pass a layer."""
    beside = sites_by_op(graph.ops, stages.build) if has_sites else {}
    writer = Writer(stages, graph.ops, tables, tokens, beside)
    chunks: list[list[TensorOp]] = []
    for op in graph.ops:
        if not chunks or chunks[-1][0].layer != op.layer:
            chunks.append([])
        chunks[-1].append(op)
    found = []
    for ops in chunks:
        writer.begin(ops[0].layer, ops)
        found.append(_section(writer, [{"rows": writer.rows(ops)}]))
    return found


def pass_sections(
    stages: Stages, stage: str, tables: Tables, tokens: int, microseconds: dict[int, float]
) -> list[Value]:
    """Fusion and what follows: a card a pass. stage: fuse has no slots, plan has no shaders."""
    # Not beside what only writes, which may ride along anywhere: a site is to be found by its values.
    at_home = [op for op in stages.fused.ops() if op.kind == "wkv" or not op.updates()]
    writer = Writer(stages, stages.fused.ops(), tables, tokens, sites_by_op(at_home, stages.build))
    apart = _refusals(stages)
    chunks: list[list[Lowered]] = []
    for step in stages.lowered:
        if not chunks or chunks[-1][0].item.layer != step.item.layer:
            chunks.append([])
        chunks[-1].append(step)
    found = []
    for steps in chunks:
        writer.begin(steps[0].item.layer, [op for step in steps for op in step.group.ops])
        cards = [_card(writer, step, stage, microseconds, apart.get(step.group_index, [])) for step in steps]
        found.append(_section(writer, cards) | {"first": steps[0].index})
    return found


def _section(writer: Writer, cards: list[Value]) -> Value:
    return {"layer": writer.layer, "base": writer.base, "cards": cards}


def _refusals(stages: Stages) -> dict[int, list[tuple[TensorOp, TensorOp, str]]]:
    home = {id(op): index for index, group in enumerate(stages.fused.groups) for op in group.ops}
    found: dict[int, list[tuple[TensorOp, TensorOp, str]]] = {}
    for item in stages.fused.refusals:
        found.setdefault(home[id(item.later)], []).append((item.earlier, item.later, item.reason))
    return found


def _card(
    writer: Writer,
    step: Lowered,
    stage: str,
    microseconds: dict[int, float],
    apart: list[tuple[TensorOp, TensorOp, str]],
) -> Value:
    stages, number, base = writer.stages, writer.number, writer.base
    moved = traffic_of(step, stages.plan, writer.sizes)
    card: Value = {
        "label": step.item.label,
        "kind": step.group.kind,
        "rows": writer.rows(step.group.ops),
        "apart": [[number[id(a)] - base, number[id(b)] - base, reason] for a, b, reason in apart],
        "needs": " ".join(dim.name for dim in step.item.needs),
        "read": moved.read,
        "written": moved.written,
        "us": round(microseconds[step.index], 2) if step.index in microseconds else None,
    }
    if stage == "fuse":
        return card
    variant = step.item.variant(writer.sizes)
    card["binds"] = [
        [writer.own(home.name), _access(binding.writable, binding.is_texture), binding.element,
         moved.reads.get(home, 0), moved.writes.get(home, 0)]
        for home, binding in zip(step.item.bound(variant), variant.source.bindings, strict=True)
    ]  # fmt: skip
    card["variants"] = _variants(writer, step) if stage == "program" else []
    return card


def _access(is_writable: bool, is_texture: bool) -> str:
    return "texture" if is_texture else "read_write" if is_writable else "read"


def _variants(writer: Writer, step: Lowered) -> list[list[Any]]:
    """[shader, for which rows, workgroups, threads, whether it is the one that runs] of each kernel."""
    limit = writer.stages.target.limits.max_workgroups_per_dimension
    chosen = step.item.variant(writer.sizes)
    found: list[list[Any]] = []
    before = None
    for variant in step.item.variants:
        for kernel in variant.kernels:
            grid = " × ".join(map(str, kernel.grid.at(writer.sizes, limit)))
            shader = writer.tables.shader(kernel.source.text)
            is_run = variant is chosen and kernel is variant
            label = _rows_of(variant, before) if kernel is variant else "then"
            found.append([shader, label, grid, kernel.source.threads, is_run])
        before = variant
    return found


def _rows_of(variant: Variant, before: Variant | None) -> str:
    """Which rows a kernel is for, that comes after another."""
    most, fewer = variant.max_rows, before.max_rows or 0 if before else 0
    if variant.is_one_each:
        return "1 row a slot"
    if variant.min_each:
        return f"{variant.min_each} rows a slot and more, to {variant.max_groups} workgroups"
    if most is None:
        return "any rows" if before is None else "other rows" if before.min_each else "more rows"
    if most == fewer + 1:
        return "1 row" if most == 1 else f"{most} rows"
    return f"to {most} rows"
