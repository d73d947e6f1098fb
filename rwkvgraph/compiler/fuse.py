"""Grouping operations into passes.

A group is a list of operations: what it means is what they mean, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rwkvgraph.compiler.domain import fits_kernel
from rwkvgraph.compiler.group import Fused as Fused
from rwkvgraph.compiler.group import Group as Group
from rwkvgraph.compiler.group import Refusal as Refusal
from rwkvgraph.compiler.target import Limits
from rwkvgraph.graph import Graph
from rwkvgraph.op import Buffer

RULES = {  # (producer kind, consumer kind): (kind of the pass, why one pass is enough)
    ("map", "map"): ("map", "inline the producer's expression"),
    ("map", "row"): ("row", "evaluate the producer while loading the row"),
    ("row", "map"): ("row", "map the row before storing it"),
    ("row", "row"): ("row", "reduce the same row again before storing it"),
    ("matmul", "map"): ("matmul", "map the accumulator before storing it"),
    ("map", "wkv"): ("wkv", "evaluate the producer while loading the head's row"),
    ("row", "wkv"): ("wkv", "reduce over the head while loading its row"),
    ("wkv", "map"): ("wkv", "map the head's row before storing it"),
    ("wkv", "row"): ("wkv", "reduce over the head before storing its row"),
}

BESIDE = {  # kinds of two passes that do not need each other: why they may share one
    ("matmul", "matmul"): ("matmul", "row blocks of both side by side in the grid"),
    ("wkv", "map"): ("wkv", "the map rides along over the same rows"),
    ("row", "map"): ("row", "the map rides along over the same rows"),
    ("map", "map"): ("map", "both over the same rows"),
}


ROOMY = 16
"""Buffers a kernel from which on passes are as few whenever products are multiplied."""


def fuse(graph: Graph, limits: Limits) -> Fused:
    """Group the operations into as few passes as the rules and the limits allow.

    First independent matmuls go side by side, which puts their results into one buffer, so that more fits
    the passes that read them; then recurrences take their producers, then producers join their consumers
    along data edges, then maps that are left over ride along with a later pass over the same rows.

    Products wait for others only where that takes no more passes, which it may where few buffers are bound.
    """
    fused = _fuse(graph, limits, waits=True)
    if limits.max_storage_buffers >= ROOMY:
        return fused
    early = _fuse(graph, limits, waits=False)
    return early if len(early.groups) < len(fused.groups) else fused


def _fuse(graph: Graph, limits: Limits, waits: bool) -> Fused:
    work = _Fusion(graph, limits)
    # The latest producer first: its pass runs when the other operands are ready, an earlier one's would
    # have to wait.
    data = [
        edge[:2]
        for edge in sorted(graph.dependencies, key=lambda edge: (edge[1], -edge[0]))
        if edge[2] == "data"
    ]
    work.join_matmuls(waits)
    for edge in sorted(data, reverse=True):
        work.join_into_recurrence(*edge)
    for edge in data:
        work.join(*edge)
    work.join_leftovers()
    return Fused(work.ordered(), work.refusals())


class _Fusion:
    """Groups in the making.

    A group is known by one of its positions; `_above` holds the groups it needs, as bits.
    """

    def __init__(self, graph: Graph, limits: Limits) -> None:
        self._ops = graph.ops
        self._needs_last = [graph.last_rows[op] for op in graph.ops]
        self._limits = limits
        count = len(self._ops)
        self._data: list[set[int]] = [set() for _ in range(count)]
        self._needs: list[set[int]] = [set() for _ in range(count)]
        self._hazards: list[dict[int, str]] = [{} for _ in range(count)]
        for earlier, later, why in graph.dependencies:
            self._needs[later].add(earlier)
            if why == "data":
                self._data[later].add(earlier)
            else:
                self._hazards[later][earlier] = why
        self._users: list[set[int]] = [set() for _ in range(count)]
        for later, data in enumerate(self._data):
            for earlier in data:
                self._users[earlier].add(later)
        self._group = list(range(count))
        self._members: dict[int, list[int]] = {index: [index] for index in range(count)}
        self._kind = {index: op.kind for index, op in enumerate(self._ops)}
        self._above: dict[int, int] = {}
        for index in range(count):
            bits = 0
            for earlier in self._needs[index]:
                bits |= self._above[earlier] | 1 << earlier
            self._above[index] = bits
        self._refused: dict[tuple[int, int], str] = {}

    def join(self, earlier: int, later: int) -> None:
        """Merge the groups of a producer and its consumer, or note why not."""
        a, b = self._group[earlier], self._group[later]
        if a == b:
            return
        rule = RULES.get((self._kind[a], self._kind[b]))
        if rule is None:
            reason: str | None = f"no rule puts a {self._kind[b]} after a {self._kind[a]} into one pass"
        else:
            reason = self._refusal(a, b, rule[0])
        if reason is None and rule is not None:
            self._merge(a, b, rule[0])
        else:
            self._refused[earlier, later] = reason or ""

    def join_into_recurrence(self, earlier: int, later: int) -> None:
        """Merge a producer into the recurrence that reads it, where one does: each head evaluates it once.

        Before other merges, as a map that a matmul has taken would have to be stored, and read back by the
        head.
        """
        if self._kind[self._group[later]] == "wkv":
            self.join(earlier, later)

    def join_matmuls(self, waits: bool) -> None:
        """Put matmuls that do not need each other side by side: those of a level, then what is left.

        waits: whether there are levels; otherwise each joins the earliest it can.
        """
        products = [index for index, op in enumerate(self._ops) if op.kind == "matmul"]
        levels = self._levels() if waits else dict.fromkeys(products, 0)
        groups = self._side_by_side(products, lambda a, b: levels[a] == levels[b])
        self._side_by_side(groups, lambda a, b: True)

    def _side_by_side(self, groups: Sequence[int], may: Callable[[int, int], bool]) -> list[int]:
        """Join each with the first of its layer that it may and can join; gives those that are left."""
        left: list[int] = []
        for group in groups:
            near = [other for other in left if self._layer(other) == self._layer(group) and may(other, group)]
            if not any(self._join_beside(other, group) for other in near):
                left.append(group)
        return left

    def _levels(self) -> dict[int, int]:
        """How many matmuls of its layer come before each matmul, one after another.

        What nobody waits for before a recurrence has run goes to the last level before it: there it hides
        what little the others of that level have to do, and those of earlier levels stay so few that they
        can as well work out the rows that they multiply.
        """
        found: dict[int, int] = {}
        for layer in dict.fromkeys(op.layer for op in self._ops):
            own = [index for index, op in enumerate(self._ops) if op.layer == layer]
            products = [index for index in own if self._ops[index].kind == "matmul"]
            for index in products:
                below = [found[other] for other in products if self._needs_of(index, other)]
                found[index] = 1 + max(below, default=-1)
            for recurrence in (index for index in own if self._ops[index].kind == "wkv"):
                before = [index for index in products if not self._needs_of(index, recurrence)]
                needed = [found[index] for index in before if self._needs_of(recurrence, index)]
                last = max(needed, default=0)
                for index in before:
                    is_waited_for = any(self._needs_of(other, index) for other in before)
                    if found[index] < last and not is_waited_for:
                        found[index] = last
        return found

    def _needs_of(self, later: int, earlier: int) -> bool:
        """Whether an operation needs another, directly or not; before anything is merged."""
        return later > earlier and bool(self._above[later] >> earlier & 1)

    def join_leftovers(self) -> None:
        """Let each group of maps that is alone with an effect ride along with a later pass.

        The first later pass that has room takes it.
        """
        for index in range(len(self._ops)):
            group = self._group[index]
            if self._kind.get(group) != "map" or not any(
                self._ops[at].updates() for at in self._members[group]
            ):
                continue
            later = [
                other for other in self._members if other != group and self._last(other) > self._last(group)
            ]
            nearby = sorted(later, key=self._last)[:12]
            any(self._join_beside(other, group) for other in nearby)

    def _join_beside(self, host: int, guest: int) -> bool:
        rule = BESIDE.get((self._kind[host], self._kind[guest]))
        if rule is None or self._refusal(host, guest, rule[0], beside=True) is not None:
            return False
        self._merge(host, guest, rule[0])
        return True

    def _refusal(self, a: int, b: int, kind: str, beside: bool = False) -> str | None:
        """Why groups a and b may not be one pass of `kind`, or None. Beside: neither may need the other."""
        if beside and (self._above[a] >> b & 1 or self._above[b] >> a & 1):
            return "one needs the other's result"
        hazard = self._hazard(a, b)
        if hazard:
            return hazard
        members = sorted(self._members[a] + self._members[b])
        ops = [self._ops[index] for index in members]
        reason = fits_kernel(ops, kind)
        if reason:
            return reason
        if self._needs_last[self._members[a][0]] != self._needs_last[self._members[b][0]]:
            return "one of them does not run where there is no last row"
        # What binds too many already (a recurrence has six operands) may take a producer that does not add
        # to them.
        bindings = self._bindings(members)
        allowed = max(self._limits.max_storage_buffers, self._bindings(self._members[b]))
        if bindings > allowed:
            return f"{bindings} buffers, and the device binds {self._limits.max_storage_buffers}"
        if self._has_path(a, b) or self._has_path(b, a):
            return "a third pass would have to run both before and after"
        return None

    def _hazard(self, a: int, b: int) -> str | None:
        for first, second in ((a, b), (b, a)):
            for later in self._members[second]:
                for earlier, why in self._hazards[later].items():
                    if self._group[earlier] == first:
                        return f"{why}: other workgroups may be at either"
        return None

    def _has_path(self, a: int, b: int) -> bool:
        """Whether b needs a through a third group."""
        between = {self._group[index] for later in self._members[b] for index in self._needs[later]} - {a, b}
        return any(self._above[group] >> a & 1 for group in between)

    def _bindings(self, members: Sequence[int]) -> int:
        inside = set(members)
        buffers: set[Buffer] = set()
        for index in members:
            for name, tensor in self._ops[index].operands().items():
                if isinstance(tensor.source, Buffer) and not name.rpartition(".")[2].isdigit():
                    buffers.add(tensor.source)
                elif isinstance(tensor.source, Buffer) and name.endswith(".0"):
                    buffers.add(tensor.source)  # a matrix in parts may take more passes, not more bindings
        producers = {
            self._group[index] for later in members for index in self._data[later] if index not in inside
        }
        escapes = any(user not in inside for index in members for user in self._users[index])
        return len(buffers) + len(producers) + escapes

    def _merge(self, a: int, b: int, kind: str) -> None:
        for index in self._members[b]:
            self._group[index] = a
        self._members[a] = sorted(self._members[a] + self._members.pop(b))
        self._kind[a] = kind
        del self._kind[b]
        bit_a, bit_b = 1 << a, 1 << b
        above = (self._above[a] | self._above.pop(b)) & ~(bit_a | bit_b)
        self._above[a] = above
        for group, bits in self._above.items():
            if bits & (bit_a | bit_b):
                self._above[group] = (bits | bit_a | above) & ~bit_b

    def _layer(self, group: int) -> int | None:
        return self._ops[self._members[group][0]].layer

    def _last(self, group: int) -> int:
        return self._members[group][-1]

    def ordered(self) -> tuple[Group, ...]:
        """The groups, each after those it needs, otherwise in program order.

        Maps come after others: what a hook captures does not part a row from the product that reads it.
        """

        # A group needs more groups than any that it needs, so their number is a topological order.
        def place(group: int) -> tuple[int, bool, int]:
            return self._above[group].bit_count(), self._kind[group] == "map", self._last(group)

        order = sorted(self._members, key=place)
        return tuple(
            Group(
                tuple(self._ops[index] for index in self._members[group]),
                self._kind[group],
                self._needs_last[self._members[group][0]],
            )
            for group in order
        )

    def refusals(self) -> tuple[Refusal, ...]:
        """Pairs on a data edge that ended in different groups, with the last reason given."""
        return tuple(
            Refusal(self._ops[a], self._ops[b], reason)
            for (a, b), reason in self._refused.items()
            if self._group[a] != self._group[b]
        )
