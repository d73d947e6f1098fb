"""Running a model: however a prompt is cut and whoever runs beside it, the answers are the same."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rwkvgraph.gpu.runner import Runner
from rwkvgraph.model import Model
from rwkvgraph.view import N, O, T
from tests.rwkvgraph.conftest import Device
from tests.rwkvgraph.models.oracle_v7 import Array, Oracle, OracleState
from tests.rwkvgraph.models.yardstick import Expected, cut_at, expect, feed

SOFTMAX_TOLERANCE = 4e-6  # relative: one exp (3 ulp allowed at large arguments), a sum, a division
LONG = 600
NEIGHBOURS = (1, 40, 250)
"""Tokens of the slots beside the one that is looked at: some end before it, whatever the cut."""

some_ends = st.sets(st.integers(1, LONG - 1), max_size=6).map(sorted)


def ids(seed: int, count: int, below: int) -> list[int]:
    tokens: list[int] = np.random.default_rng(seed).integers(0, below, count).tolist()
    return tokens


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """One long prompt, and the neighbours'."""
    return [ids(index, count, 150) for index, count in enumerate((LONG, *NEIGHBOURS))]


@pytest.fixture(scope="module")
def expected(small_tensors: dict[str, Array], prompts: list[list[int]]) -> list[Expected]:
    return [expect(small_tensors, prompt) for prompt in prompts]


@pytest.fixture(scope="module")
def chunked(small_tensors: dict[str, Array], device: Device) -> dict[int, Model]:
    return {chunk: Model.load(small_tensors, device, chunk) for chunk in (1, 7, 32, 300)}


def check_split(
    model: Model, prompts: Sequence[list[int]], expected: Sequence[Expected], ends: Sequence[int]
) -> float:
    """Run the first prompt in runs ending at `ends`, the others whole beside it; all must be as expected."""
    state = model.state(len(prompts))
    runs = [cut_at(prompts[0], ends), *([prompt] for prompt in prompts[1:])]
    logits = feed(model, state, runs)
    places = [[end - 1 for end in [*ends, len(prompts[0])]], *([-1] for _ in prompts[1:])]
    errors = [
        answer.check_logits(row, at)
        for answer, rows, slots in zip(expected, logits, places, strict=True)
        for row, at in zip(rows, slots, strict=True)
    ]
    return max(*errors, *(answer.check_state(state.read(slot)) for slot, answer in enumerate(expected)))


@pytest.mark.parametrize("chunk", [7, 32, 300])
@pytest.mark.parametrize("slots", [1, 4], ids=["alone", "beside others"])
@settings(max_examples=3, deadline=None)
@given(ends=some_ends)
def test_a_prompt_may_be_cut_anywhere(
    chunked: dict[int, Model],
    prompts: list[list[int]],
    expected: list[Expected],
    chunk: int,
    slots: int,
    ends: list[int],
) -> None:
    check_split(chunked[chunk], prompts[:slots], expected[:slots], ends)


@pytest.mark.parametrize("slots", [1, 4], ids=["alone", "beside others"])
def test_a_prompt_may_be_run_token_by_token(
    chunked: dict[int, Model], prompts: list[list[int]], expected: list[Expected], slots: int
) -> None:
    check_split(chunked[1], prompts[:slots], expected[:slots], [1, 77, 400])


def test_two_equal_runs_are_equal_bit_for_bit(small: Model, prompts: list[list[int]]) -> None:
    found = []
    for _ in range(2):
        state = small.state(4)
        logits = feed(small, state, [cut_at(prompts[0], [100, 101]), *([prompt] for prompt in prompts[1:])])
        found.append([*(row for slot in logits for row in slot), *(state.read(slot) for slot in range(4))])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_slot_that_is_given_nothing_keeps_its_bits(small: Model, rng: np.random.Generator) -> None:
    state = small.state(3)
    kept = rng.standard_normal(state.shape).astype(np.float32)
    state.write(1, kept)
    assert small.run([[], [], []], state) == [None, None, None]
    feed(small, state, [[[5, 6, 7], [8]], [], [[9] * 40]])
    np.testing.assert_array_equal(state.read(1), kept)


def test_a_slot_has_no_logits_until_its_tokens_are_gone(chunked: dict[int, Model]) -> None:
    model = chunked[7]
    state = model.state(3)
    tokens = [ids(1, 9, 150), [], [4, 5]]
    first, nothing, short = model.run(tokens, state)
    assert (first, nothing) == (None, None)
    assert short is not None
    assert [len(slot) for slot in tokens] == [4, 0, 0]
    last, nothing, short = model.run(tokens, state)
    assert last is not None
    assert (nothing, short) == (None, None)
    assert tokens == [[], [], []]


