"""Recurrences of random numbers, for tests of the kernels that run them."""

import numpy as np

from rwkvgraph.op import Tensor
from rwkvgraph.ops.recurrence import Recurrence
from rwkvgraph.ops.wkv6 import Wkv6
from rwkvgraph.ops.wkv7 import Wkv7
from rwkvgraph.testing import holding

Numbers = np.random.Generator


def cursors_of(rng: Numbers, cuts: tuple[int, ...], slots: int) -> tuple[Tensor, Tensor]:
    """(starts, cursors) of slots in random order that have so many tokens each."""
    words = np.zeros((sum(cuts), 4), np.uint32)
    starts = np.cumsum([0, *cuts[:-1]]).astype(np.uint32)
    for slot, start, count in zip(rng.permutation(slots), starts, cuts, strict=False):
        words[start : start + count, :3] = slot, start, count
    return holding(starts), holding(words)


def recurrence(rng: Numbers, size: int, head_count: int = 2, cuts: tuple[int, ...] = (1, 4, 2)) -> Recurrence:
    """Wkv7 of heads of `size`; its inputs lie in one buffer, as a device may bind no more than 8."""
    starts, cursors = cursors_of(rng, cuts, 4)
    shape = (sum(cuts), head_count, size)
    kk = rng.normal(size=shape)
    kk /= np.linalg.norm(kk, axis=-1, keepdims=True)
    r, k, v = rng.normal(size=(3, *shape))
    six = [r, rng.uniform(0.5, 1, shape), k, v, kk, rng.uniform(0, 1, shape)]
    inputs = holding(np.stack(six))
    state = holding(rng.normal(size=(4, size, head_count * size)))
    return Wkv7(starts, cursors, inputs[0], inputs[1], inputs[2], inputs[3], inputs[4], inputs[5], state)


def constant_heads(
    rng: Numbers, size: int, is_constant: bool = True, cuts: tuple[int, ...] = (1, 4, 2)
) -> Recurrence:
    """Wkv6 of 2 heads of `size`, as RWKV-5 has it, with one decay for all tokens, or as RWKV-6."""
    starts, cursors = cursors_of(rng, cuts, 4)
    r, k, v = (holding(values) for values in rng.normal(size=(3, sum(cuts), 2, size)))
    w = holding(rng.uniform(0.5, 1, (2, size) if is_constant else (sum(cuts), 2, size)))
    u, state = holding(rng.normal(size=(2, size))), holding(rng.normal(size=(4, size, 2 * size)))
    return Wkv6(starts, cursors, r, w, k, v, u, state)
