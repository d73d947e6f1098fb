"""Models of every version and of odd sizes, on both devices, against their oracles, however they are fed."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rwkvgraph.model import Model
from tests.rwkvgraph.conftest import Device
from tests.rwkvgraph.models.oracles import oracle_for
from tests.rwkvgraph.models.synthetic import VERSIONS, Half, synthetic
from tests.rwkvgraph.models.yardstick import Expected, cut_at, expect, feed

CHUNK = 128
LENGTHS = (1, 7, 33, 130)
LONG = 700
BESIDE = (3, 45)
"""Tokens of the slots beside the one that is cut: some end before it."""

# The first of each version also runs LONG tokens. Two layers; widths, hidden sizes, vocabularies and ranks
# that are no multiples of anything, heads of 8 to 64.
SIZES: dict[str, list[dict[str, Any]]] = {
    "v4": [{"width": 32, "vocab": 251}, {"width": 50, "hidden": 77, "vocab": 777}],
    "v5.0": [{"width": 48, "head_size": 16, "vocab": 251}],
    "v5.1": [{"width": 32, "head_size": 8, "hidden": 50, "vocab": 777}],
    "v5.2": [
        {"width": 32, "head_size": 8, "vocab": 251},
        {"width": 60, "head_size": 20, "hidden": 101, "vocab": 37},
        {"width": 64, "head_size": 64, "hidden": 100},
    ],
    "v6": [
        {"width": 32, "head_size": 8, "low_rank": (8, 12)},
        {"width": 60, "head_size": 20, "hidden": 101, "low_rank": (5, 7), "vocab": 777},
        {"width": 64, "head_size": 64, "low_rank": (1, 33), "vocab": 251},
    ],
    "v7": [{"width": 32, "head_size": 8, "low_rank": (8, 8, 8, 8), "vocab": 251}],  # test_v7 has more
}


@dataclass(frozen=True)
class Case:
    """A model by its place in SIZES."""

    version: str
    index: int

    def __str__(self) -> str:
        width = SIZES[self.version][self.index]["width"]
        return f"{self.version} of {width}"


def case(version: str, index: int) -> Any:
    return pytest.param(Case(version, index), id=str(Case(version, index)))


CASES = [case(version, index) for version in VERSIONS for index in range(len(SIZES[version]))]


@cache
def tensors_of(case: Case) -> dict[str, Half]:
    return synthetic(case.version, 2, **SIZES[case.version][case.index], seed=case.index)


@cache
def prompt(case: Case, seed: int, length: int) -> list[int]:
    vocab = len(tensors_of(case)["emb.weight"])
    tokens: list[int] = np.random.default_rng(seed).integers(0, vocab, LONG)[:length].tolist()
    return tokens


@cache
def answer(case: Case, seed: int, length: int) -> Expected:
    """What a prompt gives; of short ones, with the noise of longer ones that begin with them."""
    expected = expect(tensors_of(case), prompt(case, seed, length))
    return expected.no_stricter_than(answer(case, 0, LENGTHS[-1])) if length < LENGTHS[-1] else expected


@pytest.fixture(scope="module", params=CASES)
def which(request: pytest.FixtureRequest) -> Case:
    chosen: Case = request.param
    return chosen


@pytest.fixture(scope="module")
def model(which: Case, device: Device) -> Model:
    return Model.load(tensors_of(which), device, CHUNK)


def check_prompt(model: Model, which: Case, length: int) -> None:
    state = model.state()
    ((logits,),) = feed(model, state, [[prompt(which, 0, length)]])
    expected = answer(which, 0, length)
    times = expected.check_logits(logits), expected.check_state(state.read(0))
    print(f"{which}, {length} tokens: {times[0]:.2f} and {times[1]:.2f} times the float32 noise")


@pytest.mark.parametrize("length", LENGTHS)
def test_a_prompt_gives_what_the_oracle_gives(model: Model, which: Case, length: int) -> None:
    check_prompt(model, which, length)


@pytest.mark.parametrize("which", [case(version, 0) for version in VERSIONS], indirect=True)
def test_a_long_prompt_gives_what_the_oracle_gives(model: Model, which: Case) -> None:
    check_prompt(model, which, LONG)


@pytest.mark.parametrize("slots", [1, 3], ids=["alone", "beside others"])
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ends=st.sets(st.integers(1, LENGTHS[-1] - 1), max_size=5).map(sorted),
    chunk=st.sampled_from([7, 32, CHUNK]),
)
def test_a_prompt_may_be_cut_anywhere(
    model: Model, which: Case, slots: int, ends: list[int], chunk: int
) -> None:
    state = model.state(slots)
    lengths = (LENGTHS[-1], *BESIDE)[:slots]
    prompts = [prompt(which, slot, length) for slot, length in enumerate(lengths)]
    expected = [answer(which, slot, length) for slot, length in enumerate(lengths)]
    model.token_chunk_size = chunk
    logits = feed(model, state, [cut_at(prompts[0], ends), *([other] for other in prompts[1:])])
    model.token_chunk_size = CHUNK
    for row, end in zip(logits[0], [*ends, LENGTHS[-1]], strict=True):
        expected[0].check_logits(row, end - 1)
    for slot in range(1, slots):
        expected[slot].check_logits(logits[slot][0])
    for slot in range(slots):
        expected[slot].check_state(state.read(slot))


def test_a_prompt_may_be_run_token_by_token(model: Model, which: Case) -> None:
    state = model.state()
    (logits,) = feed(model, state, [[[token] for token in prompt(which, 0, 33)]])
    expected = answer(which, 0, 33)
    for at, row in enumerate(logits):
        expected.check_logits(row, at)
    expected.check_state(state.read(0))


def test_two_equal_runs_are_equal_bit_for_bit(model: Model, which: Case) -> None:
    found = []
    for _ in range(2):
        state = model.state(3)
        runs = [cut_at(prompt(which, 0, LENGTHS[-1]), [40, 41]), [], [prompt(which, 1, 45)]]
        logits = feed(model, state, runs)
        found.append([*(row for slot in logits for row in slot), *(state.read(slot) for slot in range(3))])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_state_that_the_oracle_left_is_gone_on_from(model: Model, which: Case) -> None:
    oracle = oracle_for(tensors_of(which))
    before, tokens = oracle.state(), prompt(which, 0, LENGTHS[-1])
    oracle.forward(tokens[:100], before)
    state = model.state(2)
    state.write(1, before.to_rows())
    (_, (logits,)) = feed(model, state, [[], [tokens[100:]]])
    answer(which, 0, LENGTHS[-1]).check_logits(logits)
    answer(which, 0, LENGTHS[-1]).check_state(state.read(1))
