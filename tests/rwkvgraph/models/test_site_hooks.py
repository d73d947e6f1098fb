"""What hooks find at the sites of every version: the papers' values, the state, the weights.

That every slot can be captured and replaced is in test_every_slot.py.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass

import numpy as np
import pytest

from rwkvgraph import ops, v4
from rwkvgraph.capture import Cache
from rwkvgraph.hook import Hook
from rwkvgraph.hooks import Hooks
from rwkvgraph.model import Model
from rwkvgraph.models import sites
from rwkvgraph.op import Array, Buffer, Tensor
from rwkvgraph.quant import Matrix
from rwkvgraph.state import State
from rwkvgraph.testing import GPU_TOLERANCE, compare, holding
from tests.rwkvgraph.conftest import Device
from tests.rwkvgraph.models.small import HIDDEN, LAYERS, WIDTH, small_model, tensors_of
from tests.rwkvgraph.models.synthetic import VERSIONS

PROMPT = (5, 17, 3, 30, 22)


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def model(version: str, device: Device) -> Model:
    return small_model(version, device)


def run(model: Model, hooks: Hooks | None, state: State, tokens: Sequence[int] = PROMPT) -> Array:
    (logits,) = model.run_with_hooks([list(tokens)], state, hooks)
    assert logits is not None
    return logits


@pytest.fixture(scope="module")
def on_numpy(version: str) -> Cache:
    model = small_model(version, "cpu")
    return model.run_with_cache([list(PROMPT)], model.state(), "*")[1]


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def test_what_is_captured_obeys_the_papers_equations(version: str, on_numpy: Cache) -> None:
    def at(kind: type[Hook], name: str, layer: int = 1) -> Array:
        (value,) = on_numpy[f"{layer}.{name}@{kind.__name__}"]
        assert value is not None
        return value

    def same(found: Array, wanted: Array) -> None:
        np.testing.assert_allclose(found, wanted, atol=1e-5)

    before = at(sites.PostFfn, "x", 0)
    same(at(sites.PreAtt, "att_x"), before)
    same(at(sites.PostAtt, "x"), before + at(sites.PostAttOut, "att_o"))
    same(at(sites.PostFfn, "x"), at(sites.PostAtt, "x") + at(sites.PostFfnChannelMix, "ffn_x"))
    gate = sigmoid(at(sites.PostFfnLinear, "ffn_r")) if version != "v7" else 1
    same(at(sites.PostFfnChannelMix, "ffn_x"), gate * at(sites.PostFfnLinear, "ffn_v"))
    assert (at(sites.PostFfnActivate, "ffn_k") >= 0).all()
    if version in (
        "v5.1",
        "v5.2",
        "v6",
    ):  # the gate is raw at its site; the activation comes with the product
        g = at(sites.PostAttLinear, "att_g")
        same(at(sites.PostAttGate, "att_x"), g * sigmoid(g) * at(sites.PostAttTimeMix, "att_x"))
    if version == "v6":
        decay = at(sites.PreAttTimeDecayActivate, "time_decay")
        same(at(sites.PostAttTimeDecayActivate, "time_decay"), np.exp(-np.exp(decay)))
        for name, adapted, added in (
            *((f"time_mix_{c}", sites.PostAttTokenShiftAdapt, sites.PreAttGatedTokenShift) for c in "wkvrg"),
            ("time_decay", sites.PostAttTimeDecayAdapt, sites.PreAttTimeDecayActivate),
        ):
            base = tensors_of(version)[f"blocks.1.att.{name}"].reshape(-1)
            same(at(added, name), at(adapted, name) + base)
    if version == "v7":
        g = at(sites.PostAttAdapt, "att_g")
        same(at(sites.PostAttGate, "att_x"), g * at(sites.PostAttTimeMix, "att_x"))


def test_a_hook_reads_what_a_run_leaves_of_the_state(model: Model) -> None:
    state = model.state()
    rows = state.shape[1]
    copy = Buffer("copy", (LAYERS, rows, WIDTH))

    def look(frame: v4.Frame, layer: int) -> None:
        ops.blit(frame.state.att_x[-1], copy[layer, 0])
        ops.blit(frame.state.wkv[-1], copy[layer, 1 : rows - 1])
        ops.blit(frame.state.ffn_x[-1], copy[layer, rows - 1])

    run(model, Hooks({sites.PostFfn: look}), state)
    np.testing.assert_array_equal(copy.read(), state.read(0))


def test_a_hook_that_writes_the_state_does_what_writing_it_before_does(model: Model) -> None:
    by_hook, by_hand, given_state = model.state(), model.state(), model.state()
    for state in (by_hook, by_hand):
        run(model, None, state)
    run(model, None, given_state, [9, 31])
    given = given_state.read(0)[1]
    rows = by_hand.read(0)
    rows[1] = given
    by_hand.write(0, rows)

    def replace(frame: v4.Frame) -> None:
        held = holding(given)
        ops.blit(held[0], frame.state.att_x[-1])
        ops.blit(held[1:-1], frame.state.wkv[-1])
        ops.blit(held[-1], frame.state.ffn_x[-1])

    found, wanted = run(model, Hooks({sites.PreAtt(1): replace}), by_hook), run(model, None, by_hand)
    scale = float(np.abs(wanted).max())
    np.testing.assert_allclose(found, wanted, rtol=0, atol=GPU_TOLERANCE * scale)
    np.testing.assert_allclose(by_hook.read(0), by_hand.read(0), rtol=1e-4, atol=1e-4)


def test_a_state_that_a_hook_scales_in_place_is_scaled_once(model: Model) -> None:
    plain, scaled = model.state(), model.state()
    run(model, None, plain)

    def double(frame: v4.Frame) -> None:
        ops.blit(frame.state.wkv[-1] * 2.0, frame.state.wkv[-1])

    run(model, Hooks({sites.PostFfn(0): double}), scaled)
    rows = plain.read(0)
    rows[0, 1:-1] *= 2
    np.testing.assert_allclose(scaled.read(0)[0], rows[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scaled.read(0)[1], rows[1], rtol=1e-4, atol=1e-4)


RENAMED = {
    "att.first": "att.time_first",
    "att.decay": "att.time_decay",
    "att.mix_1": "att.time_mix_w1",
    "att.decay_1": "att.time_decay_w1",
    "att.decay_2": "att.time_decay_w2",
    **{f"att.base.{index}": f"att.time_mix_{part}" for index, part in enumerate("wkvrg")},
    **{f"att.{part}.inner": f"att.{part}1" for part in "wavg"},
    **{f"att.{part}.outer": f"att.{part}2" for part in "wavg"},
}
"""Weights of a layer whose names in files are others than those of their fields."""

CHANGED: dict[tuple[str, str], Callable[[Array], Array]] = {
    ("v4", "att.decay"): lambda x: -np.exp(x),
    ("v5.0", "att.first"): np.exp,
    **{(version, "att.decay"): lambda x: np.exp(-np.exp(x)) for version in ("v5.0", "v5.1", "v5.2")},
}
"""Weights that are kept as what the model computes of them."""


def weights_in(value: object, path: str = "") -> Iterator[tuple[str, Tensor | Matrix]]:
    """The weights among some fields, by path, but for those of layers among a model's."""
    if isinstance(value, (Tensor, Matrix)):
        yield path, value
    elif isinstance(value, tuple) and path != "layers":
        for index, item in enumerate(value):
            yield from weights_in(item, f"{path}.{index}")
    elif is_dataclass(value):
        for item in fields(value):
            yield from weights_in(getattr(value, item.name), f"{path}.{item.name}".lstrip("."))


