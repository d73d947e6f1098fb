"""The two skeletons that need no hand-written body: elementwise kernels, and kernels that reduce rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rwkvgraph_codegen.dialect import Dialect
from rwkvgraph_codegen.held import Held, hold, replaced
from rwkvgraph_codegen.source import LOWEST, Parts, Source, assemble, fill, prelude
from rwkvgraph_codegen.statement import Load, Statement, block

MAP_THREADS = 64
MOST_KEPT = 4
"""Lanes of a row that a thread keeps while it prepares a product: few registers, and few texts."""

_MAP = """
@compute @workgroup_size($threads)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    let index = (group.x + group.y * groups.x) * ${threads}u + thread;
    let row = index / here.size.w;
    let i0 = row / here.size.y;
    let i1 = row % here.size.y;
    let i2 = index % here.size.w;
    if i0 < here.size.x {
$body
    }
}
"""

_ROW = """
@compute @workgroup_size($threads)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32$subgroup_inputs) {
    // Every thread reaches every barrier: rows beyond the last repeat it, and write nothing.
    let index = group.x + group.y * groups.x;
    let is_inside = index < here.size.x * here.size.y;
    let row = min(index, here.size.x * here.size.y - 1u);
$place
    let n = f32(here.size.z);
$ahead$phases
    if is_inside {
$held$rest
    }
}
"""

_PHASE = """    var $partial = $start;
$held$rest
    let $result = $reduce;"""


@dataclass(frozen=True)
class Sum:
    """One reduction of a phase: `value` (a lane) is combined by "+" or "max" into the f32 `name`."""

    name: str
    value: str
    combine: str


@dataclass(frozen=True)
class Phase:
    """One loop over a row: statements, and the reductions that read them (at most four, of one kind)."""

    statements: tuple[Statement, ...]
    sums: tuple[Sum, ...]


def map_kernel(
    label: str, parts: Parts, body: list[Statement], dialect: Dialect, threads: int = MAP_THREADS
) -> Source:
    """A kernel that runs `body` at every lane of its domain, one thread a lane."""
    main = fill(_MAP, threads=threads, body=block(body, 2))
    return assemble(label, replace(parts, statements=tuple(body)), main, threads, dialect)


def row_kernel(
    label: str,
    parts: Parts,
    phases: list[Phase],
    body: list[Statement],
    threads: int,
    dialect: Dialect,
    held: int = 0,
    is_all: bool = False,
    has_middle: bool = True,
) -> Source:
    """A kernel of one workgroup a row.

    The phases' reductions one after another, then `body` at every lane. held: lanes of each thread that are
    loaded before all of that, where rows are few; the others follow in a loop. is_all: there are no others.
    has_middle: whether the domain's middle may be more than 1; otherwise no time goes into dividing by it.
    """
    statements = tuple(item for phase in phases for item in phase.statements) + tuple(body)
    wide = parts.lanes == 4
    lanes = _Lanes(threads, held, hold(statements) if held else None, is_all)
    texts = "\n".join(_phase(index, phase, lanes, parts) for index, phase in enumerate(phases))
    inputs = ",\n        @builtin(subgroup_size) subgroup: u32" if parts.subgroups else ""
    place = ("i0 = row / here.size.y", "i1 = row % here.size.y") if has_middle else ("i0 = row", "i1 = 0u")
    main = fill(
        _ROW,
        threads=threads,
        phases=texts,
        subgroup_inputs=inputs,
        place="\n".join(f"    let {line};" for line in place),
        ahead=lanes.ahead(),
        held=lanes.each(body, [], 2),
        rest=lanes.rest(block(body, 3), 2),
    )
    helpers = reductions(phases, threads, parts.subgroups)
    if wide:
        helpers.append(fill(prelude("lanes.wgsl"), elements=_OWN.elements))
    shared = f"var<workgroup> partials: array<vec4<f32>, {threads}>;"
    text = "\n".join([shared, *helpers, main.strip("\n")])
    return assemble(label, replace(parts, statements=statements), text, threads, dialect)


def prepare(phases: list[Phase], threads: int, subgroups: bool, row: int, turns: int) -> str:
    """The function `prepare(thread, subgroup)`: it leaves a row's reductions in variables of each thread.

    row: of the uniform's table, with the row's elements and lanes. turns: lanes of a thread, at most; where
    they are few they are kept from one reduction to the next.
    """
    parts = Parts((), (), (), 0, 4, subgroups)
    own = _Names(f"here.at[{row}].x", f"here.at[{row}].y", "row_partials", "")
    lanes = _Lanes(threads, 0, None, width=own.count)
    if turns <= MOST_KEPT:
        held = hold([item for phase in phases for item in phase.statements])
        lanes = _Lanes(threads, turns, held, True, own.count)
    texts = [_phase(index, phase, lanes, parts, own) for index, phase in enumerate(phases)]
    sums = [item.name for phase in phases for item in phase.sums]
    body = [
        "    let i0 = 0u;",
        "    let i1 = 0u;",
        f"    let n = f32({own.elements});",
        lanes.ahead(),
        *texts,
    ]
    given = "thread: u32, subgroup: u32" if subgroups else "thread: u32"
    return "\n".join(
        [
            *(f"var<private> {name}: f32;" for name in sums),
            f"var<workgroup> {own.memory}: array<vec4<f32>, {threads}>;",
            *reductions(phases, threads, subgroups, own.memory),
            fill(prelude("lanes.wgsl"), elements=own.elements),
            "\n".join([f"fn prepare({given}) {{", *body, "}"]),
        ]
    )


def reductions(phases: list[Phase], threads: int, subgroups: bool, memory: str = "partials") -> list[str]:
    """The functions over a workgroup of `threads`, a power of two, that the phases call.

    memory: the workgroup's array of a `vec4` a thread.
    """
    kinds = {(phase.sums[0].combine, len(phase.sums) == 1) for phase in phases if phase.sums}
    return [_reduction(*kind, threads, subgroups, memory) for kind in sorted(kinds)]


def _reduction(combine: str, is_one: bool, threads: int, subgroups: bool, memory: str) -> str:
    template = prelude("reduce_subgroup.wgsl" if subgroups else "reduce_tree.wgsl")
    part = ".x" if is_one else ""
    combined = "a + b" if combine == "+" else "max(a, b)"
    return fill(
        template,
        name=_reducer(combine, is_one),
        type="f32" if is_one else "vec4<f32>",
        part=part,
        threads=threads,
        memory=memory,
        combined=combined,
        subgroup="subgroupAdd" if combine == "+" else "subgroupMax",
        rest=of_subgroups(f"{memory}[place + $at]{part}", combined, threads),
    )


def of_subgroups(result: str, combined: str, threads: int) -> str:
    """Lines that combine into `a` the results of `count` subgroups, of which `a` is the first.

    result: the expression for that of subgroup $at. No loop loads those of subgroups of 32 threads or more.
    """
    usual = max(1, threads // 32)
    lines = []
    for at in range(1, usual):
        lines.append(f"    b = {fill(result, at=f'min({at}u, count - 1u)')};")
        lines.append(f"    a = select(a, {combined}, {at}u < count);")
    lines.append(f"    for (var index = {usual}u; index < count; index++) {{")
    lines.append(f"        b = {fill(result, at='index')};")
    return "\n".join([*lines, f"        a = {combined};", "    }"])


def _start(combine: str, is_one: bool) -> str:
    """What a reduction of one value, or of up to four, starts from."""
    start = "0.0" if combine == "+" else LOWEST
    return start if is_one else f"vec4<f32>({start})"


def _reducer(combine: str, is_one: bool) -> str:
    """The name of a function that reduces one value, or up to four."""
    return ("reduce_add" if combine == "+" else "reduce_max") + ("_one" if is_one else "")


@dataclass(frozen=True)
class _Lanes:
    """The lanes of a thread that are held, `count` of them, each `threads` from the one before.

    is_all: whether a row has no more. width: the expression for the lanes of a row.
    """

    threads: int
    count: int
    held: Held | None
    is_all: bool = False
    width: str = "here.size.w"

    def rest(self, body: str, depth: int) -> str:
        """The loop over a thread's other lanes."""
        if self.is_all:
            return ""
        pad, behind = "    " * depth, f" + {self.threads * self.count}u" if self.count else ""
        head = f"{pad}for (var i2 = thread{behind}; i2 < {self.width}; i2 += {self.threads}u) {{"
        return "\n".join([head, body, f"{pad}}}"])

    def ahead(self) -> str:
        """The lines that load what is held; lanes behind the row's end repeat its last."""
        if self.held is None:
            return ""
        lines = [item.text() for item in self.held.common]
        for lane in range(self.count):
            place = f"thread + {self.threads * lane}u" if lane else "thread"
            lines += [f"let at{lane} = {place};", f"let lane{lane} = min(at{lane}, {self.width} - 1u);"]
        for lane in range(self.count):
            lines += [item.text() for item in self.held.lane(f"lane{lane}", f"_lane{lane}")]
        return "\n".join(f"    {line}" for line in lines) + "\n"

    def each(self, statements: Sequence[Statement], then: Sequence[str], depth: int) -> str:
        """Statements for every lane that is held, and lines after them."""
        if self.held is None:
            return ""
        pad, lines = "    " * depth, []
        for lane in range(self.count):
            rest = self.held.rest(statements, f"_lane{lane}")
            new = {
                item.name: self.held.name(item.name, f"_lane{lane}")
                for item in statements
                if isinstance(item, Load)
            }
            lines += [f"{pad}if at{lane} < {self.width} {{", f"{pad}    let i2 = at{lane};"]
            lines += [f"{pad}    {item.text()}" for item in rest]
            lines += [f"{pad}    {replaced(line.strip(), new)}" for line in then] + [f"{pad}}}"]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Names:
    """Where a row's numbers of elements and lanes are, a workgroup's memory, how a result is declared."""

    elements: str
    count: str
    memory: str
    declare: str


