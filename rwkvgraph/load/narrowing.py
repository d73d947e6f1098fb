"""bfloat16 as float16, by its bits: numpy has no bfloat16, and over float32 it takes seven times as long."""

from __future__ import annotations

import numpy as np

from rwkvgraph.op import Array

TOGETHER = 1 << 17
"""Numbers looked at together: few enough for a core's cache, many enough that threads do not meet often."""

SIGN = np.uint16(0x8000)
LOWEST = np.uint16(112 << 7)
"""The exponent, of 8 bits over 7 of the fraction, that float16 has as 0; it goes up to 30 above it."""
STEP = np.uint16(1 << 7)
NORMAL = np.uint16(30 << 7)


def narrowed(bits: Array) -> Array:
    """Flat float16 of bfloat16's bits (u16, flat), rounded to nearest; infinite where float16 ends."""
    result = np.empty(bits.size, np.uint16)
    room = np.empty(min(TOGETHER, bits.size), np.uint16)
    for at in range(0, bits.size, TOGETHER):
        part = bits[at : at + TOGETHER]
        _narrow(part, result[at : at + TOGETHER], room[: part.size])
    return result.view(np.float16)


def _narrow(bits: Array, result: Array, room: Array) -> None:
    """Shift the exponent, which float16 counts from 112 less, and the fraction, which has three bits more.

    Of what is no normal float16 something else comes of that; few weights are so small, and those are done
    over. numpy wraps what does not fit.
    """
    np.bitwise_and(bits, ~SIGN, out=room)
    np.subtract(room, LOWEST, out=room)
    np.left_shift(room, 3, out=result)
    np.subtract(room, STEP, out=room)
    odd = np.flatnonzero(room >= NORMAL)
    np.bitwise_and(bits, SIGN, out=room)
    np.bitwise_or(result, room, out=result)
    if odd.size:
        result[odd] = EVERY[bits[odd]]


def _every() -> Array:
    """The float16 of each bfloat16, as bits by bits."""
    wide = np.arange(1 << 16, dtype=np.uint32) << 16
    with np.errstate(over="ignore"):
        return wide.view(np.float32).astype(np.float16).view(np.uint16)


EVERY = _every()
