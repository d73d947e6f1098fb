"""What callers give a run, checked: a list of tokens for each slot, and which logits they want.

A token is an id, or a vector that takes the place of its embedding. Knows no device and runs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Literal, NoReturn

import numpy as np

from rwkvgraph.op import Array

Token = int | Array
Tokens = list[int] | list[Array] | list[Token]
Option = Literal["last", "full"]
"""The logits after a slot's last token, or after every token."""

OPTIONS = ("last", "full")


def check_lists(tokens: Any, num_batch: int) -> None:
    """Raise ValueError unless these are lists, one a slot, each its own."""
    if not isinstance(tokens, Sequence) or (
        set(map(type, tokens)) != {list} and any(not isinstance(slot, list) for slot in tokens)
    ):
        raise ValueError(
            "tokens is a list of lists of ids, one a slot: [[510, 17], [], [91]]; run takes from them"
        )
    if len(set(map(id, tokens))) != len(tokens):
        raise ValueError(
            "two slots share one list, and run takes tokens out of each; give every slot its own"
        )
    if len(tokens) != num_batch:
        raise ValueError(f"{len(tokens)} lists of tokens for a state of {num_batch} slots; give one a slot")


def full_slots(option: Any, num_batch: int) -> Array:
    """Which slots want the logits after every token, (slots,) bool. Raises ValueError for other options."""
    if isinstance(option, str) and option in OPTIONS:
        return np.full(num_batch, option == "full")
    if not isinstance(option, Sequence) or isinstance(option, str | bytes):
        raise ValueError(f'option is {option!r}; it is "last", "full", or a list of these, one a slot')
    if len(option) != num_batch:
        raise ValueError(
            f"{len(option)} options for a state of {num_batch} slots; give one a slot, or one for all"
        )
    wrong = next(
        (slot for slot, item in enumerate(option) if not isinstance(item, str) or item not in OPTIONS), None
    )
    if wrong is not None:
        raise ValueError(f'the option of slot {wrong} is {option[wrong]!r}; it is "last" or "full"')
    return np.array([item == "full" for item in option], np.bool_)


def flatten(
    tokens: Sequence[Tokens], counts: Sequence[int], width: int, num_vocab: int
) -> tuple[Array, Array, Array]:
    """The first `counts` tokens of the slots: ids (T,), picks (T,) and vectors (E, width) as in a `Stack`.

    Raises ValueError, naming the first token that is neither an id nor a vector of floats.
    """
    flat: list[Any] = list(
        chain.from_iterable(
            slot if count == len(slot) else slot[:count]
            for slot, count in zip(tokens, counts, strict=True)
            if count
        )
    )
    picks, vectors = np.zeros(len(flat), np.int64), np.empty((0, width), np.float32)
    if _has_arrays(flat):
        places = [at for at, token in enumerate(flat) if isinstance(token, np.ndarray)]
        arrays = [flat[at] for at in places]
        if not all(_is_vector(array, width) for array in arrays):
            raise_first_fault(tokens, counts, width, num_vocab)
        picks[places] = np.arange(1, len(places) + 1)
        vectors = np.stack(arrays).astype(np.float32)
        for at in places:
            flat[at] = 0
    ids = _as_ids(flat, num_vocab)
    if ids is None:
        raise_first_fault(tokens, counts, width, num_vocab)
    return ids, picks, vectors


def check_rest(tokens: Tokens, start: int, slot: int, width: int, num_vocab: int) -> None:
    """Raise ValueError for the first token from `start` on that is neither an id nor a vector."""
    rest: list[Any] = tokens[start:]
    if _has_arrays(rest):
        rest = [token for token in rest if not _is_vector(token, width)]
    if _as_ids(rest, num_vocab) is None:
        raise_first_fault([tokens], [len(tokens)], width, num_vocab, slot)


def raise_first_fault(
    tokens: Sequence[Tokens], counts: Sequence[int], width: int, num_vocab: int, first_slot: int = 0
) -> NoReturn:
    """Raise ValueError naming the first token that is neither an id from 0 to V - 1 nor a vector."""
    for slot, (ids, count) in enumerate(zip(tokens, counts, strict=True), first_slot):
        for at, value in enumerate(ids[:count]):
            if isinstance(value, np.ndarray) and not _is_vector(value, width):
                raise ValueError(
                    f"token {at} of slot {slot} is {_describe(value)}; a vector in place of a token's "
                    f"embedding is an array of floats of shape ({width},), without NaN or infinity"
                )
            if not isinstance(value, np.ndarray) and not (is_integer(value) and 0 <= value < num_vocab):
                raise ValueError(
                    f"token {at} of slot {slot} is {value!r}; ids are integers from 0 to {num_vocab - 1} "
                    f"for this model (another vocabulary?), or numpy arrays of shape ({width},)"
                )
    raise AssertionError("a token was refused, and then none is at fault")


def is_integer(value: object) -> bool:
    """Whether a value is an integer of Python or numpy; True and False are not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _as_ids(values: list[Any], num_vocab: int) -> Array | None:
    """The values as (T,) integers, if all of them are ids."""
    kinds = set(map(type, values))
    if not all(issubclass(kind, (int, np.integer)) and kind is not bool for kind in kinds):
        return None
    try:
        ids = np.array(values, np.int64)
    except OverflowError:
        return None
    # Of few values numpy takes longer to call than to compare.
    least, most = (
        (min(values), max(values)) if 0 < len(values) < 50 else (ids.min(initial=0), ids.max(initial=0))
    )
    return ids if least >= 0 and most < num_vocab else None


def _has_arrays(values: list[Any]) -> bool:
    return any(issubclass(kind, np.ndarray) for kind in set(map(type, values)))


def _is_vector(value: object, width: int) -> bool:
    """Whether a token is a vector that can stand for an embedding."""
    if not isinstance(value, np.ndarray) or value.shape != (width,) or value.dtype.kind != "f":
        return False
    with np.errstate(over="ignore"):
        return bool(np.isfinite(value.astype(np.float32, copy=False)).all())


def _describe(array: Array) -> str:
    """An array as an error names it."""
    kind = f"an array of {array.dtype} of shape {array.shape}"
    has_holes = array.dtype.kind == "f" and not np.isfinite(array).all()
    return f"{kind} with NaN or infinity in it" if has_holes else kind
