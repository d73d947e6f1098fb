"""Joining kernels into one module, as a linker does.

A kernel comes as its own module and stays as it is, but for the names that it declares, which get a number,
and the bindings, which all share. Nothing here knows what the kernels do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rwkvgraph_codegen.binding import Binding
from rwkvgraph_codegen.held import replaced
from rwkvgraph_codegen.source import Source

_DECLARED = re.compile(r"^(?:alias|struct|fn|const)\s+(\w+)|^var(?:<[^>]*>)?\s+(\w+)", re.MULTILINE)
_BOUND = re.compile(r"^@group\(0\) @binding\(\d+\) var.*\n", re.MULTILINE)
_ENTRY = re.compile(r"^@compute @workgroup_size\(\d+\)\s*\nfn main\(([^{]*)\) \{", re.MULTILINE)
_PARAMETER = re.compile(r"@builtin\((\w+)\)\s*(\w+)\s*:\s*([\w<>]+)")
SHARED = re.compile(r"^var<workgroup>\s+(\w+)\s*:\s*(.+);\n", re.MULTILINE)
_ARRAY = re.compile(r"array<(vec4<[fu]32>|vec2<[fu]32>|[fu]32|atomic<u32>|V), (\d+)(?: \* (\d+))?>")
COMMENT = re.compile(r"//.*")

BUILTINS = {
    "local_invocation_index": "thread",
    "subgroup_size": "subgroup",
    "subgroup_invocation_id": "lane",
}
"""What an entry point of several kernels calls what all of them may ask for."""


@dataclass(frozen=True)
class Leg:
    """One kernel of a relay.

    bindings: those of the relay that its own are, in order. rows: of its uniform's table, `size` aside.
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


def linked(
    label: str,
    legs: Sequence[Leg],
    bindings: tuple[Binding, ...],
    texts: Sequence[str],
    ends: Sequence[str],
    threads: int,
    is_tabled: bool = False,
) -> Source:
    """The module of legs: what it declares, their texts as `renamed` gives them, and the ends."""
    headers = dict.fromkeys(
        line for leg in legs for line in leg.source.text.splitlines() if line.startswith("enable ")
    )
    declared = [item.declaration() for item in bindings]
    memory = [f"var<workgroup> {name}: {kind};" for kind, name in shared_memory(legs).items()]
    text = "\n".join([*headers, f"// {label}", *declared, *memory, *texts, *ends])
    return Source(text + "\n", bindings, threads, label, is_tabled=is_tabled)


def relay_bytes(sources: Sequence[Source]) -> int:
    """Memory of a workgroup that kernels take as a relay: equal arrays of several are one."""
    return sum(_bytes(kind) for kind in shared_memory([Leg(source, (), 0) for source in sources]))


def _bytes(kind: str) -> int:
    found = _ARRAY.fullmatch(kind.strip())
    if found is None:
        raise ValueError(f"workgroup memory of type {kind}: relays take arrays of words and vectors")
    words = {"vec4": 4, "vec2": 2}.get(found[1].partition("<")[0], 1)
    return 4 * words * int(found[2]) * int(found[3] or 1)


def shared_memory(legs: Sequence[Leg]) -> dict[str, str]:
    """Names of the relay's workgroup memory, by type.

    Of one type a leg may have several: the n-th of all legs are one.
    No driver says that there is too little: NVIDIA's (580) waits for ever for a kernel that has more than
    fits.
    """
    names: dict[str, str] = {}
    for leg in legs:
        for kind in kinds(leg.source.text):
            names.setdefault(kind, f"shared_{len(names)}")
    return names


def kinds(text: str) -> dict[str, str]:
    """The names of a module's workgroup memory, by type; of equal types the second is told from the first."""
    kinds: dict[str, str] = {}
    lane = re.search(r"^alias V = (.+);", text, re.MULTILINE)
    for name, kind in SHARED.findall(text):
        kind = re.sub(r"\bV\b", lane[1], kind) if lane else kind
        while kind in kinds:
            kind += " "
        kinds[kind] = name
    return kinds


def renamed(
    leg: Leg,
    index: int,
    bindings: Sequence[Binding],
    shared: Mapping[str, str],
    size: str,
    at: str,
    has_struct: bool = False,
) -> str:
    """A leg's module: its names are numbered, its bindings the relay's, its entry point a function.

    size, at: what stands for `here.size`, and for `here.at[`. has_struct: whether its table keeps its type.
    """
    own = leg.source.text.removesuffix(leg.source.engine) if leg.source.engine else leg.source.text
    text = SHARED.sub("", _BOUND.sub("", COMMENT.sub("", own)))
    text = "\n".join(line for line in text.splitlines() if line and not line.startswith("enable ")) + "\n"
    if not has_struct:
        text = re.sub(r"^struct Here \{\n(?:.*\n)*?\}\n", "", text, flags=re.MULTILINE)
    if not leg.source.engine:
        given = ", ".join(f"{name}: {kind}" for _, name, kind in entry(text))
        text = _ENTRY.sub(f"fn main({given}) {{", text)
    new = {name: f"{name}_{index}" for pair in _DECLARED.findall(text) for name in pair if name}
    new |= {name: shared[kind] for kind, name in kinds(leg.source.text).items()}
    new |= {f"b{at}": bindings[there].name for at, there in enumerate(leg.bindings, 1)}
    text = re.sub(r"\bhere\.size\b", size, replaced(text, new))  # an op may call an operand `here`
    return re.sub(r"\bhere\.at\[", at, text)


def entry(text: str) -> list[tuple[str, str, str]]:
    """(builtin, name, type) of each parameter of the entry point."""
    found = _ENTRY.search(text)
    assert found is not None, "every kernel has an entry point `main`"
    return _PARAMETER.findall(found[1])


def arguments(leg: Leg, given: Mapping[str, str]) -> str:
    """What a leg's entry point is called with: `given` by builtin."""
    return ", ".join(given[builtin] for builtin, _, _ in entry(leg.source.text))
