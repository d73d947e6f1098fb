"""Groups of operations: what fusion makes, how it prints, and what it refused."""

from __future__ import annotations

from dataclasses import dataclass

from rwkvgraph.op import TensorOp
from rwkvgraph.ops.recurrence import Recurrence
from rwkvgraph.show import Line, fold_layers, number_ops, op_text
from rwkvgraph.view import Dim


@dataclass(frozen=True, eq=False)
class Group:
    """One pass worth of operations, in program order, and the kind of kernel that runs them."""

    ops: tuple[TensorOp, ...]
    kind: str
    needs: frozenset[Dim] = frozenset()
    """The symbolic axes without which it does not run: it reads their last row."""

    @property
    def recurrence(self) -> Recurrence | None:
        """The one that it has, if it has one."""
        return next((op for op in self.ops if isinstance(op, Recurrence)), None)

    @property
    def layer(self) -> int | None:
        """The layer its pass is counted in: that of its last operation."""
        return self.ops[-1].layer

    def __repr__(self) -> str:
        return f"Group({self.kind}: {self.label})"

    @property
    def label(self) -> str:
        """`layer_norm+lerp×6`: the operations, equal neighbours counted."""
        names: list[list[object]] = []
        for op in self.ops:
            if names and names[-1][0] == op.name:
                names[-1][1] = int(str(names[-1][1])) + 1
            else:
                names.append([op.name, 1])
        return "+".join(f"{name}×{count}" if count != 1 else str(name) for name, count in names)


@dataclass(frozen=True)
class Refusal:
    """Two neighbouring operations that stayed in different passes, and why."""

    earlier: TensorOp
    later: TensorOp
    reason: str


@dataclass(frozen=True, eq=False)
class Fused:
    """The groups in an order that keeps every dependency, and the refusals."""

    groups: tuple[Group, ...]
    refusals: tuple[Refusal, ...]

    def ops(self) -> tuple[TensorOp, ...]:
        """Every operation in the fused order: it can be interpreted like the graph's own."""
        return tuple(op for group in self.groups for op in group.ops)

    def __repr__(self) -> str:
        return f"Fused({len(self.groups)} groups, {len(self.refusals)} refusals)"

    def passes_of(self, layer: int | None) -> tuple[Group, ...]:
        """The groups whose last operation belongs to a layer (None: to no layer)."""
        return tuple(group for group in self.groups if group.layer == layer)

    def __str__(self) -> str:
        names = number_ops(self.ops())
        lines: list[Line] = []
        for group in self.groups:
            layer = group.layer
            lines.append(Line(f"{group.kind}: {group.label}", layer))
            lines += [Line(f"    {op_text(op, names)}", layer) for op in group.ops]
        refusals = [
            Line(
                f"{names[id(item.earlier)]} | {names[id(item.later)]} apart: {item.reason}", item.later.layer
            )
            for item in self.refusals
        ]
        return f"{fold_layers(lines)}\n\n{fold_layers(refusals)}"
