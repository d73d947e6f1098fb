"""The statements of a recurrence's token, lane by lane: what comes before the step and what comes after."""

from __future__ import annotations

from rwkvgraph.compiler.scope import Scope, wanted
from rwkvgraph.compiler.writer import HERE, Writer
from rwkvgraph.op import Reduction, Row, Tensor, TensorOp
from rwkvgraph.ops.recurrence import Recurrence
from rwkvgraph_codegen import Call, Statement


class TokenLanes:
    """The statements of a token: one scope for each lane that a thread has, taking turns.

    shares: threads that have the same lane.
    """

    def __init__(self, writer: Writer, names: list[str], shares: int) -> None:
        self.statements: list[Statement] = []
        self._writer = writer
        self._shares = shares
        self._scopes = [Scope(writer, name, self.statements) for name in names]
        self._summed: set[str] = set()
        self._given: set[TensorOp] = set()

    @property
    def sums(self) -> int:
        """Reductions over the head so far."""
        return len(self._summed)

    def before(self, op: Recurrence) -> tuple[dict[str, list[str]], int]:
        """Write what comes before the recurrence.

        Gives its operands' variables, a lane each, and the number of statements.
        """
        earlier = self._earlier(op)
        inputs = self.operands(op)
        self._store([item for item in self._writer.inside_ops() if item in earlier])
        return inputs, len(self.statements)

    def operands(self, op: Recurrence) -> dict[str, list[str]]:
        """Write what the recurrence takes, and nothing that others need. Gives the variables, a lane each."""
        return {name: self._operand(op, name, tensor) for name, tensor in op.token_operands.items()}

    def rest(self) -> None:
        """Write all that leaves the kernel but the state, where the recurrence's own value was given."""
        self._store(list(self._writer.inside_ops()))

    def after(self, op: Recurrence) -> None:
        """Write what comes after it."""
        earlier = self._earlier(op)
        self._store([item for item in self._writer.inside_ops() if item not in earlier])

    def give(self, op: TensorOp, names: list[str]) -> None:
        """Let the value of an op be variables that the kernel's own text sets, a lane each."""
        self._given.add(op)
        for scope, name in zip(self._scopes, names, strict=True):
            scope.give(op, name)

    def _earlier(self, op: Recurrence) -> set[TensorOp]:
        return {want.op for want in wanted(self._writer.inside_ops(), [op])} - {op}

    def _operand(self, op: Recurrence, name: str, tensor: Tensor) -> list[str]:
        producer = self._writer.inside(tensor)
        if producer is not None:
            self._sum(producer)
        return [scope.operand(op, name, tensor) for scope in self._scopes]

    def _store(self, ops: list[TensorOp]) -> None:
        """Write what the operations leave behind, after the reductions that need it; once for a lane."""
        for item in ops:
            if item in self._writer.stored or (item.updates() and not isinstance(item, Recurrence)):
                self._sum(item)
                first = len(self.statements)
                for scope in self._scopes:
                    scope.store(item)
                if self._shares > 1:
                    self._scopes[0].guard_stores(first, "is_mine")

    def _sum(self, op: TensorOp) -> None:
        """Emit the reductions over the head that a value needs, before the value itself."""
        if op in self._given:
            return
        inside = [item for item in self._writer.inside_ops() if item not in self._given]
        for want in wanted(inside, [op]):
            if not isinstance(want.op, Row):
                continue
            for index, reduction in enumerate(want.op.reduce):
                name = self._writer.sum_name(want.op, HERE, reduction.name)
                if name not in self._summed:
                    values = [scope.reduction(want.op, index) for scope in self._scopes]
                    self._reduce(name, values, reduction)
                    self._summed.add(name)

    def _reduce(self, name: str, values: list[str], reduction: Reduction) -> None:
        joined = values[0]
        for value in values[1:]:
            joined = f"{joined} + {value}" if reduction.combine == "+" else f"max({joined}, {value})"
        kind = "reduce_head" if reduction.combine == "+" else "reduce_head_max"
        self.statements.append(Call(name, kind, ("thread", joined, f"{self.sums}u")))
