"""Pairs: for a token alone, a product that works out by itself the rows that it multiplies."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

import rwkvgraph as rg
from rwkvgraph import ops, v7
from rwkvgraph.gpu import Context
from rwkvgraph.gpu.runner import Runner
from rwkvgraph.model import Model
from tests.rwkvgraph.models.synthetic import synthetic
from tests.rwkvgraph.models.yardstick import expect, feed

pytestmark = pytest.mark.gpu
PROMPT = [0, 17, 91, 4, 255, 3]


@pytest.fixture(scope="module", params=[True, False], ids=["subgroups", "plain"])
def pairing(request: pytest.FixtureRequest) -> Iterator[Context]:
    context = Context.create()
    if request.param and not context.target.subgroups:
        pytest.skip("no subgroups here")
    lanes = context.target.lanes if context.target.kind == "gpu" else 0
    context.target = replace(
        context.target, kind="gpu", lanes=lanes, resident=0, subgroups=bool(request.param)
    )
    yield context
    context.destroy()


@pytest.mark.parametrize(
    ("version", "width"),
    [
        ("v7", 128),
        ("v6", 64),
        *(pytest.param(each, 64, marks=pytest.mark.slow) for each in ("v4", "v5.0", "v5.1", "v5.2")),
    ],
)
def test_a_token_at_a_time_is_what_the_mathematics_say(pairing: Context, version: str, width: int) -> None:
    tensors = synthetic(layers=2, width=width, version=version)
    model, wanted = Model.load(tensors, pairing), expect(tensors, PROMPT)
    state = model.state()
    logits = feed(model, state, [[[token] for token in PROMPT]])[0]
    for at, row in enumerate(logits):
        wanted.check_logits(row, at)
    wanted.check_state(state.read(0))
    again = feed(model, model.state(), [[[token] for token in PROMPT]])[0]
    assert all(np.array_equal(a, b) for a, b in zip(logits, again, strict=True))
    runner = model.program()
    assert isinstance(runner, Runner)
    assert any(not relay.meets for relay in runner.program.relays)


def test_what_a_pair_reads_and_writes_hooks_see_and_change(pairing: Context) -> None:
    tensors = synthetic(layers=2, width=128, version="v7")
    seen, push = rg.Buffer("seen", (128,)), rg.Buffer("push", (128,))
    push.write(np.linspace(-1, 1, 128, dtype=np.float32))
    hooks = rg.Hooks()

    @hooks.on(v7.PostAttTokenShift(1))
    def keep(frame: v7.Frame) -> None:
        ops.blit(frame.att_wx[-1], seen.tensor)
        frame.att_kx = frame.att_kx + push.tensor

    answers = []
    for device in (pairing, "cpu"):
        model = Model.load(tensors, device)
        state = model.state()
        rows = [np.asarray(model.run_with_hooks([[token]], state, hooks)[0]) for token in PROMPT]
        answers.append((rows[-1].ravel(), seen.read().copy(), state.read(0)))
    for given, wanted in zip(*answers, strict=True):
        given, wanted = np.asarray(given), np.asarray(wanted)
        assert np.abs(given - wanted).max() <= 2e-5 * np.abs(wanted).max()
