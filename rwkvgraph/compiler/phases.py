"""The reductions of rows that a kernel takes before anything that needs them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from rwkvgraph.compiler.domain import Domain
from rwkvgraph.compiler.scope import Scope, wanted
from rwkvgraph.compiler.writer import Want, Writer
from rwkvgraph.op import Row, TensorOp
from rwkvgraph_codegen import Phase, Sum


def phases_of(
    writer: Writer,
    ops: Sequence[TensorOp],
    roots: Sequence[TensorOp] | None = None,
    domain: Domain | None = None,
) -> list[Phase]:
    """The reductions of a group in as few loops as their dependencies allow, four of one kind a loop.

    roots: the operations that need them, if not all that leave something behind. domain: theirs, if it is
    not the kernel's.
    """
    level: dict[Want, int] = {}
    waiting: dict[tuple[int, str], list[tuple[Row, int, str]]] = defaultdict(list)
    for want in wanted(ops, roots_of(writer, ops) if roots is None else roots, writer.above):
        below = [level[other] for other in _inputs(want, level)]
        depth = max(below, default=0)
        if isinstance(want.op, Row):
            for index, reduction in enumerate(want.op.reduce):
                depth += 1
                waiting[depth, reduction.combine].append((want.op, index, want.row))
        level[want] = depth
    phases: list[Phase] = []
    for _, items in sorted(waiting.items(), key=lambda entry: entry[0]):
        for start in range(0, len(items), 4):
            phases.append(_phase(writer, items[start : start + 4], domain))
    return phases


def _phase(writer: Writer, items: Sequence[tuple[Row, int, str]], domain: Domain | None) -> Phase:
    scope = Scope(writer, domain=domain)
    sums = []
    for op, index, row in items:
        value = scope.reduction(op, index, row)
        name = writer.sum_name(op, row, op.reduce[index].name)
        sums.append(Sum(name, value, op.reduce[index].combine))
    return Phase(tuple(scope.statements), tuple(sums))


def _inputs(want: Want, known: dict[Want, int]) -> list[Want]:
    sources = {tensor.source for tensor in want.op.operands().values()}
    return [other for other in known if other.op in sources]


def roots_of(writer: Writer, ops: Sequence[TensorOp]) -> list[TensorOp]:
    """The operations that leave something behind: a result that others read, or what they update."""
    return [op for op in ops if op in writer.stored or op.updates()]
