"""Heads of many sizes in RWKV-5 and 6, on both devices, against their oracles. RWKV-7's are in test_v7.py.

llvmpipe compiles what has a text of its own for a size in one to three seconds, for 256 in twenty.
"""

from functools import cache

import numpy as np
import pytest

from rwkvgraph.model import Model
from tests.rwkvgraph.conftest import Device
from tests.rwkvgraph.models.synthetic import Half, synthetic
from tests.rwkvgraph.models.yardstick import Expected, cut_at, expect, feed

SLOW = pytest.mark.slow
SIZES = (3, 8, 32, 128, *(pytest.param(size, marks=SLOW) for size in (1, 12, 16, 96, 256)))
RANKS = (8, 12)
VOCAB = 31
ENDS = (17, 18, 21)
"""Where the prompt is cut: into a long run, one of a token, and short ones."""
PROMPT: list[int] = np.random.default_rng(7).integers(0, VOCAB, 24).tolist()


@cache
def tensors_of(version: str, size: int, heads: int) -> dict[str, Half]:
    ranks = RANKS if version == "v6" else None
    return synthetic(version, 1, heads * size, head_size=size, hidden=41, vocab=VOCAB, low_rank=ranks)


@cache
def answer(version: str, size: int, heads: int) -> Expected:
    return expect(tensors_of(version, size, heads), PROMPT)


def check(version: str, size: int, heads: int, device: Device) -> None:
    """Fail unless the model gives the oracle's logits and state, cut anywhere and beside another prompt."""
    model, expected = Model.load(tensors_of(version, size, heads), device), answer(version, size, heads)
    assert (model.info.num_head, model.info.head_size) == (heads, size)
    state = model.state(2)
    logits, _ = feed(model, state, [cut_at(PROMPT, ENDS), [PROMPT[:5]]])
    times = [expected.check_logits(row, end - 1) for row, end in zip(logits, [*ENDS, 24], strict=True)]
    times.append(expected.check_state(state.read(0)))
    print(f"{version}, {heads} heads of {size}: {max(times):.2f} times the float32 noise")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("version", ["v5.2", "v6"])
def test_heads_of_any_size_give_what_the_oracle_gives(version: str, size: int, device: Device) -> None:
    check(version, size, 5 if size < 8 else 3 if size < 64 else 2 if size < 128 else 1, device)


@pytest.mark.parametrize("version", ["v5.0", "v5.1", "v5.2", "v6"])
def test_a_head_alone_gives_what_the_oracle_gives(version: str, device: Device) -> None:
    check(version, 16, 1, device)


@pytest.mark.parametrize("version", ["v5.0", "v5.1"])
def test_heads_with_one_decay_each_give_what_the_oracle_gives(version: str, device: Device) -> None:
    for size, heads in ((1, 5), (12, 3), (32, 2)):
        check(version, size, heads, device)
