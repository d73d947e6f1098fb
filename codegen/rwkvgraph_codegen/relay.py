"""Several kernels as one: a relay, whose workgroups take one kernel after another and meet in between.

A kernel comes as its own module and stays as it is, but for the names that it declares, which get a number,
and the bindings, which all share. Nothing here knows what the kernels do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rwkvgraph_codegen.binding import Binding
from rwkvgraph_codegen.kernel import prelude
from rwkvgraph_codegen.source import Source, fill

TURNS = 1 << 20
"""Looks at the meeting's counter, each about 0.7 µs, before a workgroup gives up on the others."""

LATE = 16
"""The word of the meeting that is set by a workgroup that gave up, 64 bytes from the counter."""

MEETING_WORDS = 64

_DECLARED = re.compile(r"^(?:alias|struct|fn|const)\s+(\w+)|^var(?:<[^>]*>)?\s+(\w+)", re.MULTILINE)
_BOUND = re.compile(r"^@group\(0\) @binding\(\d+\) var.*\n", re.MULTILINE)
_ENTRY = re.compile(r"^@compute @workgroup_size\(\d+\)\s*\nfn main\(([^{]*)\) \{", re.MULTILINE)
_PARAMETER = re.compile(r"@builtin\((\w+)\)\s*(\w+)\s*:\s*([\w<>]+)")
_FUNCTION = re.compile(r"^fn (\w+)\(([^)]*)\)( -> [\w<>]+)? \{\n((?:.*\n)*?)\}\n", re.MULTILINE)
_WORD = re.compile(r"(?<![\w.])[A-Za-z_]\w*")
_SHARED = re.compile(r"^var<workgroup>\s+(\w+)\s*:\s*(.+);\n", re.MULTILINE)
_ARRAY = re.compile(r"array<(vec4<[fu]32>|vec2<[fu]32>|[fu]32|atomic<u32>|V), (\d+)(?: \* (\d+))?>")
_COMMENT = re.compile(r"//.*")

_ASKED = ("part_of", "weight", "input", "finish")
"""The functions of a kernel that its engine calls."""

_AHEAD = """        leg_now = leg;
        leg_at = relay.kinds[leg].y;
        var first: Ahead;
        if relay.kinds[leg].x != 0u && group.x < grid.w {
            first = ahead(group, thread, subgroup, lane);
        }"""
_CASE = """            case $index: {
                for (var unit = group.x; unit < grid.w; unit += groups.x) {
                    main_$number($arguments);
                    workgroupBarrier();
                }
            }"""
_WORK = """            default: {
                for (var unit = group.x; unit < grid.w; unit += groups.x) {
                    let mine = vec3<u32>(unit, 0u, 0u);
                    if unit != group.x {
                        first = ahead(mine, thread, subgroup, lane);
                    }
                    work(mine, thread, subgroup, lane, first);
                    workgroupBarrier();
                }
            }"""
_IDLE = """        if group.x >= grid.w {
            let what = relay.touched[leg];
            touch(group.x - grid.w, groups.x - grid.w, thread, what.x, what.y);
            touch(group.x - grid.w, groups.x - grid.w, thread, what.z, what.w);
        }"""
_NOTHING = "            default: {\n            }"


@dataclass(frozen=True)
class Leg:
    """One kernel of a relay.

    bindings: those of the relay that its own are, in order. rows: of its uniform's table, `size` aside. The
    tables of kernels with an engine lie in one array, one after another.
    """

    source: Source
    bindings: tuple[int, ...]
    rows: int


def can_be_leg(source: Source, threads: int, subgroups: bool) -> bool:
    """Whether workgroups of `threads` can stand in for the kernel's own: they run it several times at once.

    All of these do the same, so that writing twice does no harm, where a barrier parts what they read from
    what they write.
    """
    whole = threads % source.threads == 0 and (not subgroups or source.threads % 32 == 0)
    return source.threads == threads or (whole and "workgroupBarrier" in source.text)


def starts_of(legs: Sequence[Leg]) -> list[int]:
    """Where the rows of each leg with an engine begin in the array of all; 0 for others."""
    starts, at = [], 0
    for leg in legs:
        starts.append(at if leg.source.engine else 0)
        at += leg.rows if leg.source.engine else 0
    return starts


def relay(label: str, legs: Sequence[Leg], bindings: Sequence[Binding], threads: int) -> Source:
    """The legs one after another. `bindings`: of all, in order; the meeting's words come behind them.

    Raises ValueError for legs with different engines.
    """
    return _relay(label, tuple(legs), tuple(bindings), threads)


