"""Recurrences whose heads are shared by workgroups: who does what, and the unrolled parts of the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rwkvgraph_codegen.head import HeadRule, Lanes, hand_out, rows_text, shared_text, taken_by
from rwkvgraph_codegen.head_sums import near_reductions, sum_by_swaps

PAIR = "vec2<f32>"
"""What a thread has of a row.

With one column a thread, workgroup memory is what a step waits for, as all of a token's rows are read for
each; with four, too few threads are left to divide the rows among.
"""

LANES = 4
PARTS = 4
"""Workgroups that share a head."""

REST = 4
"""Tokens that a workgroup finishes."""


@dataclass(frozen=True)
class HeadPart:
    """How a workgroup shares a part of a head of `size` rows and columns.

    size: a power of two, 16 at least. shares: threads that share the rows of two columns; a power of two, 2
    at least, and no more than a row has lanes. taken: operands that a step takes of its columns. A third of
    the threads steps through tokens that the others prepare meanwhile.
    """

    size: int
    shares: int
    taken: int = 1

    @property
    def columns(self) -> int:
        """Lanes of a row of the head, and columns of a part."""
        return self.size // LANES

    @property
    def pairs(self) -> int:
        """Pairs of columns that a part has."""
        return self.columns // 2

    @property
    def stepping(self) -> int:
        """Threads that step."""
        return self.pairs * self.shares

    @property
    def threads(self) -> int:
        """Threads of a workgroup."""
        return 3 * self.stepping

    @property
    def tokens(self) -> int:
        """Tokens that are prepared at a time: a thread has a lane of one."""
        return self.stepping // self.columns

    @property
    def each(self) -> int:
        """Rows a thread holds."""
        return self.size // self.shares

    @property
    def places(self) -> int:
        """Places of a token's rows in workgroup memory.

        More than there are rows: threads that write different tokens' then use different banks.
        """
        return self.size + self.columns

    @property
    def room(self) -> int:
        """Pairs in the results of some tokens: one a thread, and for each pair one more, for the banks."""
        return self.tokens * self.pairs * (self.shares + 1)

    @property
    def all_room(self) -> int:
        """Pairs in workgroup memory: two such, or once all of the state."""
        return max(2 * self.room, self.size * self.pairs)

    @property
    def memory(self) -> int:
        """Bytes of workgroup memory, for a rule that looks at the state."""
        prepared = self.tokens * (5 * self.places + self.taken * self.size)
        return 4 * (2 * prepared + 2 * self.all_room)

    def row(self, index: int) -> int:
        """One of the rows that the first share has; each further share has those LANES rows on.

        Lane i of a token's rows is prepared by one thread, and neighbours write neighbouring places: row
        4i + j is at j * columns + i, of which a share has every so many'th.
        """
        again = self.columns // self.shares
        return LANES * self.shares * (index % again) + index // again


def part_text(buffer: str, part: HeadPart, rule: HeadRule, inputs: Lanes) -> dict[str, object]:
    """The holes of the template for a part of a head, whose state is in variables s0, s1, … of `buffer`.

    Tokens are unrolled, so that loads of the next are under way while one waits for its sums; behind the last
    there are idle ones.
    """
    own, taken = {name: values[0] for name, values in inputs.items()}, taken_by(rule, inputs)
    lines: dict[str, list[str]] = {"load": [], "store": [], "steps": []}
    for j in range(part.each):
        place = f"{buffer}[(column + {part.row(j)}u * place.z) / {LANES}u + pair / 2u]"
        lines["load"] += [f"let f{j} = {place};", f"var s{j} = select(f{j}.xy, f{j}.zw, pair % 2u == 1u);"]
        lines["store"].append(f"results[(share * {LANES}u + {part.row(j)}u) * {part.pairs}u + pair] = s{j};")
    for token in range(part.tokens):
        lines["steps"] += _step_text(part, rule, own, taken, token)
    for token in range(part.tokens):
        lines["steps"].append(f"results[left + {token * part.pairs * (part.shares + 1)}u] = y{token};")
    values, writes = hand_out(rule, own, [f"to + {at * part.columns}u" for at in range(LANES)], ends=True)
    lines["hand_out"] = [*values, *writes]
    for name in taken:
        lines["hand_out"] += [f"columns_{name}[to_columns] = {own[name]}.xy;"]
        lines["hand_out"] += [f"columns_{name}[to_columns + 1u] = {own[name]}.zw;"]
    depth = {"load": 1, "store": 2, "steps": 4, "hand_out": 4}
    text = {name: ("\n" + "    " * depth[name]).join(items) for name, items in lines.items()}
    columns, looks = 4 * part.tokens * part.columns, 2 * part.tokens * part.places
    text["shared"] = shared_text(rule, taken, PAIR, str(columns), str(looks))
    text["sum"] = _tree([f"results[at + {index}u][i2 % 2u]" for index in range(part.shares)])
    text["sum_shares"] = sum_by_swaps(part.shares, PAIR)
    quads = part.pairs // 2
    text["lane"] = f"{buffer}[(first + at / {quads}u * place.z) / {LANES}u + at % {quads}u]"
    return {**text, **_sizes(part), "reduce": near_reductions(part.columns)}


def rest_text(part: HeadPart, handed: str) -> dict[str, object]:
    """The holes of the template that finishes tokens, whose results of the recurrence are in a buffer."""
    lane = ", ".join(f"{handed}[at + {index}u]" for index in range(LANES))
    sizes = {"size": part.size, "columns": part.columns, "tokens": REST, "threads": REST * part.columns}
    return {**sizes, "lane": lane, "reduce": near_reductions(part.columns)}


def _sizes(part: HeadPart) -> dict[str, object]:
    return {
        "size": part.size,
        "columns": part.columns,
        "parts": PARTS,
        "pairs": part.pairs,
        "pair": PAIR,
        "shares": part.shares,
        "apart": part.shares + 1,
        "each": part.each,
        "tokens": part.tokens,
        "stepping": part.stepping,
        "threads": part.threads,
        "lanes": LANES,
        "numbers": part.tokens * part.places,
        "places": part.places,
        "own_columns": 2 * part.columns,
        "all_columns": 2 * part.columns * part.tokens,
        "room": part.room,
        "all_room": part.all_room,
        "state_lanes": part.size * part.pairs // 2,
    }


def _step_text(
    part: HeadPart, rule: HeadRule, own: Mapping[str, str], taken: Sequence[str], token: int
) -> list[str]:
    """The lines of one of the tokens in workgroup memory."""
    places = [token * part.places + part.shares * j for j in range(part.each)]
    lines = rows_text(rule, own, taken, PAIR, places)
    at = f"[own + {token * part.columns * 2}u]"
    step = [f"let column_{name} = columns_{name}{at};" for name in taken]
    step += [*lines["look"], f"var sum = {PAIR}(0.0);", *lines["update"], f"y{token} = sum;"]
    return [f"var y{token}: {PAIR};", "{", *(f"    {line}" for line in step), "}"]


def _tree(terms: list[str]) -> str:
    """Their sum, in pairs; as many as a power of two."""
    while len(terms) > 1:
        terms = [f"({a} + {b})" for a, b in zip(terms[::2], terms[1::2], strict=True)]
    return terms[0]
