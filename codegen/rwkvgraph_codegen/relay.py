"""Several kernels as one: a relay, whose workgroups take one kernel after another and meet in between.

`link.py` joins them; here is what they need of each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from rwkvgraph_codegen.binding import Binding
from rwkvgraph_codegen.held import replaced
from rwkvgraph_codegen.kernel import prelude
from rwkvgraph_codegen.link import (
    BUILTINS,
    COMMENT,
    SHARED,
    Leg,
    arguments,
    kinds,
    linked,
    renamed,
    shared_memory,
)
from rwkvgraph_codegen.source import Source, fill

TURNS = 1 << 20
"""Looks at the meeting's counter, each about 0.7 µs, before a workgroup gives up on the others."""

LATE = 16
"""The word of the meeting that is set by a workgroup that gave up, 64 bytes from the counter."""

MEETING_WORDS = 64

_FUNCTION = re.compile(r"^fn (\w+)\(([^)]*)\)( -> [\w<>]+)? \{\n((?:.*\n)*?)\}\n", re.MULTILINE)

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
    shared, starts = shared_memory(legs), starts_of(legs)
    engines = {leg.source.engine for leg in legs if leg.source.engine}
    if len(engines) > 1:
        raise ValueError(f"{label}: its kernels have {len(engines)} engines; a relay has one")
    texts = [renamed(leg, index, every, shared, starts[index]) for index, leg in enumerate(legs)]
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
    engine = [_engine(engines.pop(), legs, texts, shared)] if engines else []
    return linked(label, legs, every, texts, [*engine, main], threads)


def _engine(text: str, legs: Sequence[Leg], texts: Sequence[str], shared: Mapping[str, str]) -> str:
    """The engine, on the table of whichever leg there is now, and the functions it calls, by leg."""
    text = COMMENT.sub("", text.partition("\n@compute")[0]) + "\n"
    memory = {name: shared[kind] for kind, name in kinds(text).items()}
    body = replaced(SHARED.sub("", text), memory).replace("here.at[", "relay.at[leg_at + ")
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


def _case(leg: Leg, index: int, threads: int) -> str:
    given = {**BUILTINS, "workgroup_id": "spot(unit, grid)", "num_workgroups": "grid.xyz"}
    if leg.source.threads != threads:  # several are the same where the kernel's workgroup is smaller
        given["local_invocation_index"] = f"thread % {leg.source.threads}u"
    return fill(_CASE, index=index, number=index, arguments=arguments(leg, given))
