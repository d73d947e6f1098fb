"""Relays: the passes of a layer, or of several that are alike, as one dispatch, for a token alone.

Software adapters run one workgroup after another, so a relay has a single one there, which takes all shares
of all legs; on a GPU as many as usual wait for each other.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

import rwkvgraph as rg
from rwkvgraph import ops, v7
from rwkvgraph.errors import DeviceError
from rwkvgraph.gpu import Context
from rwkvgraph.gpu.runner import Runner
from rwkvgraph.model import Model
from rwkvgraph.models import arena
from rwkvgraph.runtime import Ahead, Course, steps
from rwkvgraph.sampler import Sampler
from rwkvgraph.state import State
from rwkvgraph_codegen import LATE
from tests.rwkvgraph.hardware import relay_context
from tests.rwkvgraph.models.oracle_v7 import Array
from tests.rwkvgraph.models.synthetic import synthetic
from tests.rwkvgraph.models.yardstick import expect, feed

pytestmark = pytest.mark.gpu
PROMPT = [0, 17, 91, 4, 255, 3]
TOO_MANY = 1024
"""Workgroups of 256 threads that no device here runs at once."""


@pytest.fixture(scope="module", params=[False, True], ids=["a layer", "laps"])
def relaying(request: pytest.FixtureRequest) -> Iterator[Context]:
    context = relay_context(request.param)
    yield context
    context.destroy()


@pytest.fixture(scope="module")
def lapping() -> Iterator[Context]:
    context = relay_context(True)
    yield context
    context.destroy()


@pytest.fixture(scope="module")
def model(relaying: Context) -> Model:
    layers = 5 if relaying.target.coherent else 2  # the first and the last are no laps
    model = Model.load(synthetic(layers=layers, width=128, version="v7"), relaying)
    assert max(laps_of(model)) == (3 if relaying.target.coherent else 1)
    return model


def one_by_one(model: Model, state: State, tokens: list[int]) -> list[Array]:
    """The logits after each token, every one a run of its own."""
    return feed(model, state, [[[token] for token in tokens]])[0]


def runner_of(model: Model) -> Runner:
    runner = model.program()
    assert isinstance(runner, Runner)
    return runner


def laps_of(model: Model, hooks: rg.Hooks | None = None) -> list[int]:
    """Of each relay."""
    runner = model.program(hooks)
    assert isinstance(runner, Runner)
    return [relay.laps for relay in runner.program.relays]


def dispatches(model: Model, state: State) -> int:
    """Of the first kind of run that a state has seen."""
    kept = runner_of(model)._steps[state.blocks[0]]
    return len(next(iter(kept.values())).steps)


@pytest.mark.parametrize(
    "version",
    ["v7", *(pytest.param(each, marks=pytest.mark.slow) for each in ("v4", "v5.0", "v5.1", "v5.2", "v6"))],
)
def test_a_token_at_a_time_is_what_the_mathematics_say(relaying: Context, version: str) -> None:
    # Heads of 64: workgroups of smaller ones are no whole number of subgroups, and stay out of relays.
    tensors = synthetic(layers=2, width=128, version=version)
    given, wanted = Model.load(tensors, relaying), expect(tensors, PROMPT)
    state = given.state()
    logits = one_by_one(given, state, PROMPT)
    for at, row in enumerate(logits):
        wanted.check_logits(row, at)
    wanted.check_state(state.read(0))
    assert dispatches(given, state) < len(runner_of(given).program.passes) / 2
    again = one_by_one(given, given.state(), PROMPT)
    assert all(np.array_equal(a, b) for a, b in zip(logits, again, strict=True))


@pytest.mark.parametrize(
    "version",
    ["v7", *(pytest.param(each, marks=pytest.mark.slow) for each in ("v4", "v5.0", "v5.1", "v5.2", "v6"))],
)
def test_layers_that_are_alike_are_laps_and_what_the_mathematics_say(lapping: Context, version: str) -> None:
    tensors = synthetic(layers=6, width=128, version=version)
    model, wanted = Model.load(tensors, lapping), expect(tensors, PROMPT)
    laps = laps_of(model)
    assert max(laps) == 4  # the first and the last have another text
    state = model.state(3)
    rows = feed(model, state, [[], [[token] for token in PROMPT], []])[1]
    for at, row in enumerate(rows):
        wanted.check_logits(row, at)
    wanted.check_state(state.read(1))
    assert state.is_empty(0)
    assert not state.read(0)[:, 0].any()
    assert dispatches(model, state) == len(laps) + 2


Hook = Callable[[v7.Frame, list[rg.Buffer]], None]


def with_states(
    device: Context | str, hook: Hook, layers: int, runs: list[list[list[int]]]
) -> tuple[Array, Model, rg.Hooks]:
    """The last slot's logits after these runs, where each layer's hook is given the states up to its own."""
    model = Model.load(synthetic(layers=layers, width=128, version="v7"), device)
    kept: list[rg.Buffer] = []
    hooks = rg.Hooks()

    def call(frame: v7.Frame) -> None:
        kept.append(frame.state.att_x)
        hook(frame, kept)

    for layer in range(layers):
        hooks.add(v7.PreAttTokenShift(layer), call)
    state = model.state(len(runs[0]))
    for lists in runs:
        row = model.run_with_hooks(lists, state, hooks)[-1]
    assert row is not None
    return row, model, hooks


def test_states_that_share_their_memory_are_bound_alike(lapping: Context) -> None:
    """A kernel may not bind some of it to read and some to write: hooks bring two layers' states together."""

    def add(frame: v7.Frame, kept: list[rg.Buffer]) -> None:
        frame.att_x = frame.att_x + kept[max(0, len(kept) - 2)].tensor[-1]

    row, model, hooks = with_states(lapping, add, 6, [[[], [], [token]] for token in PROMPT])
    wanted, _, _ = with_states("cpu", add, 6, [[[], [], [token]] for token in PROMPT])
    assert max(laps_of(model, hooks)) > 1
    assert np.abs(row - wanted).max() < 1e-4  # logits of about 10 in f32


