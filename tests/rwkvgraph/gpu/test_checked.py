"""RWKVGRAPH_CHECK=2: every pass of every version agrees with numpy, and one that does not is named."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import rwkvgraph as rg
from rwkvgraph import v7
from rwkvgraph.errors import CheckError
from rwkvgraph.gpu.checked import CheckedRunner
from rwkvgraph.model import Model
from rwkvgraph.op import Array
from tests.rwkvgraph.models.small import RANKS
from tests.rwkvgraph.models.synthetic import Half, synthetic, synthetic_v7

VERSIONS = ("v4", "v5.0", "v5.2", "v6", "v7")
PROMPTS: tuple[list[int], ...] = ([3, 1, 4, 1, 5, 9, 2, 6], [], [7])


@pytest.fixture(autouse=True)
def checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RWKVGRAPH_CHECK", "2")


@dataclass(frozen=True, eq=False, repr=False)
class Doubled(rg.Map):
    """Twice x on numpy; on a device a little more."""

    x: rg.Tensor

    wgsl = "x * 2.01"

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(arrays[0] * 2)


@dataclass(frozen=True, eq=False, repr=False)
class DoubledInto(Doubled):
    """The same, written over what is there."""

    to: rg.Tensor = rg.updated()

    def numpy(self, *arrays: Array) -> Array:
        arrays[1][...] = arrays[0] * 2
        return arrays[1]


@pytest.fixture(scope="module")
def tensors() -> dict[str, Half]:
    return synthetic_v7(2, 32, 16, vocab=40, low_rank=(8, 8, 8, 16))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_pass_of_every_version_agrees_with_numpy(version: str, gpu: rg.Context) -> None:
    options = {} if version == "v4" else {"head_size": 16}
    ranks = RANKS.get(version)
    tensors = synthetic(version, 2, 32, hidden=48, vocab=40, low_rank=ranks, **options)
    model, plain = Model.load(tensors, gpu), Model.load(tensors, "cpu")
    assert isinstance(model.program(), CheckedRunner)
    rows: list[list[Any]] = []
    for each in (model, plain):
        state = each.state(3)
        each.run([list(prompt) for prompt in PROMPTS], state)
        rows.append(each.run([[8], [9], []], state))
    np.testing.assert_allclose(rows[0][0], rows[1][0], atol=1e-3)


def test_the_first_pass_that_differs_is_named(gpu: rg.Context, tensors: dict[str, Half]) -> None:
    def double(frame: v7.Frame) -> None:
        frame.ffn_v = Doubled(frame.ffn_v).result

    model = Model.load(tensors, gpu)
    with pytest.raises(CheckError) as caught:
        model.run_with_hooks([[1, 2]], model.state(), rg.Hooks({v7.PostFfnLinear(1): double}))
    text = str(caught.value)
    assert "(layer 1), matmul+doubled" in text
    assert "add f32[T, 32], built at rwkvgraph/models/" in text  # the operation whose result is kept
    assert "on the device and" in text


def test_what_a_pass_writes_in_place_is_checked_too(gpu: rg.Context, tensors: dict[str, Half]) -> None:
    def double(frame: v7.Frame) -> None:
        DoubledInto(frame.state.ffn_x, frame.state.ffn_x)

    model = Model.load(tensors, gpu)
    state = model.state()
    state.write(0, np.ones(state.shape, np.float32))
    with pytest.raises(CheckError, match=r"state\.1\.ffn_x.* which doubled_into"):
        model.run_with_hooks([[1, 2]], state, rg.Hooks({v7.PreAtt(1): double}))


def test_operations_that_differ_nowhere_run_as_usual(gpu: rg.Context, tensors: dict[str, Half]) -> None:
    seen = rg.Buffer("seen", (32,))
    hooks = rg.Hooks({v7.PostFfn(0): lambda frame: rg.blit(frame.x[-1], seen)})
    model = Model.load(tensors, gpu)
    (checked,) = model.run_with_hooks([[1, 2, 3]], model.state(), hooks)
    on_numpy = Model.load(tensors, "cpu")
    (plain,) = on_numpy.run([[1, 2, 3]], on_numpy.state())
    assert checked is not None
    assert plain is not None
    np.testing.assert_allclose(checked, plain, atol=1e-3)
    assert np.abs(seen.read()).max() > 0