@lru_cache(maxsize=256)
def _relay(label: str, legs: tuple[Leg, ...], bindings: tuple[Binding, ...], threads: int) -> Source:
    """As `relay`; the layers between the first and the last of a model ask for the same."""
    meeting = Binding(len(bindings) + 1, "u32", True, False, is_atomic=True)
    every = (*bindings, meeting)
    names, shared, starts = [item.name for item in every], _shared(legs), starts_of(legs)
    engines = {leg.source.engine for leg in legs if leg.source.engine}
    if len(engines) > 1:
        raise ValueError(f"{label}: its kernels have {len(engines)} engines; a relay has one")
    texts = [_renamed(leg, index, names, shared, starts[index]) for index, leg in enumerate(legs)]
    headers = dict.fromkeys(
        line for leg in legs for line in leg.source.text.splitlines() if line.startswith("enable ")
    )
    own = [index for index, leg in enumerate(legs) if not leg.source.engine]
    main = fill(
        prelude("relay.wgsl"),
        count=len(legs),
        rows=max(1, sum(leg.rows for leg in legs if leg.source.engine)),
        places="\n".join(f"    leg{index}: Here_{index}," for index in own),
        meeting=meeting.name,
        late=LATE,
        threads=threads,
        ahead=_AHEAD if engines else "",
        touch=fill(prelude("touch.wgsl"), threads=threads, meeting=meeting.name) if engines else "",
        idle=_IDLE if engines else "",
        cases="\n".join(
            [*(_case(legs[index], index, threads) for index in own), _WORK if engines else _NOTHING]
        ),
    )
    declared = [item.declaration() for item in every]
    memory = [f"var<workgroup> {name}: {kind};" for kind, name in shared.items()]
    engine = [_engine(engines.pop(), legs, texts, shared)] if engines else []
    text = "\n".join([*headers, f"// {label}", *declared, *memory, *texts, *engine, main])
    return Source(text + "\n", every, threads, label)


_PAIR = """struct Relay {
    leg0: Here_0,
    leg1: Here_1,
}
@group(0) @binding(0) var<uniform> relay: Relay;

@compute @workgroup_size($threads)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32, @builtin(subgroup_size) subgroup: u32,
        @builtin(subgroup_invocation_id) lane: u32) {
    // The first workgroup does what the others do again for themselves, and leaves it to later kernels.
    let index = group.y + group.z * groups.y;
    if index == 0u {
        main_0($first);
    } else {
        main_1($second);
    }
}
"""


@lru_cache(maxsize=256)
def pair(label: str, legs: tuple[Leg, Leg], bindings: tuple[Binding, ...]) -> Source:
    """Two kernels that do not depend on each other: of the first one workgroup, then all of the second.

    They have as many threads. The second is a matrix product, with its workgroups in y and z.
    """
    names = [item.name for item in bindings]
    shared, threads = _shared(legs), legs[1].source.threads
    texts = [_renamed(leg, index, names, shared, 0) for index, leg in enumerate(legs)]
    headers = dict.fromkeys(
        line for leg in legs for line in leg.source.text.splitlines() if line.startswith("enable ")
    )
    given = {
        "local_invocation_index": "thread",
        "subgroup_size": "subgroup",
        "subgroup_invocation_id": "lane",
    }
    one = given | {"workgroup_id": "vec3<u32>(0u)", "num_workgroups": "vec3<u32>(1u)"}
    all_others = given | {"workgroup_id": "vec3<u32>(0u, index - 1u, 0u)", "num_workgroups": "groups"}
    main = fill(
        _PAIR,
        threads=threads,
        first=", ".join(one[builtin] for builtin, _, _ in _entry(legs[0].source.text)),
        second=", ".join(all_others[builtin] for builtin, _, _ in _entry(legs[1].source.text)),
    )
    builtins = {builtin for leg in legs for builtin, _, _ in _entry(leg.source.text)}
    if not any(builtin.startswith("subgroup") for builtin in builtins):
        main = main.replace(
            ", @builtin(subgroup_size) subgroup: u32,\n        @builtin(subgroup_invocation_id) lane: u32", ""
        )
    declared = [item.declaration() for item in bindings]
    memory = [f"var<workgroup> {name}: {kind};" for kind, name in shared.items()]
    text = "\n".join([*headers, f"// {label}", *declared, *memory, *texts, main])
    return Source(text, bindings, threads, label)


def relay_bytes(sources: Sequence[Source]) -> int:
    """Memory of a workgroup that kernels take as a relay: equal arrays of several are one."""
    return sum(_bytes(kind) for kind in _shared([Leg(source, (), 0) for source in sources]))


def _bytes(kind: str) -> int:
    found = _ARRAY.fullmatch(kind.strip())
    if found is None:
        raise ValueError(f"workgroup memory of type {kind}: relays take arrays of words and vectors")
    words = {"vec4": 4, "vec2": 2}.get(found[1].partition("<")[0], 1)
    return 4 * words * int(found[2]) * int(found[3] or 1)


def _shared(legs: Sequence[Leg]) -> dict[str, str]:
    """Names of the relay's workgroup memory, by type.

    Of one type a leg may have several: the n-th of all legs are one.
    No driver says that there is too little: NVIDIA's (580) waits for ever for a kernel that has more than
    fits.
    """
    names: dict[str, str] = {}
    for leg in legs:
        for kind in _kinds(leg.source.text):
            names.setdefault(kind, f"shared_{len(names)}")
    return names


