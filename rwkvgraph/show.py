"""How tapes print: one line an operation, `%n` for results, equal layers folded into one line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rwkvgraph.op import Buffer, Tensor, TensorOp, format_shape


@dataclass(frozen=True)
class Line:
    """One line of a dump, and the layer it belongs to (None outside layers)."""

    text: str
    layer: int | None


def number_ops(ops: Iterable[TensorOp]) -> dict[int, str]:
    """`%0`, `%1`, … for each operation, by its `id`."""
    return {id(op): f"%{index}" for index, op in enumerate(ops)}


def operand_text(tensor: Tensor, names: dict[int, str]) -> str:
    """`%3`, `blocks.0.att.x[T, 256]`: an operand; the shape is written where a view changes it."""
    if isinstance(tensor.source, Buffer):
        spot = f"@{tensor.view.offset}" if tensor.view.offset else ""
        return f"{tensor.source.name}{spot}{format_shape(tensor.shape)}"
    name = names.get(id(tensor.source), "%?")
    if tensor.is_whole:
        return name
    last = "last " if tensor.view.from_last else ""
    return f"{name}{last and '[-1]'}{format_shape(tensor.shape)}"


def op_text(op: TensorOp, names: dict[int, str]) -> str:
    """`%3: f32[T, 512] = matmul(blocks.0.matrices[512, 256], %1)`."""
    updates = op.updates()
    parts = [
        ("&" if name in updates else "") + operand_text(tensor, names)
        for name, tensor in op.operands().items()
    ]
    parts += [f"{name}={value:g}" for name, value in op.parameters().items()]
    head = f"{names[id(op)]}: {op.dtype.value}{format_shape(op.shape)}"
    return f"{head} = {op.name}({', '.join(parts)})"


def op_lines(items: Sequence[Any], spliced: frozenset[int] = frozenset()) -> list[Line]:
    """One line an item: operations, with `+` and the user's file:line before spliced ones, and hook sites."""
    names = number_ops(item for item in items if isinstance(item, TensorOp))
    lines: list[Line] = []
    for item in items:
        if not isinstance(item, TensorOp):
            lines.append(Line(f"    -- {item.hook!r}", getattr(item.hook, "layer", None)))
        elif id(item) in spliced:
            lines.append(Line(f"+ {op_text(item, names)}   # {item.where}", item.layer))
        else:
            lines.append(Line(f"  {op_text(item, names)}", item.layer))
    return lines


def fold_layers(lines: Sequence[Line], full: bool = False) -> str:
    """The lines as text, a run of layers that equal the layer before it said in one line."""
    if full:
        return "\n".join(line.text for line in lines)
    chunks = _chunks(lines)
    out: list[str] = []
    index = 0
    while index < len(chunks):
        out += [line.text for line in chunks[index]]
        last = index
        while last + 1 < len(chunks) and _alike(chunks[index], chunks[last + 1]):
            last += 1
        if last > index:
            first, final = chunks[index + 1][0].layer, chunks[last][0].layer
            span = f"layer {first}" if first == final else f"layers {first}-{final}"
            out.append(f"  … {span}: as layer {chunks[index][0].layer} ({last - index} ×)")
        index = last + 1
    return "\n".join(out)


def _chunks(lines: Sequence[Line]) -> list[list[Line]]:
    chunks: list[list[Line]] = []
    for line in lines:
        if not chunks or chunks[-1][0].layer != line.layer:
            chunks.append([])
        chunks[-1].append(line)
    return chunks


def _alike(a: list[Line], b: list[Line]) -> bool:
    if a[0].layer is None or b[0].layer is None or len(a) != len(b):
        return False
    return [_without_layer(line) for line in a] == [_without_layer(line) for line in b]


def _without_layer(line: Line) -> str:
    """The line with what differs between layers taken out: numbers of results and slots, its own, offsets."""
    own = line.layer or 0
    text = re.sub(r"(%|@|\bslot)\d+", r"\1", line.text)
    text = re.sub(r"\.(\d+)\.", lambda match: f".{int(match[1]) - own:+d}.", text)  # of the layer before: -1
    return text.replace(f"({line.layer})", "(#)")