def test_three_hundred_slots_share_a_pass(small: Model, small_tensors: dict[str, Array]) -> None:
    prompts = [ids(slot, 1 + slot % 3, 150) for slot in range(300)]
    state = small.state(300)
    logits = small.run([list(prompt) for prompt in prompts], state)
    for slot in (*range(0, 300, 17), 254, 255, 256, 257, 299):
        answer = expect(small_tensors, prompts[slot])
        # So few values may have rounded luckily; the yardstick is a longer prompt's.
        answer = Expected(answer.logits, answer.state, *noises(small_tensors))
        answer.check_logits(logits[slot])
        answer.check_state(state.read(slot))


def noises(tensors: dict[str, Array]) -> tuple[float, float, float]:
    longer = expect(tensors, ids(0, 30, 150))
    return longer.logits_noise, longer.shift_noise, longer.wkv_noise


@pytest.mark.parametrize("count", [255, 256, 257, 300, 600])
def test_a_pass_takes_hundreds_of_tokens_of_a_slot(
    small: Model, small_tensors: dict[str, Array], count: int
) -> None:
    prompt = ids(count, count, 150)
    answer = expect(small_tensors, prompt)
    state = small.state()
    (logits,) = small.run([list(prompt)], state)
    answer.check_logits(logits)
    answer.check_state(state.read(0))


def test_one_program_runs_one_token_and_four_thousand(small: Model, small_tensors: dict[str, Array]) -> None:
    prompt = ids(7, 4097, 150)
    answer = expect(small_tensors, prompt)
    state, program = small.state(), small.program()
    small.run([[prompt[0]]], state)
    (logits,) = small.run([prompt[1:]], state)
    answer.check_logits(logits)
    answer.check_state(state.read(0))
    assert small.program() is program
    if isinstance(program, Runner):
        scratch = program.program.plan
        assert scratch.bytes({T: 4096, O: 1, N: 1}) <= 4096 * scratch.bytes({T: 1, O: 1, N: 1})


def test_a_state_reads_as_the_rows_of_web_rwkv(
    small: Model, small_tensors: dict[str, Array], prompts: list[list[int]], expected: list[Expected]
) -> None:
    state = small.state(2)
    assert state.shape == (2, 18, 48)
    np.testing.assert_array_equal(state.read(1), np.zeros(state.shape, np.float32))
    feed(small, state, [[], [prompts[2]]])
    expected[2].check_state(state.read(1))

    # What the oracle left behind, in the same rows, goes on as if it had been run here.
    oracle = Oracle(small_tensors)
    before = oracle.state()
    oracle.forward(prompts[0][:500], before)
    state.write(0, before.to_rows())
    ((logits,), _) = feed(small, state, [[prompts[0][500:]], []])
    expected[0].check_logits(logits)
    after = OracleState.from_rows(state.read(0))
    assert after.wkv.shape == (2, 3, 16, 16)


def test_writing_a_slot_leaves_the_others_alone(small: Model, rng: np.random.Generator) -> None:
    state = small.state(3)
    rows = rng.standard_normal((3, *state.shape)).astype(np.float32)
    for slot in (2, 0, 1):
        state.write(slot, rows[slot])
    state.write(1, rows[0])
    state.clear(2)
    for slot, wanted in enumerate((rows[0], rows[0], np.zeros(state.shape, np.float32))):
        np.testing.assert_array_equal(state.read(slot), wanted)


def test_what_was_read_does_not_change_with_the_state(small: Model) -> None:
    state = small.state()
    (logits,) = small.run([[1, 2, 3]], state)
    assert logits is not None
    read, kept, logits_kept = state.read(0), state.read(0).copy(), logits.copy()
    small.run([[4, 5]], state)
    np.testing.assert_array_equal(read, kept)
    np.testing.assert_array_equal(logits, logits_kept)
    assert (state.read(0) != kept).any()


@pytest.mark.parametrize("rows", [None, 1, 5])
def test_softmax_gives_probabilities(small: Model, rng: np.random.Generator, rows: int | None) -> None:
    shape = (150,) if rows is None else (rows, 150)
    logits = (10 * rng.standard_normal(shape)).astype(np.float32)
    exact = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    exact /= exact.sum(-1, keepdims=True)
    found = small.softmax(logits)
    assert found.shape == shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, rtol=SOFTMAX_TOLERANCE, atol=0)


