"""Scratch memory: which slot holds the results that pass from one group to another, and for how long."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from rwkvgraph.compiler.domain import find_domain
from rwkvgraph.compiler.fuse import Group
from rwkvgraph.compiler.heads import parts_of_head
from rwkvgraph.compiler.target import Target
from rwkvgraph.op import Tensor, TensorOp
from rwkvgraph.show import number_ops
from rwkvgraph.view import Size, Sizes, resolve, row_width, split_rows

ELEMENT = 4
"""Bytes of a scratch element: activations are f32."""


@dataclass(eq=False)
class Slot:
    """One scratch buffer of `rows` rows; `width` elements a row are the most that a group keeps in it."""

    index: int
    rows: Size
    width: int
    residents: list[TensorOp] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The slot's name in dumps."""
        return f"slot{self.index}"

    def bytes(self, sizes: Sizes) -> int:
        """Size for a run of these sizes."""
        return ELEMENT * self.width * resolve(self.rows, sizes)

    def __repr__(self) -> str:
        return f"{self.name}: {ELEMENT}·{self.rows}·{self.width} B"


@dataclass(frozen=True)
class Place:
    """Where a result lies: `column` is its first element in each row, `stride` elements from row to row."""

    slot: Slot
    column: int
    stride: int


@dataclass(frozen=True, eq=False)
class Plan:
    """The slots, and the place of every result that more than one group touches.

    between: of groups that two kernels may run, the slot in which one leaves what the other goes on with. It
    is unused where lowering finds that they cannot.
    """

    slots: tuple[Slot, ...]
    places: dict[TensorOp, Place]
    between: dict[Group, Slot] = field(default_factory=dict)

    def bytes(self, sizes: Sizes) -> int:
        """Scratch memory for a run of these sizes."""
        return sum(slot.bytes(sizes) for slot in self.slots)

    def __str__(self) -> str:
        names = number_ops(op for slot in self.slots for op in slot.residents)
        lines = []
        for slot in self.slots:
            shown = " ".join(f"{names[id(op)]}:{op.name}" for op in slot.residents[:12])
            shown += " …" if len(slot.residents) > 12 else ""
            count = sum(slot is other for other in self.between.values())
            shown += f" between two kernels of {count} groups" if count else ""
            lines.append(f"{slot!r}   {len(slot.residents)} results: {shown}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Plan({len(self.slots)} slots for {len(self.places)} results)"


class _Pool:
    """The slots that there are, and which of them are free.

    alike: whether a place of a layer (which group of it, which of its results) is to have the slot that
    the same place of the layer before had.
    """

    def __init__(self, alike: bool) -> None:
        self.slots: list[Slot] = []
        self._alike = alike
        self._taken: dict[tuple[int, int], Slot] = {}
        self._free: dict[Size, list[Slot]] = defaultdict(list)

    def give_back(self, slot: Slot) -> None:
        """Let a slot be taken again."""
        self._free[slot.rows].append(slot)

    def take(self, rows: Size, width: int, place: tuple[int, int]) -> Slot:
        """The slot that the place took before, or the free one that fits best; a new one if need be."""
        free = self._free[rows]
        before = self._taken.get(place)
        if before in free and before.width >= width:
            slot = before
        else:
            fitting = [slot for slot in free if before is None or not self._is_wanted(slot)]
            best = self._best(fitting, width)
            slot = Slot(len(self.slots), rows, width) if best is None else best
        if slot in free:
            free.remove(slot)
        else:
            self.slots.append(slot)
        if self._alike:
            self._taken[place] = slot
        return slot

    def _is_wanted(self, slot: Slot) -> bool:
        """Whether a place of the next layer will want it again."""
        return slot in self._taken.values()

    def _best(self, free: list[Slot], width: int) -> Slot | None:
        """The smallest that is wide enough, else the widest, grown."""
        enough = [slot for slot in free if slot.width >= width]
        if enough:
            return min(enough, key=lambda slot: slot.width)
        if not free:
            return None
        slot = max(free, key=lambda slot: slot.width)
        slot.width = width
        return slot


def plan_for(groups: Sequence[Group], target: Target) -> Plan:
    """The plan for a kind of device."""
    by_layer = target.resident > 0 and not target.coherent
    is_gpu = target.kind == "gpu"
    parted = [group for group in groups if is_gpu and _is_parted(group, target)]
    return plan(groups, by_layer=by_layer, by_pair=is_gpu, alike=target.coherent, parted=parted)


def plan(
    groups: Sequence[Group],
    *,
    by_layer: bool = False,
    by_pair: bool = False,
    alike: bool = False,
    parted: Sequence[Group] = (),
) -> Plan:
    """Give every result that leaves its group a place; slots are used again when their last reader has run.

    Results of a group with equal rows lie side by side in one slot, so that a pass binds one buffer for them.
    A slot is never free for the group that reads it last, so no pass has one buffer on both sides.
    by_layer: nor for any other group of the same layer, so that in a relay each is written once. by_pair: nor
    for the next group, which may run at the same time. alike: what the same place of the layer before took
    is taken again, so that layers that are alike bind the same. parted: the groups of recurrences whose heads
    workgroups may share; each has a slot for its results.
    """
    pool = _Pool(alike)
    places, between = _places(groups, pool, by_layer, by_pair, parted)
    return Plan(tuple(pool.slots), places, between)


def _places(
    groups: Sequence[Group], pool: _Pool, by_layer: bool, by_pair: bool, parted: Sequence[Group]
) -> tuple[dict[TensorOp, Place], dict[Group, Slot]]:
    """The place of every result, and the slots of these groups' own."""
    ends, walked = _last_uses(groups), _walked(groups)
    ending: dict[int, list[Slot]] = defaultdict(list)
    places: dict[TensorOp, Place] = {}
    between: dict[Group, Slot] = {}
    waiting: list[Slot] = []
    turn = -1
    for index, group in enumerate(groups):
        turn = 0 if index and groups[index - 1].layer != group.layer else turn + 1
        for part, (rows, ops) in enumerate(_leaving(group, ends, walked)):
            slot = pool.take(rows, sum(row_width(op.shape) for op in ops), (turn, part))
            places |= _side_by_side(slot, ops)
            slot.residents += ops
            ending[max(ends[op] for op in ops)].append(slot)
        if group in parted:
            between[group] = _own(group, pool, turn)
            ending[index].append(between[group])
        waiting += ending.pop(index - 1 if by_pair else index, ())
        if by_layer and index + 1 < len(groups) and groups[index + 1].layer == group.layer:
            continue
        for slot in waiting:
            pool.give_back(slot)
        waiting.clear()
    return places, between


def _side_by_side(slot: Slot, ops: Sequence[TensorOp]) -> dict[TensorOp, Place]:
    """The places of results in the rows of a slot."""
    ends = list(accumulate(row_width(op.shape) for op in ops))
    return {op: Place(slot, end - row_width(op.shape), ends[-1]) for op, end in zip(ops, ends, strict=True)}


def _own(group: Group, pool: _Pool, turn: int) -> Slot:
    """A slot for the results of a group's recurrence."""
    op = group.recurrence
    assert op is not None, "only recurrences have heads"
    return pool.take(split_rows(op.shape)[0], row_width(op.shape), (turn, len(group.ops)))


def _is_parted(group: Group, target: Target) -> bool:
    """Whether workgroups may share the heads of a group's recurrence."""
    op = group.recurrence
    domain = find_domain(group.ops) if op is not None else None
    return op is not None and domain is not None and bool(parts_of_head(op, domain, target))


def _last_uses(groups: Sequence[Group]) -> dict[TensorOp, int]:
    """The last group that reads each result, for results read outside their own group."""
    home = {op: index for index, group in enumerate(groups) for op in group.ops}
    ends: dict[TensorOp, int] = {}
    for index, group in enumerate(groups):
        for op in group.ops:
            for tensor in op.operands().values():
                if isinstance(tensor.source, TensorOp) and home[tensor.source] != index:
                    ends[tensor.source] = index
    return ends


def _walked(groups: Sequence[Group]) -> set[TensorOp]:
    """The results that some reader sees as if their rows were one, so that nothing may lie between them."""
    tensors = (tensor for group in groups for op in group.ops for tensor in op.operands().values())
    return {tensor.source for tensor in tensors if isinstance(tensor.source, TensorOp) and _walks(tensor)}


def _walks(tensor: Tensor) -> bool:
    width, view = row_width(tensor.source.shape), tensor.view
    inside = [(size, step) for size, step in zip(view.shape, view.strides, strict=True) if step % width]
    reach = sum((size - 1) * step for size, step in inside if isinstance(size, int))
    return view.offset % width + reach >= width


def _leaving(
    group: Group, ends: dict[TensorOp, int], walked: set[TensorOp]
) -> list[tuple[Size, list[TensorOp]]]:
    """The results that leave a group: those with equal rows together, those that need a slot alone."""
    together: dict[Size, list[TensorOp]] = defaultdict(list)
    alone: list[tuple[Size, list[TensorOp]]] = []
    for op in group.ops:
        if op in ends:
            rows = split_rows(op.shape)[0]
            if op in walked:
                alone.append((rows, [op]))
            else:
                together[rows].append(op)
    return [*together.items(), *alone]
