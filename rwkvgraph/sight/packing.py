"""Packing values of one form: the first is kept whole, of later ones only the leaves that differ from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def pack(values: Sequence[Any]) -> list[Any]:
    """`{"whole": value}`, or `{"as": index, "set": [leaf, value, leaf, value, …]}`.

    Leaves are counted depth first. A value is packed against the first one before it of the same form: the
    same keys and lengths all the way down.
    """
    first: dict[str, tuple[int, list[Any]]] = {}
    packed: list[Any] = []
    for index, value in enumerate(values):
        own: list[Any] = []
        form: list[str] = []
        _spread(value, own, form)
        at, known = first.setdefault("".join(form), (index, own))
        if at == index:
            packed.append({"whole": value})
            continue
        changes = [part for n, leaf in enumerate(own) if leaf != known[n] for part in (n, leaf)]
        packed.append({"as": at, "set": changes})
    return packed


def unpack(packed: Sequence[Any]) -> list[Any]:
    """What `pack` was given. The page does the same in JavaScript, a section when it is asked for."""
    values: list[Any] = []
    for item in packed:
        if "whole" in item:
            values.append(item["whole"])
            continue
        changes = dict(zip(item["set"][::2], item["set"][1::2], strict=True))
        values.append(_changed(values[item["as"]], changes, [0]))
    return values


def _spread(value: Any, leaves: list[Any], form: list[str]) -> None:
    """Add a value's leaves, depth first, and the text of its form."""
    if isinstance(value, dict):
        for key, inner in value.items():
            form.append(f"{key}:")
            _spread(inner, leaves, form)
        form.append("}")
    elif isinstance(value, list):
        form.append("[")
        for inner in value:
            _spread(inner, leaves, form)
        form.append("]")
    else:
        form.append(".")
        leaves.append(value)


def _changed(value: Any, changes: dict[int, Any], count: list[int]) -> Any:
    if isinstance(value, dict):
        return {key: _changed(inner, changes, count) for key, inner in value.items()}
    if isinstance(value, list):
        return [_changed(inner, changes, count) for inner in value]
    count[0] += 1
    return changes.get(count[0] - 1, value)