def test_a_pass_that_reads_one_state_and_writes_another_of_its_kind_binds_both_alike(
    lapping: Context,
) -> None:
    def halve(frame: v7.Frame, kept: list[rg.Buffer]) -> None:
        if len(kept) > 1:
            ops.blit(kept[-2].tensor * 0.5, kept[-1].tensor)

    row, wanted = (
        with_states(device, halve, 3, [[[1], [5, 6, 7]], [[], [9]]])[0] for device in (lapping, "cpu")
    )
    assert np.abs(row - wanted).max() < 1e-4


def test_states_too_large_for_one_binding_have_a_relay_a_layer(lapping: Context) -> None:
    context = relay_context(True)
    limits = replace(context.target.limits, max_storage_binding=8 << 20)
    context.target = replace(context.target, limits=limits)  # 42 slots of six layers
    tensors = synthetic(layers=6, width=128, version="v7")
    model, wanted = Model.load(tensors, context), expect(tensors, PROMPT)
    small, large = model.state(3), model.state(45)
    seen: list[list[Array]] = [[], []]
    for token in PROMPT:  # in turn: places depend on the number of slots
        for rows, state in zip(seen, (small, large), strict=True):
            lists: list[list[int]] = [[] for _ in range(state.num_batch)]
            lists[-1] = [token]
            row = model.run(lists, state)[-1]
            assert row is not None
            rows.append(row)
    for rows in seen:
        wanted.check_logits(rows[-1])
    wanted.check_state(large.read(44))
    assert max(laps_of(model)) == 4
    assert dispatches(model, large) - dispatches(model, small) == 3
    context.destroy()


def test_large_models_have_buffers_a_layer_and_no_laps(
    lapping: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arena, "MOST_TOGETHER", 1000)
    model = Model.load(synthetic(layers=6, width=128, version="v7"), lapping)
    assert max(laps_of(model)) == 1


def test_relays_are_for_a_token_alone(model: Model) -> None:
    pair, alone = model.state(2), model.state()
    both = feed(model, pair, [[PROMPT[:1]], [PROMPT[:1]]])
    one = feed(model, alone, [[PROMPT[:1]]])
    assert dispatches(model, pair) == len(runner_of(model).program.passes)
    assert dispatches(model, alone) < dispatches(model, pair)
    assert np.abs(both[1][0] - one[0][0]).max() < 1e-4  # logits of about 10 in f32, sums in another order


def test_workgroups_that_do_not_run_at_once_are_found_out_beforehand(gpu: Context) -> None:
    context = Context.create()
    context.target = replace(context.target, kind="gpu", lanes=0, resident=TOO_MANY)
    tensors = synthetic(layers=1, width=64, version="v7")
    model = Model.load(tensors, context)
    state = model.state()
    (row,) = one_by_one(model, state, PROMPT[:1])
    expect(tensors, PROMPT).check_logits(row, 0)
    assert runner_of(model).program.relays
    assert dispatches(model, state) == len(runner_of(model).program.passes)
    context.destroy()


def test_a_wait_in_vain_is_an_error_and_relays_are_given_up(relaying: Context) -> None:
    model = Model.load(synthetic(layers=1, width=64, version="v7"), relaying)
    other = model.state()
    (before,) = one_by_one(model, other, PROMPT[:1])
    meeting = runner_of(model).meeting
    relaying.queue.write_buffer(meeting.gpu, LATE * 4, np.ones(1, np.uint32))
    with pytest.raises(DeviceError, match="waited for each other in vain") as error:
        model.run([PROMPT[:1]], model.state())
    assert "RWKVGRAPH_RELAYS=0" in str(error.value)
    state = model.state()
    (after,) = one_by_one(model, state, PROMPT[:1])
    assert np.abs(after - before).max() < 1e-4
    assert dispatches(model, state) == len(runner_of(model).program.passes)
    other.clear_all()  # what was ready for it had relays
    (after,) = one_by_one(model, other, PROMPT[:1])
    assert np.abs(after - before).max() < 1e-4
    assert dispatches(model, other) == len(runner_of(model).program.passes)


def test_steps_ahead_run_in_relays_and_draw_the_same_again(model: Model) -> None:
    drawn = []
    for _ in range(2):
        state = model.state()
        (logits,) = feed(model, state, [[PROMPT]])[0]
        bias = np.zeros(model.info.num_vocab, np.float32)
        course = Course(model, state, (0,), (Sampler(temperature=1.0, seed=5),), bias, 12)
        ahead = steps(course)
        assert isinstance(ahead, Ahead)
        ahead.start(logits[None])
        drawn.append([token for (token,) in ahead])
    assert len(drawn[0]) == 12
    assert drawn[0] == drawn[1]
