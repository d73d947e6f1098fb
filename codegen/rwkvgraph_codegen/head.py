"""Recurrences: the unrolled parts of those with a matrix a head, the whole of those of single channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import Template

from rwkvgraph_codegen.head_sums import Head, reductions_of, sum_shares

Lanes = Mapping[str, list[str]]
"""The variables of each operand: one for each lane that a thread has."""


@dataclass(frozen=True)
class HeadRule:
    """What a token does to a head's state, a matrix of S rows (keys) and S columns (values), in WGSL.

    `numbers`: four expressions over the operands ($r, $k, …), taken at the row's own key; a step sees them as
    $t.x to $t.w. `look`: one more, and before any row changes $seen = Σ rows $s * look; empty where nothing
    needs it. `step`: the lines that bring a row's columns $s, of type $V, forward and add to the result $y;
    operands in them are those of the columns. `idle`: numbers with which, and a look of 0, a step leaves its
    row as it was, whatever the operands; without them workgroups never share a head.
    """

    numbers: tuple[str, str, str, str]
    step: tuple[str, ...]
    look: str = ""
    idle: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class ScanRule:
    """What a token does to the state of a channel, `rows` numbers $s0, $s1 …, in WGSL.

    `step`: lines over those and the operands ($k, $v, …), all of the lane type; the result is `let y`.
    """

    rows: int
    step: tuple[str, ...]


def head_text(buffer: str, head: Head, rule: HeadRule, inputs: Lanes, sums: int) -> dict[str, object]:
    """The holes of the head's template: the lines that load, use and store a thread's share of the state.

    sums: reductions over the head that a token takes.

    The state is in variables s0, s1, … of `buffer`. Unrolled, so that it stays in registers: naga bounds
    loops in a way that keeps drivers from unrolling them.
    """
    if head.is_subgroup:
        return _subgroup_text(buffer, head, rule, inputs)
    return {**_workgroup_text(buffer, head, rule, inputs), "sums": max(1, sums)}


def scan_text(buffer: str, lanes: int, rule: ScanRule, inputs: Lanes) -> dict[str, object]:
    """The holes of the template for channels: the lines that load, use and store a lane's state."""
    places = [f"{buffer}[(column + {row}u * place.z) / {lanes}u]" for row in range(rule.rows)]
    names = {f"s{row}": f"s{row}" for row in range(rule.rows)} | {name: v[0] for name, v in inputs.items()}
    lines = {
        "load": [f"var s{row} = {place};" for row, place in enumerate(places)],
        "step": [Template(line).substitute(names) for line in rule.step],
        "store": [f"{place} = s{row};" for row, place in enumerate(places)],
    }
    return {**_indented(lines), "lanes": lanes}


def _workgroup_text(buffer: str, head: Head, rule: HeadRule, inputs: Lanes) -> dict[str, object]:
    own = {name: values[0] for name, values in inputs.items()}
    taken = taken_by(rule, inputs)
    # Every `shares`th row: the threads of a column then read neighbouring places.
    lines = {"load": [], "store": [], **rows_text(rule, own, taken, "V", range(0, head.size, head.shares))}
    for j in range(head.each):
        place = f"{buffer}[(column + {head.shares * j}u * place.z) / {head.lanes}u]"
        lines["load"].append(f"var s{j} = {place};")
        lines["store"].append(f"{place} = s{j};")
    at = f"[token * {head.columns}u + i2]"
    lines["take"] = [f"let column_{name} = columns_{name}{at};" for name in taken]
    lines["hand_out"] = _hand_out(head, rule, own, taken)
    sizes: dict[str, object] = {"size": head.size, "lanes": head.lanes, "shares": head.shares}
    sizes |= {"threads": head.threads, "each": head.each, "places": head.places}
    count, looks = f"{head.tokens} * {head.columns}", f"{head.tokens} * {head.places}"
    shared = shared_text(rule, taken, "V", count, looks)
    texts = {"shared": shared, "sum_shares": sum_shares(head)}
    texts["turn"] = "1u" if rule.look else "token % 2u"
    return {**_indented(lines, head.is_single), **sizes, **texts, **reductions_of(head)}


def rows_text(
    rule: HeadRule, own: Mapping[str, str], taken: Sequence[str], kind: str, places: Sequence[int]
) -> dict[str, list[str]]:
    """The lines by which a thread looks at its rows of the state, and those that bring them forward.

    own: the variables of the operands. taken: of those, the ones that a step takes of its columns. kind: the
    type of those. places: of each row's numbers, counted from `row`.
    """
    lines: dict[str, list[str]] = {"look": [], "update": []}
    names = {**own, **{name: f"column_{name}" for name in taken}, "seen": "seen", "y": "sum", "V": kind}
    if rule.look:
        lines["look"].append(f"var seen = {kind}(0.0);")
    for j, place in enumerate(places):
        if rule.look:
            lines["look"].append(f"seen = fma(s{j}, {kind}(looks[row + {place}u]), seen);")
        lines["update"].append(f"let t{j} = numbers[row + {place}u];")
        lines["update"] += _step(rule, {**names, "s": f"s{j}", "t": f"t{j}"})
    if rule.look:
        lines["look"].append("seen = sum_shares(thread, seen, 0u);")
    return lines


