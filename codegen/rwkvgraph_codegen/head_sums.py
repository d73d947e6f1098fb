"""How the threads of a head's workgroup share it, and how they sum over its rows and columns."""

from __future__ import annotations

from dataclasses import dataclass

from rwkvgraph_codegen.kernel import of_subgroups
from rwkvgraph_codegen.source import fill, prelude


@dataclass(frozen=True)
class Head:
    """How a workgroup shares a head of `size` rows and columns.

    lanes: columns a thread (4 or 1). shares: threads for the rows of a column.
    A subgroup form (`is_subgroup`) has one subgroup of 8 threads a workgroup, with `columns / 8` lanes each.
    is_wide: subgroups have at least 16 threads. is_single: there is one token, which all shares prepare.
    """

    size: int
    lanes: int
    shares: int
    subgroups: bool
    is_subgroup: bool = False
    is_wide: bool = False
    is_single: bool = False

    @property
    def tokens(self) -> int:
        """Tokens that go round through workgroup memory at a time."""
        return 1 if self.is_single else self.shares

    @property
    def columns(self) -> int:
        """Threads that together hold one row."""
        return self.size // self.lanes

    @property
    def threads(self) -> int:
        """Threads of a workgroup."""
        return 8 if self.is_subgroup else self.columns * self.shares

    @property
    def lane_names(self) -> list[str]:
        """The variables with a thread's lanes."""
        return [f"i2_{q}" for q in range(self.columns // 8)] if self.is_subgroup else ["i2"]

    def memory(self, sums: int) -> int:
        """Bytes of workgroup memory: six numbers a place for each token, `sums` and two lanes a thread."""
        if self.is_subgroup:
            return 0
        exchanged = 0 if self.swaps else 2 * self.lanes * self.threads
        return 4 * (6 * self.tokens * self.places + sums * self.threads + exchanged)

    @property
    def swaps(self) -> bool:
        """Whether threads sum within their subgroup, not through workgroup memory alone.

        Only where both counts are powers of two is the thread that one swaps with always there; more than
        four shares only where subgroups are known to be that large.
        """
        is_power = self.columns & (self.columns - 1) == 0
        return self.subgroups and self.shares in (2, 4, *((8, 16) if self.is_wide else ())) and is_power

    @property
    def places(self) -> int:
        """Places of a token's rows in workgroup memory.

        One more than there are rows: threads that write different tokens' then use different banks.
        """
        return self.size if self.tokens == 1 else self.size + 1

    @property
    def each(self) -> int:
        """Rows a thread holds."""
        return self.size // self.shares


def sum_shares(head: Head) -> str:
    """`sum_shares(thread, value, turn)`: over the threads of a column.

    Two calls in a row take turns 0 and 1, so that nobody overwrites what others still read.
    """
    shared = ""
    if head.shares == 1:
        lines = ["return value;"]
    elif head.swaps:
        return sum_by_swaps(head.shares, "V")
    else:
        shared = f"var<workgroup> exchanged: array<V, 2 * {head.threads}>;\n"
        parts = [f"exchanged[at + {index}u]" for index in range(head.shares)]
        lines = [
            f"exchanged[turn * {head.threads}u + thread] = value;",
            "workgroupBarrier();",
            f"let at = turn * {head.threads}u + thread / {head.shares}u * {head.shares}u;",
            f"return {' + '.join(parts)};",
        ]
    body = "\n".join(f"    {line}" for line in lines)
    return f"{shared}fn sum_shares(thread: u32, value: V, turn: u32) -> V {{\n{body}\n}}"


def sum_by_swaps(shares: int, kind: str) -> str:
    """`sum_shares(thread, value, turn)`, of this type, over neighbours of a subgroup, a power of two."""
    lines = ["    var sum = value;"]
    lines += [f"    sum += subgroupShuffleXor(sum, {1 << at}u);" for at in range(shares.bit_length() - 1)]
    head = f"fn sum_shares(thread: u32, value: {kind}, turn: u32) -> {kind} {{"
    return "\n".join([head, *lines, "    return sum;", "}"])


REDUCTIONS = (
    ("reduce_head", "dot(value, V(1.0))", "a + b"),
    ("reduce_head_max", "max(max(value.x, value.y), max(value.z, value.w))", "max(a, b)"),
)
"""The reductions over a head: name, a lane of four columns as one number, how two are combined."""


def near_reductions(columns: int) -> str:
    """`reduce_head(thread, value, place)` and `reduce_head_max` of so many neighbours, a power of two.

    Each has a lane of the same token, and all of them are in one subgroup.
    """
    texts = []
    for name, folded, combine in REDUCTIONS:
        lines = [f"    var a = {folded};", "    var b = a;"]
        for at in range(columns.bit_length() - 1):
            lines += [f"    b = subgroupShuffleXor(a, {1 << at}u);", f"    a = {combine};"]
        head = f"fn {name}(thread: u32, value: V, place: u32) -> f32 {{"
        texts.append("\n".join([head, *lines, "    return a;", "}"]))
    return "\n".join(texts)


def reductions_of(head: Head) -> dict[str, str]:
    """`reduce_head(thread, value, place)` and `reduce_head_max`: over the columns of a thread's own token.

    place: which of a token's reductions it is. Also the entry point's inputs and first line that they need.
    """
    make = _with_subgroups if head.swaps else _without_subgroups
    pair = [
        make(name, head, folded if head.lanes == 4 else "value", combine)
        for name, folded, combine in REDUCTIONS
    ]
    if not head.swaps:
        return {"reduce": "\n".join(pair), "inputs": "", "set_up": ""}
    return {
        "reduce": "\n".join(["var<private> width: u32;", *pair]),
        "inputs": ", @builtin(subgroup_size) subgroup: u32",
        "set_up": "    width = subgroup;",
    }


MOST_SUBGROUP = 128
"""Threads of a subgroup, at most (WebGPU specification, on GPUAdapterInfo): Tint refuses to swap further."""


def _with_subgroups(name: str, head: Head, folded: str, combine: str) -> str:
    """Threads swap within their subgroup what the columns have; then each takes the subgroups' results.

    A swap reaches as far as the smaller of subgroup and workgroup, so it is left out where that ends.
    """
    distances = [head.shares << at for at in range(16)]
    steps = [
        f"    b = subgroupShuffleXor(a, {n}u);\n    a = select(a, {combine}, {n}u < width);"
        for n in distances
        if n < min(head.threads, MOST_SUBGROUP)
    ]
    return fill(
        prelude("reduce_head.wgsl"),
        name=name,
        folded=folded,
        threads=head.threads,
        shares=head.shares,
        steps="\n".join(steps),
        rest=of_subgroups(f"shared_sums[first + $at * {head.shares}u]", combine, head.threads),
    )


def _without_subgroups(name: str, head: Head, folded: str, combine: str) -> str:
    """Every thread reduces all values: heads are not always a power of two, and this needs one barrier."""
    return f"""fn {name}(thread: u32, value: V, place: u32) -> f32 {{
    let first = place * {head.threads}u;
    let share = thread % {head.shares}u;
    shared_sums[first + thread] = {folded};
    workgroupBarrier();
    var a = shared_sums[first + share];
    for (var index = 1u; index < {head.columns}u; index++) {{
        let b = shared_sums[first + index * {head.shares}u + share];
        a = {combine};
    }}
    return a;
}}"""
