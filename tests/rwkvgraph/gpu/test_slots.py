"""A slot is moved in one submission, and never by way of the host where it stays on the device."""

import numpy as np
import pytest

import rwkvgraph as rg
from rwkvgraph import assets
from rwkvgraph.gpu.native import Direct


@pytest.fixture(scope="module")
def model(gpu: rg.Context) -> rg.Model:
    return rg.Model.load(assets.default_model(), gpu)


def test_reading_and_copying_a_slot_take_one_submission_each(gpu: rg.Context, model: rg.Model) -> None:
    if not isinstance(gpu.driver, Direct):
        pytest.skip("only the C library numbers submissions")
    state = model.state(2)
    model.run([[1, 2, 3], []], state)
    before = gpu.submit([])
    rows = state.read(0)
    state.copy(0, 1)
    assert gpu.submit([]) - before == 3  # with this one
    np.testing.assert_array_equal(state.read(1), rows)


def test_states_that_have_gone_give_their_memory_back(gpu: rg.Context, model: rg.Model) -> None:
    state = model.state(64)
    model.run([[1]] + [[] for _ in range(63)], state)
    before = gpu.allocated
    for _ in range(3):
        other = model.state(64)
        model.run([[1]] + [[] for _ in range(63)], other)
        state.copy(0, 63, other)
        del other
    assert gpu.allocated - before <= 4 * np.prod(state.shape)  # at most the memory that a copy goes through


def test_inputs_and_outputs_are_kept_for_the_longest_run_and_no_more(gpu: rg.Context) -> None:
    model = rg.Model.load(assets.default_model(), gpu)
    state = model.state()
    model.run([[1]], state)
    small = gpu.allocated
    for _ in range(4):
        model.run([list(range(64))], state, "full")
        grown = gpu.allocated
        model.run([[1]], state)
        assert gpu.allocated == grown
    assert grown > small
