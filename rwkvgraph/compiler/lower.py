"""Groups to passes: the last stage that thinks. What comes out is text and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rwkvgraph.compiler.domain import Domain, find_domain
from rwkvgraph.compiler.fuse import Group
from rwkvgraph.compiler.lower_inlined import lower_inlined
from rwkvgraph.compiler.lower_matmul import lower_matmul
from rwkvgraph.compiler.lower_parts import lower_parts
from rwkvgraph.compiler.lower_sample import lower_sample
from rwkvgraph.compiler.lower_wkv import has_heads, lower_wkv
from rwkvgraph.compiler.phases import phases_of, roots_of
from rwkvgraph.compiler.plan import Plan
from rwkvgraph.compiler.program import Pass
from rwkvgraph.compiler.scope import Scope
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.tuning import kernel_for, tuning_for
from rwkvgraph.compiler.variant import Amount, Grid, Variant
from rwkvgraph.compiler.writer import Writer
from rwkvgraph.errors import CompileError
from rwkvgraph.op import DType, TensorOp
from rwkvgraph_codegen import (
    Parts,
    Source,
    can_be_leg,
    map_kernel,
    row_kernel,
)
from rwkvgraph_codegen.kernel import MAP_THREADS

MOST_TURNS = 65535
"""Turns after which llvmpipe ends any loop, without a word."""


def lower(group: Group, plan: Plan, target: Target, before: Group | None = None) -> list[Pass]:
    """The passes that run a group: one, or several for a matrix in more parts than a pass can bind.

    before: the group that runs right before. Raises CompileError where the pass would break one of the
    target's limits.
    """
    match group.kind:
        case "matmul":
            passes = _lower_matmul(group, plan, target, before)
        case "row":
            passes = [_lower_row(group, plan, target)]
        case "wkv":
            passes = [_lower_wkv(group, plan, target)]
        case "sample":
            passes = [_pass(group, *lower_sample(group, plan, target))]
        case _:
            passes = [_lower_map(group, plan, target)]
    for step in passes:
        if len(step.buffers) > target.limits.max_storage_buffers:
            raise CompileError(
                f"pass {step.label} binds {len(step.buffers)} buffers; the device binds "
                f"{target.limits.max_storage_buffers} (first built at {group.ops[0].where})"
            )
    return passes


def size_row(domain: Domain) -> tuple[Amount, Amount, Amount, Amount]:
    """The first row of every uniform: rows, middle, inner elements, lanes of a row."""
    return Amount.of(domain.rows), Amount(domain.middle), Amount(domain.inner), Amount(domain.count)


def _domain(group: Group) -> Domain:
    domain = find_domain(group.ops)
    if domain is None:
        raise CompileError(
            f"{group.label} runs over more axes than a kernel has (rows, middle, inner), or strides that it "
            f"cannot follow; copy operands with identity, or reshape them (built at {group.ops[0].where})"
        )
    for op in group.ops:
        halves = [name for name, tensor in op.updates().items() if tensor.dtype is DType.F16]
        if halves and domain.lanes == 1:
            raise CompileError(
                f"{op.name} writes {halves[0]}, f16 in rows of {domain.inner}; two share a word, so they are "
                f"written by fours: use a width that 4 divides, or f32 (built at {op.where})"
            )
    return domain


def _lower_matmul(group: Group, plan: Plan, target: Target, before: Group | None) -> list[Pass]:
    found = lower_matmul(group, plan, target)
    if before is None or len(found) > 1:
        return [item for item, _ in found]
    ((item, parts),) = found
    tuning, rows = tuning_for(target), [part.rows for part in parts]
    if item.leg is not None:
        again = lower_inlined(group, before, parts, plan, target, tuning.share)
        item = replace(item, inlined_leg=again)
    if target.kind != "gpu":
        return [item]
    shape = kernel_for(target, rows, 1)
    if shape.family != "split" or shape.tokens != 1 or shape.threads != tuning.row_threads:
        return [item]
    if shape.groups(rows, 1) > tuning.inline_groups:
        return [item]
    return [replace(item, inlined=lower_inlined(group, before, parts, plan, target, shape))]


def _lower_map(group: Group, plan: Plan, target: Target) -> Pass:
    domain = _domain(group)
    writer = Writer(group, plan.places, domain)
    scope = _stores(writer, group.ops)
    source = map_kernel(group.label, _parts(writer), scope.statements, target.dialect)
    items = Amount.of(domain.rows).times(domain.middle * domain.count)
    made = _pass(group, writer, source, Grid(items, MAP_THREADS), domain)
    if not target.resident:
        return made
    threads = tuning_for(target).share.threads
    source = map_kernel(group.label, _parts(writer), scope.statements, target.dialect, threads)
    return _with_leg(made, Variant(source, made.variants[0].table, Grid(items, threads), 1), target)


def _lower_row(group: Group, plan: Plan, target: Target) -> Pass:
    domain, tuning = _domain(group), tuning_for(target)
    if target.kind == "cpu" and domain.count > tuning.row_threads * MOST_TURNS:
        raise CompileError(f"{group.label} reduces rows of {domain.inner}, more than a software adapter can")
    grid = Grid(Amount.of(domain.rows).times(domain.middle))
    writer, source = _row(group, plan, domain, target, tuning.row_threads)
    made = _pass(group, writer, source, grid, domain)
    if target.kind == "cpu" and not target.resident:
        return made
    if target.kind == "gpu":
        most = target.limits.most_threads
        threads = min(tuning.single_threads, 1 << (most.bit_length() - 1))  # reductions halve them
        ahead = [_held_row(made, plan, domain, target, threads)]
        if tuning.few_rows > 1 and domain.middle == 1:  # heads are many, and narrow
            ahead.append(_held_row(made, plan, domain, target, threads, tuning.few_rows))
        made = replace(made, variants=(*ahead, *made.variants))
    return _with_leg(made, _held_row(made, plan, domain, target, tuning.share.threads), target)


def _row(
    group: Group,
    plan: Plan,
    domain: Domain,
    target: Target,
    threads: int,
    held: int = 0,
    is_single: bool = False,
) -> tuple[Writer, Source]:
    """The kernel of a workgroup a row. held: lanes that a thread loads ahead."""
    writer = Writer(group, plan.places, domain, is_single=is_single)
    phases = phases_of(writer, group.ops)
    statements = _stores(writer, group.ops).statements
    parts = _parts(writer, subgroups=target.subgroups)
    turns = -(-domain.count // threads)
    is_all = turns <= held
    source = row_kernel(
        group.label,
        parts,
        phases,
        statements,
        threads,
        target.dialect,
        min(held, turns),
        is_all,
        has_middle=domain.middle != 1,
    )
    return writer, source


def _held_row(item: Pass, plan: Plan, domain: Domain, target: Target, threads: int, most: int = 1) -> Variant:
    """A pass's kernel for runs of one row, or of so many, whose threads load ahead."""
    writer, source = _row(item.group, plan, domain, target, threads, tuning_for(target).held, most == 1)
    assert writer.buffers == list(item.buffers), "only the kernel differs"
    grid = Grid(Amount.of(domain.rows).times(domain.middle))
    return Variant(source, (size_row(domain), *writer.table), grid, most)


