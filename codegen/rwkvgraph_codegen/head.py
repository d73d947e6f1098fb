"""The unrolled parts of a per-head recurrence, and reductions over a head."""

from __future__ import annotations

from dataclasses import dataclass

from rwkvgraph_codegen.source import LOWEST


@dataclass(frozen=True)
class Head:
    """How a workgroup shares a head of `size` rows and columns.

    lanes: columns a thread (4 or 1). shares: threads for the rows of a column.
    A subgroup form (`is_subgroup`) has one subgroup of 8 threads a workgroup, with `columns / 8` lanes each.
    """

    size: int
    lanes: int
    shares: int
    subgroups: bool
    is_subgroup: bool = False

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

    @property
    def memory(self) -> int:
        """Bytes of workgroup memory: five numbers a row, and a lane a thread."""
        return 0 if self.is_subgroup else 4 * (5 * self.size + self.lanes * self.threads)

    @property
    def each(self) -> int:
        """Rows a thread holds."""
        return self.size // self.shares


def head_text(buffer: str, head: Head, inputs: dict[str, list[str]]) -> dict[str, object]:
    """The lines that load, use and store a thread's share of the state, and what they need.

    The state is in variables s0, s1, … inputs: for r, w, k, v, kk and a the variables of each lane.
    Unrolled, so that the state stays in registers: naga bounds loops in a way that keeps drivers from
    unrolling them.
    """
    return _subgroup_text(buffer, head, inputs) if head.is_subgroup else _workgroup_text(buffer, head, inputs)


def _workgroup_text(buffer: str, head: Head, inputs: dict[str, list[str]]) -> dict[str, object]:
    lines: dict[str, list[str]] = {"load": [], "removed": [], "update": [], "store": []}
    for j in range(head.each):
        token, gone = f"rwkb[first + {j}u]", f"removal[first + {j}u]"
        place = f"{buffer}[(column + {j}u * place.z) / {head.lanes}u]"
        lines["load"].append(f"var s{j} = {place};")
        lines["removed"].append(f"removed = fma(-s{j}, V({gone}), removed);")
        lines["update"].append(f"let t{j} = {token};")
        lines["update"] += _one_row(j, f"s{j}", "value", "removed", "y")
        lines["store"].append(f"{place} = s{j};")
    one = {name: values[0] for name, values in inputs.items()}
    lines["hand_out"] = _hand_out(head, one)
    texts = _indented(lines)
    sizes = {"size": head.size, "lanes": head.lanes, "shares": head.shares}
    sizes |= {"columns": head.columns, "threads": head.threads, "each": head.each}
    return {**one, **texts, **sizes, "sum_shares": _sum_shares(head), **_reductions(head)}


def _indented(lines: dict[str, list[str]]) -> dict[str, object]:
    depth = {"load": 1, "removed": 2, "update": 2, "store": 1, "hand_out": 3}
    return {name: "\n".join("    " * depth[name] + line for line in part) for name, part in lines.items()}


def _subgroup_text(buffer: str, head: Head, inputs: dict[str, list[str]]) -> dict[str, object]:
    """The same for the subgroup form.

    Row j's numbers are in thread j / 4 % 8, lane j / 32 of it, part j % 4.
    """
    lanes = range(len(head.lane_names))
    lines: dict[str, list[str]] = {"load": [], "removed": [], "update": [], "store": []}
    lines["load"] = [f"let i2_{q} = thread + {8 * q}u;" for q in lanes]
    lines["removed"] = [f"var removed{q} = V(0.0);" for q in lanes]
    for q in lanes:
        r, w, k, kk, a = (inputs[name][q] for name in ("r", "w", "k", "kk", "a"))
        for part in "xyzw":
            numbers = f"{r}.{part}, {w}.{part}, {k}.{part}, {kk}.{part} * {a}.{part}"
            lines["update"].append(f"let row{q}{part} = vec4<f32>({numbers});")
        lines["update"].append(f"var y{q} = V(0.0);")
    for j in range(head.size):
        thread, lane, part = j // 4 % 8, j // 32, "xyzw"[j % 4]
        lines["removed"].append(f"let gone{j} = subgroupBroadcast({inputs['kk'][lane]}.{part}, {thread}u);")
        lines["update"].append(f"let t{j} = subgroupBroadcast(row{lane}{part}, {thread}u);")
        for q in lanes:
            place = f"{buffer}[(column + {j}u * place.z) / 4u + i2_{q}]"
            s, v = f"s{j}_{q}", inputs["v"][q]
            lines["load"].append(f"var {s} = {place};")
            lines["removed"].append(f"removed{q} = fma(-{s}, V(gone{j}), removed{q});")
            lines["update"] += _one_row(j, s, v, f"removed{q}", f"y{q}")
            lines["store"].append(f"{place} = {s};")
    return {**_indented(lines), "size": head.size, "count": len(head.lane_names)}