def taken_by(rule: HeadRule, inputs: Iterable[str]) -> list[str]:
    """The operands that a step takes of its columns."""
    used = {name for line in rule.step for name in Template(line).get_identifiers()}
    return [name for name in inputs if name in used]


def shared_text(rule: HeadRule, taken: Sequence[str], kind: str, columns: str, looks: str) -> str:
    """What else of the tokens goes round through workgroup memory.

    kind: the type of columns. columns, looks: how many of each there is room for.
    """
    lines = [f"var<workgroup> columns_{name}: array<{kind}, {columns}>;" for name in taken]
    if rule.look:
        lines.append(f"var<workgroup> looks: array<f32, {looks}>;")
    return "\n".join(lines)


def _indented(lines: Mapping[str, list[str]], is_flat: bool = False) -> dict[str, object]:
    """The lines of each hole, as deep as the template has it. is_flat: in one without loops."""
    depth = {"load": 1, "store": 1, "step": 2, "hand_out": 2, "take": 3, "look": 3, "update": 3}
    return {
        name: "\n".join("    " * (1 if is_flat else depth[name]) + line for line in part)
        for name, part in lines.items()
    }


def _subgroup_text(buffer: str, head: Head, rule: HeadRule, inputs: Lanes) -> dict[str, object]:
    """The same for the subgroup form.

    Row j's numbers are in thread j / 4 % 8, lane j / 32 of it, part j % 4.
    """
    lanes = range(len(head.lane_names))
    names = [{name: values[q] for name, values in inputs.items()} for q in lanes]
    lines: dict[str, list[str]] = {"load": [], "look": [], "update": [], "store": []}
    lines["load"] = [f"let i2_{q} = thread + {8 * q}u;" for q in lanes]
    for q in lanes:
        if rule.look:
            lines["look"] += [f"let look{q} = {filled(rule.look, names[q])};", f"var seen{q} = V(0.0);"]
        values = [f"({filled(number, names[q])})" for number in rule.numbers]
        for part in "xyzw":
            lines["update"].append(
                f"let row{q}{part} = vec4<f32>({', '.join(f'{v}.{part}' for v in values)});"
            )
        lines["update"].append(f"var y{q} = V(0.0);")
    for j in range(head.size):
        thread, lane, part = j // 4 % 8, j // 32, "xyzw"[j % 4]
        if rule.look:
            lines["look"].append(f"let look_{j} = subgroupBroadcast(look{lane}.{part}, {thread}u);")
        lines["update"].append(f"let t{j} = subgroupBroadcast(row{lane}{part}, {thread}u);")
        for q in lanes:
            place = f"{buffer}[(column + {j}u * place.z) / 4u + i2_{q}]"
            mine = {**names[q], "V": "V", "s": f"s{j}_{q}", "t": f"t{j}", "seen": f"seen{q}", "y": f"y{q}"}
            lines["load"].append(f"var s{j}_{q} = {place};")
            if rule.look:
                lines["look"].append(f"seen{q} = fma(s{j}_{q}, V(look_{j}), seen{q});")
            lines["update"] += _step(rule, mine)
            lines["store"].append(f"{place} = s{j}_{q};")
    return {**_indented(lines), "size": head.size, "count": len(head.lane_names)}


def _step(rule: HeadRule, names: Mapping[str, str]) -> list[str]:
    """Lines that bring a row of the state forward by a token."""
    return [filled(line, names) for line in rule.step]


def filled(text: str, names: Mapping[str, str]) -> str:
    """Text of a rule with the operands' variables in it."""
    return Template(text).substitute(names)


def _hand_out(head: Head, rule: HeadRule, names: Mapping[str, str], taken: Sequence[str]) -> list[str]:
    """Lines that put what a thread has prepared of its token where all threads can read it."""
    own = "token" if head.is_single else "share"
    rows = [f"{own} * {head.places}u + i2 * {head.lanes}u + {index}u" for index in range(head.lanes)]
    values, writes = hand_out(rule, names, rows)
    writes += [f"columns_{name}[{own} * {head.columns}u + i2] = {names[name]};" for name in taken]
    if head.is_single:
        writes = ["if is_mine {", *(f"    {line}" for line in writes), "}"]
    return values + writes


def hand_out(
    rule: HeadRule, names: Mapping[str, str], rows: Sequence[str], ends: bool = False
) -> tuple[list[str], list[str]]:
    """Lines that work out a token's numbers, and those that write them.

    rows: the places of a lane's columns. ends: whether what lies behind the last token is to change nothing.
    """
    numbers, look = [filled(number, names) for number in rule.numbers], filled(rule.look, names)
    if ends:
        assert rule.idle is not None, "workgroups share heads of rules that have idle numbers alone"
        pairs = zip(rule.idle, numbers, strict=True)
        numbers = [f"select(V({idle}), {number}, is_mine)" for idle, number in pairs]
        look = f"select(V(0.0), {look}, is_mine)"
    values = [f"let n{at} = {number};" for at, number in enumerate(numbers)]
    values += [f"let look = {look};"] if rule.look else []
    writes = []
    parts = [".x", ".y", ".z", ".w"] if len(rows) == 4 else [""]
    for row, part in zip(rows, parts, strict=True):
        writes.append(f"numbers[{row}] = vec4<f32>({', '.join(f'n{at}{part}' for at in range(4))});")
        if rule.look:
            writes.append(f"looks[{row}] = look{part};")
    return values, writes
