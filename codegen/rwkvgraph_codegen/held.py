"""Kernels for few rows: what they load is asked for at once, and kept in registers.

Nothing else hides how long memory takes where a row is all there is: a load after a reduction, or of a row
that another load tells, waits as long again (NVIDIA H200: 0.6 µs from the cache that all share, 0.9 from
memory).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from rwkvgraph_codegen.statement import Call, Load, Statement, Store

_WORD = re.compile(r"(?<![\w.])[A-Za-z_]\w*")


@dataclass(frozen=True)
class Held:
    """The loads of some statements that can be made ahead of all of them.

    common: those of one value for all lanes, with the calls that tell a row. lanes: those of a lane. names:
    of the statements' variables, which of the held ones they are.
    """

    common: tuple[Statement, ...]
    lanes: tuple[Load, ...]
    names: dict[str, str]

    def rest(self, statements: Iterable[Statement], suffix: str = "") -> list[Statement]:
        """Statements without what is held, using that. suffix: of the held lane's variables."""
        new = {name: self.name(name, suffix) for name in self.names}
        return [_renamed(item, new) for item in statements if isinstance(item, Store) or item.name not in new]

    @property
    def fields(self) -> list[tuple[str, str]]:
        """(name, type) of all."""
        return [
            (item.name, _kind(item)) for item in (*self.common, *self.lanes) if not isinstance(item, Store)
        ]

    def name(self, variable: str, suffix: str = "") -> str:
        """Which variable stands for a statement's."""
        held = self.names.get(variable, variable)
        return held + suffix if any(load.name == held for load in self.lanes) else held

    def lane(self, lane: str, suffix: str) -> list[Load]:
        """The loads of a lane."""
        return [replace(load, name=load.name + suffix, lane=lane) for load in self.lanes]


def _kind(item: Load | Call) -> str:
    if isinstance(item, Call) or item.mode == "word":
        return "u32"
    return "vec4<u32>" if item.mode == "words" else "V"


def hold(statements: Sequence[Statement]) -> Held:
    """What of these can be loaded ahead: all but what they write themselves, and rows that results tell."""
    return _hold(tuple(statements))


@lru_cache(maxsize=1024)
def _hold(statements: tuple[Statement, ...]) -> Held:
    """Kept, as layers that are alike ask for the same."""
    rows = {item.row for item in statements if isinstance(item, Load)}
    common: list[Statement] = []
    lanes: list[Load] = []
    names: dict[str, str] = {}
    known: dict[object, str] = {}
    made = {item.name for item in statements if not isinstance(item, Store)}
    fixed: set[str] = set()
    for item in statements:
        if isinstance(item, Store) or (isinstance(item, Call) and item.name not in rows):
            continue
        used = {name for text in _read_by(item) for name in _WORD.findall(text)} & made
        if not used <= fixed or (isinstance(item, Load) and item.binding.writable):
            continue
        moved = _renamed(item, names)
        assert not isinstance(moved, Store), "stores stay where they are"
        key = replace(moved, name="")
        if key not in known:
            known[key] = f"held{len(known)}"
            moved = replace(moved, name=known[key])
            if isinstance(moved, Load) and moved.mode == "lane":
                lanes.append(moved)
            else:
                common.append(replace(moved, lane="0u") if isinstance(moved, Load) else moved)
        names[item.name] = known[key]
        if not (isinstance(item, Load) and item.mode == "lane"):
            fixed.add(item.name)
    return Held(tuple(common), tuple(lanes), names)


def _read_by(item: Load | Call) -> tuple[str, ...]:
    """The expressions that a statement's value comes of."""
    return (item.row,) if isinstance(item, Load) else item.arguments


def replaced(text: str, new: Mapping[str, str]) -> str:
    """A text with other names; a member's name, after a dot, is none of them."""
    return _WORD.sub(lambda found: new.get(found[0], found[0]), text)


def _renamed(item: Statement, new: Mapping[str, str]) -> Statement:
    """A statement that uses other variables."""
    if isinstance(item, Call):
        return replace(item, arguments=tuple(replaced(text, new) for text in item.arguments))
    if isinstance(item, Load):
        return replace(item, row=replaced(item.row, new))
    value, row, guard = (replaced(text, new) for text in (item.value, item.row, item.guard))
    return replace(item, value=value, row=row, guard=guard)
