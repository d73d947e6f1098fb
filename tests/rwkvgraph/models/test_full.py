"""The logits after every token of a run, for every version: the same as those of runs that end there."""

import numpy as np
import pytest

from rwkvgraph.model import Model
from rwkvgraph.state import State
from tests.rwkvgraph.conftest import Device
from tests.rwkvgraph.models.oracle_common import Array
from tests.rwkvgraph.models.synthetic import VERSIONS, synthetic
from tests.rwkvgraph.models.test_versions import CHUNK, SIZES
from tests.rwkvgraph.models.yardstick import Expected, cut_at, expect, feed

LENGTHS = (150, 20, 1)
"""Tokens of the slots: more than a run takes, fewer, one."""


class Prompts:
    """A model of a version, and what it should give for a prompt of each of LENGTHS."""

    def __init__(self, version: str, device: Device) -> None:
        tensors = synthetic(version, 2, **SIZES[version][0])
        self.model = Model.load(tensors, device, CHUNK)
        random = np.random.default_rng(8)
        vocab = self.model.info.num_vocab
        self.tokens: list[list[int]] = [random.integers(0, vocab, length).tolist() for length in LENGTHS]
        long, *others = (expect(tensors, tokens) for tokens in self.tokens)
        self.expected: list[Expected] = [long, *(other.no_stricter_than(long) for other in others)]


@pytest.fixture(scope="module", params=VERSIONS)
def prompts(request: pytest.FixtureRequest, device: Device) -> Prompts:
    return Prompts(request.param, device)


def run_full(model: Model, state: State, tokens: list[list[int]]) -> list[Array]:
    """Logits (n, V) of each slot after every one of its tokens, of as many calls as it takes."""
    rest = [list(slot) for slot in tokens]
    parts: list[list[Array]] = [[np.empty((0, model.info.num_vocab), np.float32)] for _ in tokens]
    while any(rest):
        before = [len(slot) for slot in rest]
        for slot, rows in enumerate(model.run(rest, state, option="full")):
            took = before[slot] - len(rest[slot])
            assert took == (0 if rows is None else len(rows))
            if rows is not None:
                parts[slot].append(rows)
    return [np.concatenate(slot) for slot in parts]


def check(expected: Expected, rows: Array, start: int = 0) -> None:
    """Fail unless these are the rows from token `start` on."""
    for at, row in enumerate(rows, start):
        expected.check_logits(row, at)


@pytest.mark.parametrize("slots", [1, 3], ids=["alone", "beside others"])
def test_every_row_is_what_the_oracle_gives_there(prompts: Prompts, slots: int) -> None:
    state = prompts.model.state(slots)
    rows = run_full(prompts.model, state, prompts.tokens[:slots])
    for slot in range(slots):
        assert len(rows[slot]) == LENGTHS[slot]
        check(prompts.expected[slot], rows[slot])
        prompts.expected[slot].check_state(state.read(slot))


def test_a_slot_without_tokens_has_no_rows(prompts: Prompts) -> None:
    state = prompts.model.state(3)
    nothing, rows, also_nothing = run_full(prompts.model, state, [[], prompts.tokens[1], []])
    assert len(nothing) == len(also_nothing) == 0
    assert len(rows) == LENGTHS[1]
    check(prompts.expected[1], rows)


def test_a_prompt_may_be_cut_between_full_runs(prompts: Prompts) -> None:
    state, start = prompts.model.state(), 0
    for part in cut_at(prompts.tokens[0], [1, 34, 36]):
        (rows,) = run_full(prompts.model, state, [part])
        check(prompts.expected[0], rows, start)
        start += len(part)
    prompts.expected[0].check_state(state.read(0))


def test_full_equals_last_at_every_position(prompts: Prompts) -> None:
    state = prompts.model.state()
    tokens, expected = prompts.tokens[1], prompts.expected[1]
    (full,) = run_full(prompts.model, prompts.model.state(), [tokens])
    ((*last,),) = feed(prompts.model, state, [[[token] for token in tokens]])
    for at, (one, other) in enumerate(zip(full, last, strict=True)):
        expected.check_logits(one, at)
        expected.check_logits(other, at)
        assert np.argmax(one) == np.argmax(other)


def test_a_last_run_may_follow_a_full_one(prompts: Prompts) -> None:
    state = prompts.model.state()
    run_full(prompts.model, state, [prompts.tokens[0][:77]])
    ((logits,),) = feed(prompts.model, state, [[prompts.tokens[0][77:]]])
    prompts.expected[0].check_logits(logits)
    prompts.expected[0].check_state(state.read(0))
