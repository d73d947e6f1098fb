"""Bytes that a pass moves: what its operations read of buffers, slots and weights, and what they write.

Counted once a pass however often its workgroups ask for them; caches and padding of rows are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from rwkvgraph.compiler.plan import ELEMENT, Plan, Slot
from rwkvgraph.op import Buffer, Map, Tensor, TensorOp
from rwkvgraph.sight.stages import Lowered
from rwkvgraph.view import B, Dim, E, N, O, Sizes, T, View, resolve


def sizes_of(tokens: int) -> Sizes:
    """The sizes of a run of so many tokens in one slot, with the logits of the last."""
    return {T: tokens, O: 1, N: 1, B: 1, E: 1}


@dataclass(frozen=True)
class Traffic:
    """Bytes read and written, by what they lie in."""

    reads: Mapping[Buffer | Slot, int]
    writes: Mapping[Buffer | Slot, int]

    @property
    def read(self) -> int:
        """All bytes read."""
        return sum(self.reads.values())

    @property
    def written(self) -> int:
        """All bytes written."""
        return sum(self.writes.values())


def traffic_of(step: Lowered, plan: Plan, sizes: Sizes) -> Traffic:
    """What a pass reads and writes in a run of these sizes."""
    bound, inside = set(step.item.buffers), set(step.group.ops)
    reads: dict[Buffer | Slot, dict[object, int]] = {}
    writes: dict[Buffer | Slot, int] = {}
    for op in step.group.ops:
        updates = op.updates()
        for name, tensor in op.operands().items():
            home = _home(tensor, plan, inside)
            if home is None or home not in bound:
                continue
            count = elements_of(tensor, op, name, sizes) * tensor.dtype.bytes
            if name in updates:
                writes[home] = writes.get(home, 0) + count
            if name not in updates or op.kind == "wkv":
                seen = reads.setdefault(home, {})
                key = (id(tensor.source), _span(tensor.view))
                seen[key] = max(count, seen.get(key, 0))
        place = plan.places.get(op)
        if place is not None and place.slot in bound:
            count = prod(resolve(size, sizes) for size in op.shape) * ELEMENT
            writes[place.slot] = writes.get(place.slot, 0) + count
    _count_between(step, plan, sizes, reads, writes)
    return Traffic({home: sum(seen.values()) for home, seen in reads.items()}, writes)


def _count_between(
    step: Lowered,
    plan: Plan,
    sizes: Sizes,
    reads: dict[Buffer | Slot, dict[object, int]],
    writes: dict[Buffer | Slot, int],
) -> None:
    """Add what one of two kernels leaves for the other, where both run."""
    slot, op = plan.between.get(step.group), step.group.recurrence
    if slot is None or op is None or not step.item.runs(sizes) or step.item.variant(sizes).after is None:
        return
    count = prod(resolve(size, sizes) for size in op.shape) * ELEMENT
    reads[slot], writes[slot] = {slot: count}, count


def _home(tensor: Tensor, plan: Plan, inside: set[TensorOp]) -> Buffer | Slot | None:
    """What an operand lies in; None for a result that its pass keeps in registers."""
    if isinstance(tensor.source, Buffer):
        return tensor.source
    return None if tensor.source in inside else plan.places[tensor.source].slot


def _span(view: View) -> tuple[object, ...]:
    """What tells the elements of one view of a source from those of another, however they are arranged."""
    return view.offset, view.span(), view.from_last


def elements_of(tensor: Tensor, op: TensorOp, name: str, sizes: Sizes) -> int:
    """Distinct elements of an operand that an operation touches; of a table only the rows that it picks."""
    steps = zip(tensor.view.shape, tensor.view.strides, strict=True)
    counts = [resolve(size, sizes) for size, step in steps if step]
    picks = (op.rows() if isinstance(op, Map) else {}).get(name)
    writes_rows = isinstance(op, Map) and op.row != "i0" and name in op.updates()
    if counts and (picks or writes_rows):
        counts[0] = min(counts[0], _rows(op.shape[0], sizes))
    return prod(counts)


def _rows(size: int | Dim, sizes: Sizes) -> int:
    return resolve(size, sizes)
