"""What `rwkvgraph inspect` says of statistics and of a comparison, as text and as plain values for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from rwkvgraph.errors import TokenizerError
from rwkvgraph.sight import tables
from rwkvgraph.sight.drift import (
    Drift,
    Logits,
    divergence,
    first_above,
    first_unlike,
    largest_jump,
    probability,
    same_tops,
)
from rwkvgraph.sight.reading import Value
from rwkvgraph.sight.values import Place, Statistics
from rwkvgraph.tokenizer import END_OF_TEXT, Tokenizer

Facts = dict[str, object]

STREAM = ("x@PostEmbedLayerNorm", "x@PostFfn", "head_o@PostHead")
"""Ends of the names of the values that a comparison always shows: the stream by layer, and the logits."""

BEFORE, AFTER = 3, 5
"""Values in order of execution that a comparison shows around the first that drifts."""


@dataclass(frozen=True)
class Prompt:
    """Token ids, and the tokenizer that made them."""

    ids: list[int]
    tokenizer: Tokenizer

    def text(self, position: int) -> str:
        """The token at a position as people read it, quoted."""
        return token_text(self.tokenizer, self.ids[position])


@dataclass(frozen=True)
class Report:
    """The same as text and for JSON."""

    text: str
    facts: Facts


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """A token as people read it, quoted; an id that the vocabulary lacks as such."""
    if token == END_OF_TEXT:
        return "end of text"
    try:
        return repr(tokenizer.decode_text([token], errors="backslashreplace"))
    except TokenizerError:
        return f"id {token}"


def statistics_report(
    values: Sequence[Value], found: Mapping[str, Statistics], prompt: Prompt, hint: str
) -> Report:
    """A table, before it the first place that is not finite. hint: what that line ends in."""
    lines = [tables.statistics_table(values, found, prompt.text)]
    wrong = first_not_finite(values, found)
    if wrong:
        name, place = wrong
        lines.insert(
            0,
            f"first not finite: {name}, token {place.token} ({prompt.text(place.token)}), "
            f"channel {place.channel}{hint}\n",
        )
    facts: Facts = {
        "first_not_finite": {"name": wrong[0], **(tables.place_facts(wrong[1]) or {})} if wrong else None,
        "values": [tables.statistics_facts(value, found[value.name]) for value in values],
    }
    return Report("\n".join(lines), facts)


def first_not_finite(values: Sequence[Value], found: Mapping[str, Statistics]) -> tuple[str, Place] | None:
    """The first value, in order of execution, with NaN or infinity, and its first token and channel."""
    for value in values:
        place = found[value.name].first_not_finite
        if place is not None:
            return value.name, place
    return None


def comparison_report(
    values: Sequence[Value],
    found: Mapping[str, Drift],
    first: Logits,
    second: Logits,
    prompt: Prompt,
    threshold: float,
    is_full: bool,
) -> Report:
    """The verdict, what becomes of the next token, the stream by layer, the values around the first drift.

    is_full: every value instead of those.
    """
    names = [value.name for value in values]
    stream = stream_of(names)
    drifting = first_above(found, threshold)
    jump = largest_jump(found, stream)
    lines = [verdict(found, threshold)]
    if jump:
        lines.append(f"largest jump of the stream: ×{jump.factor:.3g} from {jump.before} to {jump.after}")
    lines += [next_token(first, second, prompt.tokenizer), ""]
    shown = names if is_full or not stream else stream
    lines.append(tables.drift_table(shown, found, prompt.text, drifting))
    if drifting and shown is not names:
        lines += ["", tables.drift_table(around(names, drifting), found, prompt.text, drifting)]
    facts: Facts = {
        "threshold": threshold,
        "first_drift": drifting,
        "first_difference": first_unlike(found),
        "largest_jump": jump
        and {"before": jump.before, "after": jump.after, "factor": tables.fact(jump.factor)},
        "next_token": [first.tops[-1], second.tops[-1]],
        "same_top_tokens": same_tops(first, second),
        "positions": len(first.tops),
        "kl_divergence": tables.fact(divergence(first.last, second.last)),
        "values": [tables.drift_facts(value, found[value.name]) for value in values],
    }
    return Report("\n".join(lines), facts)


def stream_of(names: Sequence[str]) -> list[str]:
    """Those of the stream, from layer to layer, and the logits."""
    return [name for name in names if name.rpartition(".")[2] in STREAM]


def around(names: Sequence[str], name: str) -> list[str]:
    """A value, some before and some after it."""
    at = names.index(name)
    return list(names[max(0, at - BEFORE) : at + AFTER + 1])


def verdict(found: Mapping[str, Drift], threshold: float) -> str:
    """What a comparison has found, in a line."""
    first, unlike = first_above(found, threshold), first_unlike(found)
    if unlike is None:
        return f"no difference: {len(found)} values are the same, number for number"
    farthest = max(found, key=lambda name: found[name].relative)
    if first is None:
        return (
            f"no drift: relative differences of {len(found)} values are within {threshold:g}; they begin at "
            f"{unlike}, the largest is {tables.number(found[farthest].relative)} of {farthest}"
        )
    before = [drift.relative for drift in takewhile(lambda drift: drift is not found[first], found.values())]
    return (
        f"first drift: {first}, relative difference {tables.number(found[first].relative)} (threshold "
        f"{threshold:g}); before it at most {tables.number(max(before, default=0.0))}"
    )


def next_token(first: Logits, second: Logits, tokenizer: Tokenizer) -> str:
    """What becomes of the logits, in a line."""
    after, other = (
        f"{token_text(tokenizer, logits.tops[-1])} ({probability(logits.last, logits.tops[-1]):.3f})"
        for logits in (first, second)
    )
    apart = divergence(first.last, second.last)
    nats = "unknown, as logits are not finite" if math.isnan(apart) else f"{apart:.2g} nats"
    return (
        f"next token: {after} and {other}, KL divergence {nats}; the same top token at "
        f"{same_tops(first, second)} of {len(first.tops)} positions"
    )
