"""How workgroups share the heads of a recurrence on a device."""

from __future__ import annotations

from dataclasses import replace

from rwkvgraph.compiler.domain import Domain
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.tuning import tuning_for
from rwkvgraph.errors import CompileError
from rwkvgraph.ops.recurrence import Recurrence
from rwkvgraph.view import LANES
from rwkvgraph_codegen import PARTS, Head, HeadPart, HeadRule, taken_by

MOST_THREADS = 256
"""Threads of a head's workgroup: what every WebGPU device allows."""

MOST_ROWS = 32
"""Rows of a head that a thread holds on a software adapter.

llvmpipe's compile time grows faster than their number.
"""

USUAL_SUMS = 3
"""Reductions over a head that a token takes: an l2 norm, and the two of a layer norm."""


def head_for(domain: Domain, target: Target) -> Head:
    """How a workgroup shares a head: on a GPU by up to four threads a column, on llvmpipe in one subgroup.

    Eight threads a column take as many tokens at a time. They are faster where heads are few, for which
    workgroups share them, and slower where they are many: 32 of 32 slots with 32 tokens each take 122
    instead of 99 µs, in Dawn 116 instead of 85 (NVIDIA H200).
    """
    size, columns = domain.inner, domain.inner // domain.lanes
    if target.lanes == 8 and domain.lanes == LANES and size in (32, 64):
        return Head(size, LANES, 1, True, is_subgroup=True)
    possible = [n for n in (1, 2, 4, 8) if size % n == 0 and (n == 1 or columns * n <= MOST_THREADS)]
    if target.kind == "cpu":
        shares = next((n for n in possible if size // n <= MOST_ROWS), possible[-1])
    else:
        heads = [Head(size, domain.lanes, n, target.subgroups) for n in possible if n <= 4]
        return [head for head in heads if _fits(head, target)][-1]
    return Head(size, domain.lanes, shares, target.subgroups)


def single_head(head: Head, target: Target, threads: int) -> Head:
    """How a workgroup shares a head for a single token; of so many threads by more: few rows each.

    Of several slots with a token each, four threads a column are as fast as 16 where slots are 8, and faster
    where they are more: 55 instead of 93 µs for 32 heads of 128 slots (NVIDIA H200; by the kernel for many
    tokens: 68).
    """
    if head.is_subgroup:
        return head
    shares = min(threads // head.columns, tuning_for(target).single_shares)
    single = replace(head, is_single=True)
    if target.lanes < 32 or shares < 8 or head.size % shares:
        return single
    wider = replace(single, shares=shares, is_wide=True)
    return wider if wider.swaps and _fits(wider, target) else single


def parts_of_head(op: Recurrence, domain: Domain, target: Target) -> list[tuple[HeadPart, int]]:
    """How workgroups may share a head, the best first, and the most workgroups for which they do.

    Only where a token's lanes are known to be in one subgroup: a third of a workgroup sums over them.
    """
    if not isinstance(op.rule, HeadRule) or op.rule.idle is None:
        return []
    size, count, taken = domain.inner, domain.inner // LANES, len(taken_by(op.rule, op.token_operands))
    if not target.subgroups or domain.lanes != LANES or count > target.lanes:
        return []
    if size % (PARTS * LANES) or count & (count - 1):
        return []
    chosen = tuning_for(target).parts
    parts = [(HeadPart(size, shares, taken), most) for shares, most in chosen if shares <= count]
    return [(part, most) for part, most in parts if _fits_part(part, target)]


def _fits_part(part: HeadPart, target: Target) -> bool:
    limits = target.limits
    return part.threads <= limits.most_threads and part.memory <= limits.max_workgroup_storage


def check_head(op: Recurrence, head: Head, sums: int, target: Target) -> None:
    """Raise CompileError for heads that a workgroup of the device cannot hold."""
    limits = target.limits
    memory = head.memory(sums)
    if head.threads > limits.max_workgroup_invocations or memory > limits.max_workgroup_storage:
        raise CompileError(
            f"heads of {head.size} need {head.threads} threads and {memory} bytes a workgroup; the "
            f"device allows {limits.max_workgroup_invocations} and {limits.max_workgroup_storage} "
            f"(built at {op.where})"
        )


def _fits(head: Head, target: Target) -> bool:
    """Whether a workgroup's memory holds a head with the reductions that RWKV-7 has; one share always may."""
    return head.shares == 1 or head.memory(USUAL_SUMS) <= target.limits.max_workgroup_storage