_OWN = _Names("here.size.z", "here.size.w", "partials", "let ")
"""Those of a kernel whose rows are its domain."""


def _phase(index: int, phase: Phase, lanes: _Lanes, parts: Parts, own: _Names = _OWN) -> str:
    partial, result = f"partial{index}", f"sums{index}"
    add = phase.sums[0].combine == "+"
    fold = ("add_lanes" if add else "max_lanes") if parts.lanes == 4 else ""
    gather, is_one = [], len(phase.sums) == 1
    for place, item in enumerate(phase.sums):
        target = partial if is_one else f"{partial}.{'xyzw'[place]}"
        value = f"{fold}({item.value}, i2)" if fold else item.value
        gather.append(
            f"        {target} = " + (f"{target} + {value};" if add else f"max({target}, {value});")
        )
    given = ["thread", partial]
    if parts.subgroups:  # two phases in turn, so that none overwrites what others still read
        given += ["subgroup", f"{index % 2 * (lanes.threads // 2)}u"]
    text = fill(
        _PHASE, partial=partial, result=result,
        reduce=f"{_reducer(phase.sums[0].combine, is_one)}({', '.join(given)})",
        start=_start(phase.sums[0].combine, is_one), held=lanes.each(phase.statements, gather, 1),
        rest=lanes.rest("\n".join([block(list(phase.statements), 2), *gather]), 1),
    )  # fmt: skip
    lets = [
        f"    {own.declare}{item.name} = {result}{'' if is_one else '.' + 'xyzw'[place]};"
        for place, item in enumerate(phase.sums)
    ]
    return "\n".join([text, *lets])
