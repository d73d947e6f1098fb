"""What must hold between the stages of a compilation: `RWKVGRAPH_CHECK=1`.

Each check looks at values that a stage was given and made, and raises CheckError for the first thing that is
wrong. None asks a device; what the operations mean is not looked at, only what every stage must keep.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from rwkvgraph.compiler.group import Fused, Group
from rwkvgraph.compiler.plan import Plan, Slot
from rwkvgraph.compiler.program import Program
from rwkvgraph.compiler.target import Limits
from rwkvgraph.errors import CheckError
from rwkvgraph.graph import Graph
from rwkvgraph.hook import Site
from rwkvgraph.op import TensorOp
from rwkvgraph.view import View, row_width, split_rows


def level_from_environment() -> int:
    """What `RWKVGRAPH_CHECK` asks for: 0 nothing, 1 the stages, 2 also every pass against numpy.

    Raises ValueError for anything else.
    """
    given = os.environ.get("RWKVGRAPH_CHECK", "") or "0"
    if given not in ("0", "1", "2"):
        raise ValueError(f"RWKVGRAPH_CHECK is {given!r}; it is 0, 1 (stages) or 2 (every pass too)")
    return int(given)


def check_build(graph: Graph) -> None:
    """Operands precede their users, and every value of a site was made before it."""
    _check_order("build", graph.items)


def check_splice(before: Graph, after: Graph) -> None:
    """No site is left, what a model computes is all there in its order, and the rest is marked as spliced."""
    sites = after.sites()
    if sites:
        raise _broken("splice", f"the site {sites[0].hook!r} is still there")
    _check_order("splice", after.items)
    own = [op for op in after.ops if id(op) not in after.spliced]
    if len(own) != len(before.ops):
        raise _broken("splice", f"{len(before.ops)} operations of the model became {len(own)}")
    for old, new in zip(before.ops, own, strict=True):
        if type(old) is not type(new) or old.shape != new.shape:
            raise _broken("splice", f"{old!r} became {new!r}", old)


def check_simplify(before: Graph, after: Graph) -> None:
    """The same memory is written, in the same order and shape; nothing is left that no one needs."""
    _check_order("simplify", after.items)
    wrote, writes = _writes(before), _writes(after)
    if wrote != writes:
        missing = next((tensor for tensor in wrote if tensor not in writes), None)
        raise _broken("simplify", f"{len(wrote)} writes became {len(writes)}; the first missing: {missing}")
    dead = set(after.ops) - set(after.live().ops)
    if dead:
        raise _broken("simplify", f"nothing needs {next(iter(dead))!r}")


def check_fuse(graph: Graph, fused: Fused) -> None:
    """Every operation is in one group, and every dependency goes forward; only data stays inside a group."""
    home: dict[TensorOp, int] = {}
    for index, group in enumerate(fused.groups):
        for op in group.ops:
            if op in home:
                raise _broken("fuse", f"{op!r} is in groups {home[op]} and {index}", op)
            home[op] = index
    lost = [op for op in graph.ops if op not in home]
    if lost or len(home) != len(graph.ops):
        raise _broken("fuse", f"{len(graph.ops)} operations became {len(home)}", *lost[:1])
    spot = {op: (home[op], at) for group in fused.groups for at, op in enumerate(group.ops)}
    for earlier, later, why in graph.dependencies:
        a, b = graph.ops[earlier], graph.ops[later]
        if spot[a] >= spot[b]:
            raise _broken("fuse", f"{b!r} comes before {a!r}, which it needs ({why})", b)
        if why != "data" and home[a] == home[b]:
            raise _broken("fuse", f"{a!r} and {b!r} share a group in spite of {why}", b)


def check_plan(groups: Sequence[Group], plan: Plan) -> None:
    """What leaves its group has a place, lives that overlap lie apart, no group writes what it reads."""
    home = {op: index for index, group in enumerate(groups) for op in group.ops}
    last: dict[TensorOp, int] = {}
    for index, group in enumerate(groups):
        read = {op for op in _sources(group.ops) if home[op] != index}
        last |= dict.fromkeys(read, index)
        written = {plan.places[op].slot for op in group.ops if op in plan.places}
        for op in read & plan.places.keys():
            if plan.places[op].slot in written:
                raise _broken("plan", f"{group!r} reads and writes {plan.places[op].slot.name}", op)
    for op in last.keys() ^ plan.places.keys():
        raise _broken("plan", f"{op!r} {'has no place' if op in last else 'stays, and has a place'}", op)
    for slot in plan.slots:
        _check_slot(slot, plan, home, last)
    for group, between in plan.between.items():
        index = groups.index(group)
        for op, place in plan.places.items():
            if place.slot is between and home[op] <= index <= last[op]:
                raise _broken("plan", f"{group!r} writes over {op!r} in {between.name}", op)


def _check_slot(slot: Slot, plan: Plan, home: dict[TensorOp, int], last: dict[TensorOp, int]) -> None:
    """Raise CheckError where a result does not fit its slot, or lies over one that is still wanted."""
    there: list[TensorOp] = []
    for op in sorted((op for op in plan.places if plan.places[op].slot is slot), key=home.__getitem__):
        place, width = plan.places[op], row_width(op.shape)
        if place.column + width > place.stride or place.stride > slot.width:
            raise _broken("plan", f"{op!r} ends at column {place.column + width} of {slot!r}", op)
        if split_rows(op.shape)[0] != slot.rows:
            raise _broken("plan", f"{op!r} is in {slot!r}, which has other rows", op)
        there = [other for other in there if last[other] >= home[op]]
        for other in there:
            start = plan.places[other].column
            apart = place.column + width <= start or start + row_width(other.shape) <= place.column
            if not (apart and home[op] == home[other]):
                raise _broken("plan", f"{op!r} is written over {other!r} in {slot.name}", op)
        there.append(op)


def check_program(fused: Fused, program: Program, limits: Limits) -> None:
    """Every group is run, in order, by passes that bind each buffer once, and no more than the device can."""
    groups = list(dict.fromkeys(item.group for item in program.passes))
    if groups != list(fused.groups):
        raise _broken("lower", f"{len(fused.groups)} groups are run as {len(groups)} others")
    for item in program.passes:
        count = len(item.buffers)
        if len(set(item.buffers)) != count or count > limits.max_storage_buffers:
            raise _broken("lower", f"{item!r} binds {count} buffers, or one twice")
        for kernel in (kernel for variant in item.variants for kernel in variant.kernels):
            numbers = [binding.index for binding in kernel.source.bindings]
            if numbers != list(range(1, len(numbers) + 1)) or len(numbers) > count:
                raise _broken("lower", f"{item!r} has a shader with bindings {numbers}")
        for variant in item.variants:
            after = variant.after
            if after and (after.source.bindings, after.table) != (variant.source.bindings, variant.table):
                raise _broken("lower", f"{item!r} has kernels that go on with each other, bound otherwise")
        last = item.variants[-1]
        if not last.is_for_any:
            raise _broken("lower", f"{item!r} has no shader for any rows; its last is {last!r}")


def _check_order(stage: str, items: Iterable[TensorOp | Site]) -> None:
    """Raise CheckError where an operand is made after its user, or a site's value after the site."""
    made: set[object] = set()
    for item in items:
        if isinstance(item, Site):
            for name, tensor in item.slots.items():
                if isinstance(tensor.source, TensorOp) and tensor.source not in made:
                    raise _broken(stage, f"frame.{name} at {item.hook!r} is made later", tensor.source)
            continue
        for name, tensor in item.operands().items():
            if isinstance(tensor.source, TensorOp) and tensor.source not in made:
                raise _broken(stage, f"{name} of {item!r} is {tensor!r}, which is made later", item)
        made.add(item)


def _writes(graph: Graph) -> list[tuple[str, object, View]]:
    """What the operations write, in order."""
    return [(op.name, tensor.source, tensor.view) for op in graph.ops for tensor in op.updates().values()]


def _sources(ops: Iterable[TensorOp]) -> set[TensorOp]:
    """The operations whose results these read."""
    tensors = (tensor for op in ops for tensor in op.operands().values())
    return {tensor.source for tensor in tensors if isinstance(tensor.source, TensorOp)}


def _broken(stage: str, what: str, *ops: TensorOp) -> CheckError:
    where = f" (built at {ops[0].where})" if ops else ""
    return CheckError(
        f"after {stage}: {what}{where}. A stage of the compiler broke a rule of its own; "
        "RWKVGRAPH_DUMP=folder writes the stages before it, for a report"
    )