def _stores(writer: Writer, ops: Sequence[TensorOp]) -> Scope:
    scope = Scope(writer)
    for op in roots_of(writer, ops):
        scope.store(op)
    return scope


def _lower_wkv(group: Group, plan: Plan, target: Target) -> Pass:
    domain = _domain(group)
    made = _pass(group, *lower_wkv(group, plan, domain, target), domain)
    if target.kind == "cpu" and not target.resident:
        return made
    single = _few_tokens(made, plan, domain, target, tuning_for(target).share.threads)
    if target.kind == "gpu":
        each = [_few_tokens(made, plan, domain, target)] if has_heads(group) else []
        made = _in_parts(made, plan, domain, target) if has_heads(group) else made
        made = replace(made, variants=(single, *each, *made.variants))
    return _with_leg(made, single, target)


def _few_tokens(item: Pass, plan: Plan, domain: Domain, target: Target, threads: int = 0) -> Variant:
    """A recurrence's kernel for runs of one token, of so many threads a workgroup; or of one in each slot."""
    writer, source, grid = lower_wkv(item.group, plan, domain, target, threads, is_each=not threads)
    assert writer.buffers == list(item.buffers), "only the kernel differs"
    most = 1 if threads else None
    return Variant(source, (size_row(domain), *writer.table), grid, most, is_one_each=not threads)


def _in_parts(item: Pass, plan: Plan, domain: Domain, target: Target) -> Pass:
    """A recurrence's pass, with the kernels by which workgroups share its heads where those are few."""
    parted = lower_parts(item, plan, domain, target)
    if parted is None:
        return item
    assert parted.writer.buffers[:-1] == list(item.buffers), "what others have no use for comes last"
    table, least = (size_row(domain), *parted.writer.table), tuning_for(target).part_tokens
    after = Variant(parted.rest, table, parted.across)
    variants = [
        Variant(source, table, parted.along, after=after, min_each=least, max_groups=most)
        for source, most in parted.steps
    ]
    return replace(item, variants=(*variants, *item.variants), buffers=tuple(parted.writer.buffers))


def _parts(writer: Writer, subgroups: bool = False) -> Parts:
    functions = tuple(writer.functions.values())
    return Parts(writer.bindings(), functions, (), max(1, len(writer.table)), writer.domain.lanes, subgroups)


def _with_leg(item: Pass, leg: Variant, target: Target) -> Pass:
    """The pass, with this kernel for relays and pairs if their workgroups can run it."""
    threads = tuning_for(target).share.threads
    return replace(item, leg=leg) if can_be_leg(leg.source, threads, target.subgroups) else item


def _pass(group: Group, writer: Writer, source: Source, grid: Grid, domain: Domain) -> Pass:
    variant = Variant(source, (size_row(domain), *writer.table), grid)
    return Pass(group, (variant,), tuple(writer.buffers), Amount.of(domain.rows))