def test_softmax_bears_large_and_absent_logits(small: Model) -> None:
    logits = np.full(150, -1e30, np.float32)
    logits[[3, 149]] = 1e30
    np.testing.assert_array_equal(small.softmax(logits)[[3, 149, 0]], np.array([0.5, 0.5, 0], np.float32))


@pytest.mark.parametrize("shape", [(), (149,), (152,), (2, 149), (1, 2, 150), (0, 150)])
def test_softmax_of_other_shapes_is_refused(small: Model, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"softmax takes logits of shape \(150,\) or \(rows, 150\)"):
        small.softmax(np.zeros(shape, np.float32))


@pytest.mark.parametrize("bad", [-1, 150, 1 << 70, True, 1.0, float("nan"), "7", None, np.float32(3), [3]])
def test_an_id_that_is_none_is_refused_before_anything_runs(small: Model, bad: Any) -> None:
    state = small.state(2)
    tokens = [[1, 2], [3, bad, 4]]
    with pytest.raises(ValueError, match=r"token 1 of slot 1 is .*; ids are integers from 0 to 149"):
        small.run(tokens, state)
    assert [len(slot) for slot in tokens] == [2, 3]
    assert not state.read(0).any()


def test_ids_may_be_numpy_integers(small: Model) -> None:
    given: list[Any] = list(np.array([3, 149]))
    (one,), (other,) = small.run([given], small.state()), small.run([[3, 149]], small.state())
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "tokens", ["abc", b"abc", [1, 2], [(1, 2)], [np.array([1])], [None], ["ab"], None, 5], ids=repr
)
def test_what_is_no_list_of_lists_is_refused(small: Model, tokens: Any) -> None:
    with pytest.raises(ValueError, match="tokens is a list of lists of ids, one a slot"):
        small.run(tokens, small.state())


def test_a_list_too_few_or_too_many_is_refused(small: Model) -> None:
    for tokens in ([], [[1]], [[1], [2], [3]]):
        lengths = [len(slot) for slot in tokens]
        with pytest.raises(ValueError, match=f"{len(tokens)} lists of tokens for a state of 2 slots"):
            small.run(tokens, small.state(2))
        assert [len(slot) for slot in tokens] == lengths


def test_the_state_of_another_model_is_refused(small: Model, chunked: dict[int, Model]) -> None:
    tokens = [[1]]
    for state in (chunked[7].state(), None, np.zeros((2, 18, 48))):
        with pytest.raises(ValueError, match="the state belongs to another model"):
            small.run(tokens, state)  # type: ignore[arg-type]  # that is the point
    assert tokens == [[1]]


@pytest.mark.parametrize("chunk", [0, -5, 2.5, True, "128", None])
def test_a_chunk_size_that_takes_no_tokens_is_refused(small_tensors: dict[str, Array], chunk: Any) -> None:
    with pytest.raises(ValueError, match=f"token_chunk_size is {chunk!r}; it is an integer of at least 1"):
        Model.load(small_tensors, "cpu", chunk)


@pytest.mark.parametrize("count", [0, -1, 1.5, None])
def test_a_state_without_slots_is_refused(small: Model, count: Any) -> None:
    with pytest.raises(ValueError, match=f"num_batch is {count!r}; a state has at least one slot"):
        small.state(count)


@pytest.mark.parametrize("slot", [-1, 2, 0.5, None])
def test_a_slot_that_is_not_there_is_refused(small: Model, slot: Any) -> None:
    state = small.state(2)
    rows = np.zeros(state.shape, np.float32)
    for use in (state.read, state.clear, lambda slot: state.write(slot, rows)):
        with pytest.raises(ValueError, match=r"is not one of this state's 2 \(0 to 1\)"):
            use(slot)


def test_a_slot_takes_only_finite_rows_of_its_shape(small: Model) -> None:
    state = small.state()
    good = np.zeros(state.shape, np.float32)
    for bad in (good[0], good[:, :-1], good.ravel(), good[None]):
        with pytest.raises(ValueError, match=r"a slot of this state is \(2, 18, 48\)"):
            state.write(0, bad)
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="a state is finite numbers"):
            state.write(0, np.full(state.shape, value))
    np.testing.assert_array_equal(state.read(0), good)
