"""The whole library in a hundred lines: build, hook, compile, run, on numpy and on a device."""

import numpy as np
import pytest

import rwkvgraph as rg
from rwkvgraph import assets, v7
from rwkvgraph.compiler import Limits, Target, fuse, plan, simplify
from rwkvgraph.op import tape
from rwkvgraph.splice import splice


def test_a_tape_becomes_passes() -> None:
    x, weight, seen = rg.Buffer("x", (3, 8)), rg.Buffer("weight", (8,)), rg.Buffer("seen", (3, 8))
    with tape() as items:
        rg.blit(rg.sigmoid(rg.layer_norm(x.tensor, weight.tensor, weight.tensor)) * 2 + 1, seen)
    graph = simplify(rg.Graph(tuple(items))).graph
    groups = fuse(graph, Limits.webgpu_default()).groups
    assert [group.label for group in groups] == ["layer_norm+sigmoid+affine+blit"]
    assert not plan(groups).slots  # nothing passes from one pass to another


@pytest.fixture(scope="module", params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def model(request: pytest.FixtureRequest) -> rg.Model:
    device = "cpu" if request.param == "cpu" else request.getfixturevalue("gpu")
    return rg.Model.load(assets.default_model(), device)


def test_a_model_has_sites_that_cost_nothing(model: rg.Model) -> None:
    spliced = splice(model.graph, rg.Hooks())
    assert len(model.graph.sites()) == 2 + 29 * 6 + 3
    assert all(mine is theirs for mine, theirs in zip(spliced.ops, model.graph.ops, strict=True))


def test_a_model_runs_slots_of_different_lengths(model: rg.Model) -> None:
    state = model.state(num_batch=4)
    tokens: list[list[int]] = [[510, 17], [], [91], [4, 8, 15, 16]]
    before = state.read(1)
    logits = model.run(tokens, state)
    assert tokens == [[], [], [], []]
    assert [row is None for row in logits] == [False, True, False, False]
    np.testing.assert_array_equal(state.read(1), before)
    row = logits[0]
    assert row is not None
    assert row.shape == (4096,)
    np.testing.assert_allclose(model.softmax(row).sum(), 1, rtol=1e-5)


def test_a_hook_captures_and_steers(model: rg.Model) -> None:
    captured, direction, hooks = rg.Buffer("captured", (6, 256)), rg.Buffer("direction", (256,)), rg.Hooks()

    @hooks.on(v7.PostFfn)
    def tap(frame: v7.Frame, layer: int) -> None:
        rg.blit(frame.x[-1], captured[layer])

    @hooks.on(v7.PostFfn(3))
    def steer(frame: v7.Frame) -> None:
        frame.x = frame.x + direction

    plain = model.run_with_hooks([[1, 2, 3]], model.state(), hooks)[0]
    stream = captured.read()
    direction.write(np.full(256, 0.5))
    steered = model.run_with_hooks([[1, 2, 3]], model.state(), hooks)[0]
    assert plain is not None
    assert steered is not None
    np.testing.assert_array_equal(captured.read()[:4], stream[:4])  # captured before it was steered
    assert np.abs(captured.read()[4:] - stream[4:]).max() > 0.1
    unhooked = model.run([[1, 2, 3]], model.state())[0]
    assert unhooked is not None
    np.testing.assert_allclose(plain, unhooked, atol=1e-4)


def test_a_program_serves_every_length(model: rg.Model) -> None:
    program = rg.compile(model.graph, None, Target.browser())
    assert max(len(program.passes_of(layer)) for layer in range(6)) <= 12
    assert "8 a layer" in repr(program) or "9 a layer" in repr(program)