def in_file(version: str, path: str) -> Array:
    """The numbers of a weight of layer 1, or of one outside of the layers, from the model's file."""
    tensors, name = tensors_of(version), RENAMED.get(path, path)
    if path.startswith("att.mix_2."):
        return np.asarray(tensors["blocks.1.att.time_mix_w2"][int(path[-1])], np.float32)
    names = (f"{block}{name}{end}" for block in ("", "blocks.1.", "blocks.0.") for end in ("", ".weight"))
    values = tensors[next(name for name in names if name in tensors)].astype(np.float32)
    return np.asarray(CHANGED[version, path](values)) if (version, path) in CHANGED else values


def test_a_hook_reads_every_weight_of_its_layer_and_of_the_model(model: Model, version: str) -> None:
    probe = np.random.default_rng(3).normal(size=(1, HIDDEN)).astype(np.float32)
    held, kept = holding(probe), dict[str, Buffer]()

    def read(frame: v4.Frame) -> None:
        for path, weight in weights_in(frame.weights):
            if isinstance(weight, Matrix):  # where these are textures, only matmuls can read them
                weight = ops.matmul(weight, held[:, : weight.shape[1]])
            kept[path] = Buffer(path, weight.shape)
            ops.blit(weight, kept[path])

    run(model, Hooks({sites.PreHead: read, sites.PostFfn(1): read}), model.state(), [7])
    assert len(kept) >= 20
    for path, buffer in kept.items():
        found, wanted = buffer.read(), in_file(version, path)
        if len(found) == 1:
            wanted = probe[:, : wanted.shape[1]] @ wanted.T
        compare(found, np.repeat(wanted, found.size // wanted.size).reshape(found.shape), path)


def test_outside_of_layers_there_is_no_state(model: Model) -> None:
    seen: list[object] = []
    hooks = Hooks(
        dict.fromkeys((sites.PostEmbedLoaded, sites.PreHead), lambda frame: seen.append(frame.state))
    )
    run(model, hooks, model.state())
    assert seen == [None, None]