def _one_row(j: int, state: str, value: str, removed: str, y: str) -> list[str]:
    """Lines that bring row j of a state forward by a token, with its r w k b in t`j`, and add it to y."""
    added = f"fma({value}, V(t{j}.z), {removed} * t{j}.w)"
    return [f"{state} = fma({state}, V(t{j}.y), {added});", f"{y} = fma({state}, V(t{j}.x), {y});"]


def _hand_out(head: Head, inputs: dict[str, str]) -> list[str]:
    lines = []
    for index in range(head.lanes):
        part = f".{'xyzw'[index]}" if head.lanes == 4 else ""
        row = f"i2 * {head.lanes}u + {index}u"
        values = ", ".join(f"{inputs[name]}{part}" for name in "rwk")
        lines.append(f"rwkb[{row}] = vec4<f32>({values}, b{part});")
        lines.append(f"removal[{row}] = {inputs['kk']}{part};")
    return lines


def _sum_shares(head: Head) -> str:
    if head.shares == 1:
        return "    return value;"
    at = [f"shared_sums[thread % {head.columns}u + {index * head.columns}u]" for index in range(head.shares)]
    return "\n".join(
        [
            "    workgroupBarrier(); // the threads may still read the sums before",
            "    shared_sums[thread] = value;",
            "    workgroupBarrier();",
            f"    return {' + '.join(at)};",
        ]
    )


def _reductions(head: Head) -> dict[str, str]:
    """`reduce_head(thread, value)` and `reduce_head_max`: over the first threads of a head, a lane each.

    Also the entry point's inputs and first line that they need.
    """
    make = _with_subgroups if head.subgroups else _without_subgroups
    fold = ("dot(value, V(1.0))", "max(max(value.x, value.y), max(value.z, value.w))")
    folded = fold if head.lanes == 4 else ("value", "value")
    pair = [
        make("reduce_head", head, folded[0], "a + b", "0.0", "subgroupAdd"),
        make("reduce_head_max", head, folded[1], "max(a, b)", LOWEST, "subgroupMax"),
    ]
    if not head.subgroups:
        return {"reduce": "\n".join(pair), "inputs": "", "set_up": ""}
    return {
        "reduce": "\n".join(["var<private> width: u32;", *pair]),
        "inputs": ", @builtin(subgroup_size) subgroup: u32,\n"
        "        @builtin(subgroup_invocation_id) lane: u32",
        "set_up": "    width = subgroup;",
    }


def _with_subgroups(name: str, head: Head, folded: str, combine: str, start: str, function: str) -> str:
    """Each subgroup reduces its threads, then every thread the subgroups."""
    return f"""fn {name}(thread: u32, value: V) -> f32 {{
    let mine = {function}(select({start}, {folded}, thread < {head.columns}u));
    workgroupBarrier(); // the threads may still read the values before
    if thread % width == 0u {{
        shared_sums[thread / width] = V(mine);
    }}
    workgroupBarrier();
    var a = {start};
    for (var index = 0u; index < ({head.threads}u + width - 1u) / width; index++) {{
        let b = shared_sums[index]{".x" if head.lanes == 4 else ""};
        a = {combine};
    }}
    return a;
}}"""


def _without_subgroups(name: str, head: Head, folded: str, combine: str, start: str, function: str) -> str:
    """Every thread reduces all values: heads are not always a power of two, and this needs two barriers."""
    del function
    return f"""fn {name}(thread: u32, value: V) -> f32 {{
    workgroupBarrier(); // the threads may still read the values before
    if thread < {head.columns}u {{
        shared_sums[thread] = V({folded});
    }}
    workgroupBarrier();
    var a = {start};
    for (var index = 0u; index < {head.columns}u; index++) {{
        let b = shared_sums[index]{".x" if head.lanes == 4 else ""};
        a = {combine};
    }}
    return a;
}}"""
