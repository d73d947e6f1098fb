"""Statistics and drifts as aligned text and as plain values for JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from rwkvgraph.sight.drift import Drift
from rwkvgraph.sight.reading import Value
from rwkvgraph.sight.values import Place, Statistics

Facts = dict[str, object]
Text = Callable[[int], str]


def statistics_table(values: Sequence[Value], found: Mapping[str, Statistics], text: Text) -> str:
    """A line a value. text: that of the token at a position."""
    header = ["value", "mean", "rms", "largest", "token", "channel", "nan", "inf", ""]
    return aligned([header, *(_statistics_row(value.name, found[value.name], text) for value in values)])


def _statistics_row(name: str, item: Statistics, text: Text) -> list[str]:
    place = item.largest
    end = "← not finite" if item.first_not_finite else (text(place.token) if place else "")
    return [
        name,
        number(item.mean),
        number(item.rms),
        *_place(place),
        str(item.nans),
        str(item.infinities),
        end,
    ]


def drift_table(names: Sequence[str], found: Mapping[str, Drift], text: Text, first: str | None) -> str:
    """A line a value; that which drifts `first` is marked."""
    header = ["value", "relative", "cosine", "largest", "token", "channel", ""]
    rows = [_drift_row(name, found[name], text, name == first) for name in names]
    return aligned([header, *rows])


def _drift_row(name: str, item: Drift, text: Text, is_first: bool) -> list[str]:
    place = item.largest if item.largest and item.largest.value else None
    end = "← first drift" if is_first else (text(place.token) if place else "")
    cosine = "-" if math.isnan(item.cosine) else f"{item.cosine:.6f}"
    return [name, number(item.relative), cosine, *_place(place), end]


def statistics_facts(value: Value, item: Statistics) -> Facts:
    """A value's statistics for JSON: what is no number is null."""
    return {
        **_named(value),
        "numbers": item.count,
        "mean": fact(item.mean),
        "rms": fact(item.rms),
        "largest": place_facts(item.largest),
        "nan": item.nans,
        "inf": item.infinities,
        "first_not_finite": place_facts(item.first_not_finite),
    }


def drift_facts(value: Value, item: Drift) -> Facts:
    """A value's drift for JSON: what is no number, and infinity, is null."""
    return {
        **_named(value),
        "relative": fact(item.relative),
        "cosine": fact(item.cosine),
        "largest": place_facts(item.largest),
        "not_finite_in_one": item.unlike,
    }


def place_facts(place: Place | None) -> Facts | None:
    """A place for JSON."""
    if place is None:
        return None
    return {"value": fact(place.value), "token": place.token, "channel": place.channel}


def _named(value: Value) -> Facts:
    return {"name": value.name, "layer": value.layer, "slot": value.slot, "site": value.site}


def fact(value: float) -> float | None:
    """A number for JSON, which has neither NaN nor infinity."""
    return value if math.isfinite(value) else None


def _place(place: Place | None) -> list[str]:
    if place is None:
        return ["-", "-", "-"]
    return [number(place.value), str(place.token), str(place.channel)]


def number(value: float) -> str:
    """Four digits; a dash for what there is not."""
    return "-" if math.isnan(value) else f"{value:.4g}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns: the first and the last to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *middle, last in rows:
        cells = [cell.rjust(width) for cell, width in zip(middle, widths[1:-1], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells, last]).rstrip())
    return "\n".join(lines)
