"""States of every version: what one slot is told the others do not notice, and nothing is lost."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rwkvgraph.model import Model
from rwkvgraph.op import Array
from rwkvgraph.state import State
from tests.rwkvgraph.conftest import Device
from tests.rwkvgraph.models.synthetic import synthetic

VERSIONS = ("v4", "v5.2", "v6", "v7")
SLOTS = 5
LOWEST = np.finfo(np.float32).min
PP = 3

quick = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
slots = st.integers(0, SLOTS - 1)


def load(version: str, device: Device) -> Model:
    """Two layers of 48 channels."""
    ranks = {"v6": (5, 6), "v7": (8, 8, 8, 12)}.get(version)
    heads = {} if version == "v4" else {"head_size": 16}
    return Model.load(synthetic(version, 2, 48, vocab=50, low_rank=ranks, **heads), device, 64)


@pytest.fixture(scope="module", params=VERSIONS)
def model(request: pytest.FixtureRequest, device: Device) -> Model:
    return load(request.param, device)


@pytest.fixture(scope="module")
def filled(model: Model) -> tuple[State, list[Array]]:
    """A state in which every slot holds other numbers, and these."""
    rng = np.random.default_rng(3)
    state = model.state(SLOTS)
    rows = [rng.standard_normal(state.shape).astype(np.float32) for _ in range(SLOTS)]
    return state, rows


def refill(filled: tuple[State, list[Array]]) -> tuple[State, list[Array]]:
    state, rows = filled
    for slot, values in enumerate(rows):
        state.write(slot, values)
    return state, [values.copy() for values in rows]


def check(state: State, rows: list[Array]) -> None:
    """Every slot holds just these bits."""
    for slot, values in enumerate(rows):
        np.testing.assert_array_equal(state.read(slot), values)


def test_the_shape_of_a_slot_is_web_rwkvs(model: Model) -> None:
    rows = 5 if model.info.version == "V4" else 16 + 2
    assert model.state().shape == (2, rows, 48)


def test_a_new_state_is_empty(model: Model) -> None:
    state = model.state(SLOTS)
    wanted = np.zeros(state.shape, np.float32)
    if model.info.version == "V4":
        wanted[:, PP] = LOWEST
    check(state, [wanted] * SLOTS)
    assert all(state.is_empty(slot) for slot in range(SLOTS))


@quick
@given(slot=slots)
def test_reading_and_writing_leave_other_slots_alone(filled: Any, slot: int) -> None:
    state, rows = refill(filled)
    rows[slot] = -rows[slot]
    state.write(slot, rows[slot])
    check(state, rows)
    assert not state.is_empty(slot)


@quick
@given(slot=slots)
def test_clearing_a_slot_leaves_the_others_alone(model: Model, filled: Any, slot: int) -> None:
    state, rows = refill(filled)
    rows[slot] = model.state().read(0)
    state.clear(slot)
    check(state, rows)
    assert [state.is_empty(other) for other in range(SLOTS)] == [other == slot for other in range(SLOTS)]


def test_clearing_all_empties_every_slot(model: Model, filled: Any) -> None:
    state, _ = refill(filled)
    state.clear_all()
    check(state, [model.state().read(0)] * SLOTS)
    assert all(state.is_empty(slot) for slot in range(SLOTS))


@quick
@given(slot=slots, to=st.lists(slots, max_size=4) | slots)
def test_a_copy_has_the_bits_of_its_slot(filled: Any, slot: int, to: Any) -> None:
    state, rows = refill(filled)
    state.copy(slot, to)
    for other in to if isinstance(to, list) else [to]:
        rows[other] = rows[slot]
    check(state, rows)


def test_a_slot_is_copied_into_another_state(model: Model, filled: Any) -> None:
    state, rows = refill(filled)
    other = model.state(2)
    state.copy(4, 1, other)
    check(other, [model.state().read(0), rows[4]])
    assert [other.is_empty(slot) for slot in range(2)] == [True, False]
    model.state().copy(0, 1, other)
    assert other.is_empty(1)
    check(state, rows)


def test_a_copied_slot_goes_on_alike(model: Model) -> None:
    state = model.state(3)
    model.run([[1, 2, 3], [], [9]], state)
    state.copy(0, 2)
    one, _, two = model.run([[7, 8], [], [7, 8]], state)
    np.testing.assert_array_equal(one, two)


def test_a_slot_is_not_copied_into_another_models_state(device: Device, model: Model) -> None:
    other = load("v7", device)
    with pytest.raises(ValueError, match=r"made by the same model.*other.write\(to, state.read\(slot\)\)"):
        model.state().copy(0, 0, other.state())
    for slot, to in ((1, 0), (0, 1), (0, [0, 1]), (0, "0"), (0, None)):
        with pytest.raises(ValueError, match="is not one of this state's 1"):
            model.state().copy(slot, to)  # type: ignore[arg-type]  # that is the point


def test_slots_are_read_and_written_between_the_runs_of_others(
    model: Model, rng: np.random.Generator
) -> None:
    prompt: list[int] = rng.integers(0, 50, 40).tolist()
    alone, beside = model.state(), model.state(3)
    kept = rng.standard_normal(beside.shape).astype(np.float32)
    for at in range(0, 40, 8):
        (wanted,) = model.run([prompt[at : at + 8]], alone)
        beside.write(0, kept)
        _, found, _ = model.run([[], prompt[at : at + 8], [5]], beside)
        np.testing.assert_allclose(found, wanted, atol=1e-4)  # type: ignore[arg-type]
        np.testing.assert_array_equal(beside.read(0), kept)
        beside.copy(0, 2)
    np.testing.assert_allclose(beside.read(1), alone.read(0), atol=1e-4)
    np.testing.assert_array_equal(beside.read(2), kept)


def to_blinkdl(rows: Array, version: str) -> list[Array]:
    """The list by its description, number for number."""
    result = []
    for layer in rows:
        if version == "V4":
            result += [row.copy() for row in layer]
            continue
        size = len(layer) - 2
        matrices = np.zeros((48 // size, size, size), np.float32)
        for h, key, value in product(range(48 // size), range(size), range(size)):
            at = (h, value, key) if version == "V7" else (h, key, value)
            matrices[at] = layer[1 + key, h * size + value]
        result += [layer[0], matrices, layer[-1]]
    return result


def test_the_rwkv_packages_list_has_its_order_and_orientation(model: Model, filled: Any) -> None:
    state, rows = refill(filled)
    found = state.to_blinkdl(2)
    for one, other in zip(found, to_blinkdl(rows[2], model.info.version), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == np.float32


@quick
@given(slot=slots, to=slots)
@pytest.mark.parametrize("form", ["blinkdl", "web_rwkv"])
def test_a_foreign_form_and_back_is_the_same_to_the_bit(filled: Any, form: str, slot: int, to: int) -> None:
    state, rows = refill(filled)
    getattr(state, f"from_{form}")(to, getattr(state, f"to_{form}")(slot))
    rows[to] = rows[slot]
    check(state, rows)


def test_an_empty_slot_is_an_empty_list(model: Model) -> None:
    state = model.state()
    empty = state.to_blinkdl(0)
    if model.info.version == "V4":
        assert all((part == (-1e30 if index % 5 == PP else 0)).all() for index, part in enumerate(empty))
    state.write(0, np.ones(state.shape))
    state.from_blinkdl(0, [part.astype(np.float64) for part in empty])
    assert state.is_empty(0)
    np.testing.assert_array_equal(state.read(0), model.state().read(0))


def test_web_rwkvs_tensor_may_have_axes_of_one_in_front(model: Model, filled: Any) -> None:
    state, rows = refill(filled)
    tensor = state.to_web_rwkv(1)
    assert tensor.shape == ((10, 48) if model.info.version == "V4" else (2, 18, 48))
    state.from_web_rwkv(0, tensor[None, None].astype(np.float64))
    np.testing.assert_array_equal(state.read(0), rows[1])


BAD_LISTS: list[Callable[[list[Any]], Any]] = [
    lambda parts: parts[:-1],
    lambda parts: [*parts, parts[0]],
    lambda parts: None,
    lambda parts: np.zeros(3),
    lambda parts: [*parts[:-1], parts[-1][:-1]],
    lambda parts: [*parts[:1], parts[1][None], *parts[2:]],
    lambda parts: [*parts[:-1], "text"],
    lambda parts: [*parts[:-1], np.full(48, np.nan)],
]


@pytest.mark.parametrize("spoil", BAD_LISTS)
def test_a_list_that_does_not_fit_is_refused(filled: Any, spoil: Callable[[list[Any]], Any]) -> None:
    state, rows = refill(filled)
    with pytest.raises(ValueError, match=r"entry \d|entries|a list of|finite"):
        state.from_blinkdl(3, spoil(state.to_blinkdl(0)))
    check(state, rows)


@pytest.mark.parametrize("bad", [np.zeros((2, 18, 47)), np.zeros((18, 2, 48)), np.zeros(5), None, "text"])
def test_a_tensor_that_does_not_fit_is_refused(filled: Any, bad: Any) -> None:
    state, rows = refill(filled)
    with pytest.raises(ValueError, match=r"web-rwkv's state of this model|which is no array"):
        state.from_web_rwkv(3, bad)
    check(state, rows)


@pytest.mark.parametrize("slot", [-1, SLOTS, 1.0, None, True])
def test_a_slot_that_is_not_there_is_refused(filled: Any, slot: Any) -> None:
    state, rows = refill(filled)
    uses = (state.read, state.clear, state.is_empty, state.to_blinkdl, state.to_web_rwkv,
            lambda slot: state.write(slot, rows[0]), lambda slot: state.copy(0, slot),
            lambda slot: state.copy(slot, 0), lambda slot: state.from_web_rwkv(slot, rows[0]))  # fmt: skip
    for use in uses:
        with pytest.raises(ValueError, match=rf"slot {slot} is not one of this state's 5 \(0 to 4\)"):
            use(slot)