def _kinds(text: str) -> dict[str, str]:
    """The names of a module's workgroup memory, by type; of equal types the second is told from the first."""
    kinds: dict[str, str] = {}
    lane = re.search(r"^alias V = (.+);", text, re.MULTILINE)
    for name, kind in _SHARED.findall(text):
        kind = re.sub(r"\bV\b", lane[1], kind) if lane else kind
        while kind in kinds:
            kind += " "
        kinds[kind] = name
    return kinds


def _renamed(leg: Leg, index: int, names: Sequence[str], shared: Mapping[str, str], start: int) -> str:
    """A leg's module: its names are numbered, its bindings the relay's, its entry point a function."""
    own = leg.source.text.removesuffix(leg.source.engine) if leg.source.engine else leg.source.text
    text = _SHARED.sub("", _BOUND.sub("", _COMMENT.sub("", own)))
    text = "\n".join(line for line in text.splitlines() if line and not line.startswith("enable ")) + "\n"
    if leg.source.engine:
        text = re.sub(r"^struct Here \{\n(?:.*\n)*?\}\n", "", text, flags=re.MULTILINE)
        text = text.replace("here.at[", f"relay.at[{start}u + ")
    else:
        given = ", ".join(f"{name}: {kind}" for _, name, kind in _entry(text))
        text = _ENTRY.sub(f"fn main({given}) {{", text)
    new = {name: f"{name}_{index}" for pair in _DECLARED.findall(text) for name in pair if name}
    new |= {name: shared[kind] for kind, name in _kinds(leg.source.text).items()}
    new |= {f"b{at}": names[there] for at, there in enumerate(leg.bindings, 1)}
    text = _replaced(text, new)
    return re.sub(r"\bhere\.(at\[|size\b)", rf"relay.leg{index}.\1", text)  # an op may call an operand `here`


def _replaced(text: str, new: Mapping[str, str]) -> str:
    """A text with other names; a member's name, after a dot, is none of the module's."""
    return _WORD.sub(lambda found: new.get(found[0], found[0]), text)


def _engine(text: str, legs: Sequence[Leg], texts: Sequence[str], shared: Mapping[str, str]) -> str:
    """The engine, on the table of whichever leg there is now, and the functions it calls, by leg."""
    text = _COMMENT.sub("", text.partition("\n@compute")[0]) + "\n"
    memory = {name: shared[kind] for kind, name in _kinds(text).items()}
    body = _replaced(_SHARED.sub("", text), memory).replace("here.at[", "relay.at[leg_at + ")
    numbers = [index for index, leg in enumerate(legs) if leg.source.engine]
    asked = [_by_leg(name, numbers, texts) for name in _ASKED]
    return "\n".join(["var<private> leg_now: u32;", "var<private> leg_at: u32;", *asked, body])


def _by_leg(name: str, numbers: Sequence[int], texts: Sequence[str]) -> str:
    """A function that calls that of the leg there is now; legs whose functions are the same share a case."""
    cases: dict[str, list[int]] = {}
    head, result = "", ""
    for index in numbers:
        for own, given, returns, body in _FUNCTION.findall(texts[index]):
            if own == f"{name}_{index}":
                head, result = given, returns
                cases.setdefault(re.sub(rf"_{index}\b", "_", body), []).append(index)
    arguments = ", ".join(item.partition(":")[0].strip() for item in head.split(","))
    answer = "return " if result else ""
    calls = [(members, f"{answer}{name}_{members[0]}({arguments});") for members in cases.values()]
    if len(calls) == 1:
        return f"fn {name}({head}){result} {{\n    {calls[0][1]}\n}}"
    lines = [f"fn {name}({head}){result} {{", "    switch leg_now {"]
    for members, call in calls:
        labels = ", ".join([f"{index}u" for index in members])
        labels += ", default" if call == calls[-1][1] else ""
        lines.append(f"        case {labels}: {{\n            {call}\n        }}")
    return "\n".join([*lines, "    }", "}"])


def _entry(text: str) -> list[tuple[str, str, str]]:
    """(builtin, name, type) of each parameter of the entry point."""
    found = _ENTRY.search(text)
    assert found is not None, "every kernel has an entry point `main`"
    return _PARAMETER.findall(found[1])


def _thread(leg: Leg, threads: int) -> str:
    """Which of the kernel's threads one is: several are the same where its workgroup is smaller."""
    return "thread" if leg.source.threads == threads else f"thread % {leg.source.threads}u"


def _case(leg: Leg, index: int, threads: int) -> str:
    given = {
        "workgroup_id": "spot(unit, grid)",
        "num_workgroups": "grid.xyz",
        "local_invocation_index": _thread(leg, threads),
        "subgroup_size": "subgroup",
        "subgroup_invocation_id": "lane",
    }
    arguments = ", ".join(given[builtin] for builtin, _, _ in _entry(leg.source.text))
    return fill(_CASE, index=index, number=index, arguments=arguments)
