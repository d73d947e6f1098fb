"""Several kernels as one: a relay, whose workgroups take one kernel after another and meet in between.

`link.py` joins them; here is what they need of each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from rwkvgraph_codegen.binding import Binding
from rwkvgraph_codegen.held import replaced
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
from rwkvgraph_codegen.source import Source, fill, prelude

TURNS = 1 << 20
"""Looks at the meeting's counter, each about 0.7 µs, before a workgroup gives up on the others."""

LATE = 16
"""The word of the meeting that is set by a workgroup that gave up, 64 bytes from the counter."""

MEETING_WORDS = 64

_FUNCTION = re.compile(r"^fn (\w+)\(([^)]*)\)( -> [\w<>]+)? \{\n((?:.*\n)*?)\}\n", re.MULTILINE)

_ASKED = ("part_of", "weight", "bring", "finish", "prepare")
"""The functions of a kernel that its engine calls."""

_ASK = """            let next = table[leg * ${words}u + 4u].x;
            leg_now = next;
            leg_at = table[next * ${words}u + 2u].y;
            // The first subgroup looks at the counter meanwhile.
            if thread >= subgroup && group.x < table[leg * ${words}u + 4u].y {
                let asked = ask(group.x, thread - subgroup, ${threads}u - subgroup);
                if asked == 0x9e3779b9u && table[0].x == 0u {
                    atomicStore(&$meeting[32], 1u); // never, but who compiles this cannot know
                }
            }"""
_NOW = """        leg_now = leg;
        leg_at = kind.y;"""
_CASE = """            case $index: {
                for (var unit = own; unit < grid.w; unit += groups.x) {
                    main_$number($arguments);
                    workgroupBarrier();
                }
            }"""
_WORK = """            default: {
                for (var unit = own; unit < grid.w; unit += groups.x) {
                    work(unit, thread, subgroup, lane);
                    workgroupBarrier();
                }
            }"""
_IDLE = """        if own >= grid.w {
            let what = table[leg * ${words}u + 3u];
            touch(own - grid.w, groups.x - grid.w, thread, what.x, what.y);
            touch(own - grid.w, groups.x - grid.w, thread, what.z, what.w);
        }"""
_NOTHING = "            default: {\n            }"


WORDS = 4
"""Rows of the table that say of a leg where it runs, in front of the legs' own tables."""


def starts_of(legs: Sequence[Leg]) -> list[int]:
    """Where each leg's own table begins in that of the relay, and behind them where that ends."""
    starts = [1 + WORDS * len(legs)]
    for leg in legs:
        starts.append(starts[-1] + 1 + leg.rows)
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
    texts = [
        renamed(leg, index, every, shared, f"table[{start}u]", f"table[{start + 1}u + ")
        for index, (leg, start) in enumerate(zip(legs, starts, strict=False))
    ]
    own = [index for index, leg in enumerate(legs) if not leg.source.engine]
    main = fill(
        prelude("relay.wgsl"),
        rows=starts[-1],
        words=WORDS,
        meeting=meeting.name,
        late=LATE,
        threads=threads,
        ask=fill(_ASK, words=WORDS, threads=threads, meeting=meeting.name) if engines else "",
        now=_NOW if engines else "",
        touch=fill(prelude("touch.wgsl"), threads=threads, meeting=meeting.name) if engines else "",
        idle=fill(_IDLE, words=WORDS) if engines else "",
        cases="\n".join(
            [*(_case(legs[index], index, threads) for index in own), _WORK if engines else _NOTHING]
        ),
    )
    engine = [_engine(engines.pop(), legs, texts, shared)] if engines else []
    return linked(label, legs, every, texts, [*engine, main], threads, is_tabled=True)


def _engine(text: str, legs: Sequence[Leg], texts: Sequence[str], shared: Mapping[str, str]) -> str:
    """The engine, on the table of whichever leg there is now, and the functions it calls, by leg."""
    text = COMMENT.sub("", text.partition("\n@compute")[0]) + "\n"
    memory = {name: shared[kind] for kind, name in kinds(text).items()}
    body = replaced(SHARED.sub("", text), memory).replace("here.at[", "table[leg_at + ")
    numbers = [index for index, leg in enumerate(legs) if leg.source.engine]
    asked = [_by_leg(name, numbers, texts) for name in _ASKED]
    return "\n".join(["var<private> leg_now: u32;", "var<private> leg_at: u32;", *asked, body])


def _by_leg(name: str, numbers: Sequence[int], texts: Sequence[str]) -> str:
    """A function that calls that of the leg there is now; legs whose functions are the same share a case."""
    cases: dict[str, list[int]] = {}
    head, result = "", ""
    for index in numbers:
        functions = {own: rest for own, *rest in _FUNCTION.findall(texts[index])}
        if f"{name}_{index}" in functions:
            head, result, _ = functions[f"{name}_{index}"]
            bodies = _reached(f"{name}_{index}", {own: rest[2] for own, rest in functions.items()})
            cases.setdefault(re.sub(rf"_{index}\b", "_", bodies), []).append(index)
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


def _reached(name: str, bodies: Mapping[str, str]) -> str:
    """The bodies of a function and of all that it calls: any of them may read the leg's table."""
    order = [name]
    for own in order:
        order += [
            called for called in re.findall(r"\w+", bodies[own]) if called in bodies and called not in order
        ]
    return "\n".join(bodies[own] for own in order)


def _case(leg: Leg, index: int, threads: int) -> str:
    given = {**BUILTINS, "workgroup_id": "vec3<u32>(unit, 0u, 0u)", "num_workgroups": "grid.xyz"}
    if leg.source.threads != threads:  # several are the same where the kernel's workgroup is smaller
        given["local_invocation_index"] = f"thread % {leg.source.threads}u"
    return fill(_CASE, index=index, number=index, arguments=arguments(leg, given))
