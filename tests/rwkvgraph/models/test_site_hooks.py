"""Hooks at every site of every version, on both devices: what they copy, replace, and do to the state."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from rwkvgraph import ops, v4
from rwkvgraph.hook import Hook
from rwkvgraph.hooks import Hooks
from rwkvgraph.model import Model
from rwkvgraph.models import sites
from rwkvgraph.op import Array, Buffer, DType, Tensor
from rwkvgraph.state import State
from rwkvgraph.testing import GPU_TOLERANCE, holding
from tests.rwkvgraph.conftest import Device
from tests.rwkvgraph.models.synthetic import Half, synthetic
from tests.rwkvgraph.models.test_sites import KINDS, RANKS, new_slots
from tests.rwkvgraph.models.yardstick import Expected, expect

LAYERS, WIDTH, HIDDEN = 2, 32, 48
PROMPT = (5, 17, 3, 30, 22)
VERSIONS = ("v4", "v5.0", "v5.2", "v6", "v7")


@cache
def tensors_of(version: str) -> dict[str, Half]:
    options = {} if version == "v4" else {"head_size": 16}
    return synthetic(version, LAYERS, WIDTH, hidden=HIDDEN, vocab=40, low_rank=RANKS.get(version), **options)


@cache
def answer(version: str) -> Expected:
    return expect(tensors_of(version), PROMPT)


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def model(version: str, device: Device) -> Model:
    return Model.load(tensors_of(version), device)


def run(model: Model, hooks: Hooks | None, state: State, tokens: Sequence[int] = PROMPT) -> Array:
    (logits,) = model.run_with_hooks([list(tokens)], state, hooks)
    assert logits is not None
    return logits


def everywhere(version: str, function: object) -> Hooks:
    hooks = Hooks()
    for kind in KINDS[version[:2]]:
        hooks.add(kind, function)  # type: ignore[arg-type]  # a function of a frame
    return hooks


def check(model: Model, version: str, hooks: Hooks, together: bool) -> None:
    """Fail unless the model gives with the hooks what it gives without."""
    state = model.state()
    for tokens in [PROMPT] if together else [[token] for token in PROMPT]:
        logits = run(model, hooks, state, tokens)
    answer(version).check_logits(logits)
    answer(version).check_state(state.read(0))


@pytest.mark.parametrize("together", [True, False], ids=["together", "one by one"])
def test_every_slot_may_be_replaced_by_itself_at_every_site(
    model: Model, version: str, together: bool
) -> None:
    def replace_all(frame: v4.Frame) -> None:
        for name, tensor in frame.values().items():
            if tensor.dtype is DType.F32:
                setattr(frame, name, ops.affine(tensor, 1.0, 0.0))

    check(model, version, everywhere(version, replace_all), together)


def test_zero_may_be_added_to_every_slot_where_it_is_new(model: Model, version: str) -> None:
    zero = holding([0.0])  # a number in a buffer, so that nothing is simplified

    def add_zero(frame: v4.Frame) -> None:
        assert frame._hook is not None
        for name in new_slots(version, frame._hook) - {"cursors"}:
            setattr(frame, name, getattr(frame, name) + zero)

    check(model, version, everywhere(version, add_zero), together=False)  # llvmpipe compiles these quickly


def captures(model: Model, version: str) -> dict[tuple[Hook, str], Array]:
    """The last token's row of what is new at every site, by site and slot."""
    places = [(at.hook, name) for at in model.graph.sites() for name in sorted(new_slots(version, at.hook))]
    places = [(hook, name) for hook, name in places if name != "cursors"]
    seen = Buffer("seen", (len(places), 5 * WIDTH))
    widths: dict[str, int] = {}

    def capture(frame: v4.Frame) -> None:
        for row, (hook, name) in enumerate(places):
            if hook == frame._hook:
                value: Tensor = getattr(frame, name)
                widths[name] = int(str(value.shape[-1]))
                ops.blit(value[-1], seen[row, : widths[name]])

    state = model.state()
    for token in PROMPT:
        logits = run(model, everywhere(version, capture), state, [token])
    answer(version).check_logits(logits)
    return {(hook, name): row[: widths[name]] for (hook, name), row in zip(places, seen.read(), strict=True)}


@pytest.fixture(scope="module")
def on_numpy(version: str) -> dict[tuple[Hook, str], Array]:
    return captures(Model.load(tensors_of(version), "cpu"), version)


@pytest.mark.gpu
def test_what_is_captured_on_a_device_is_what_numpy_captures(
    version: str, gpu: Device, on_numpy: dict[tuple[Hook, str], Array]
) -> None:
    found = captures(Model.load(tensors_of(version), gpu), version)
    assert found.keys() == on_numpy.keys()
    for place, wanted in on_numpy.items():
        scale = max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(
            found[place], wanted, rtol=0, atol=20 * GPU_TOLERANCE * scale, err_msg=str(place)
        )


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def test_what_is_captured_obeys_the_papers_equations(
    version: str, on_numpy: dict[tuple[Hook, str], Array]
) -> None:
    def at(kind: type[Hook], name: str) -> Array:
        return on_numpy[kind(1), name]  # type: ignore[call-arg]  # sites of layers

    def same(found: Array, wanted: Array) -> None:
        np.testing.assert_allclose(found, wanted, atol=1e-5)

    before = on_numpy[sites.PostFfn(0), "x"]
    same(at(sites.PreAtt, "att_x"), before)
    same(at(sites.PostAtt, "x"), before + at(sites.PostAttOut, "att_o"))
    same(at(sites.PostFfn, "x"), at(sites.PostAtt, "x") + at(sites.PostFfnChannelMix, "ffn_x"))
    gate = sigmoid(at(sites.PostFfnLinear, "ffn_r")) if version != "v7" else 1
    same(at(sites.PostFfnChannelMix, "ffn_x"), gate * at(sites.PostFfnLinear, "ffn_v"))
    assert (at(sites.PostFfnActivate, "ffn_k") >= 0).all()
    if version in ("v5.2", "v6"):  # the gate is raw at its site; the activation comes with the product
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


def test_outside_of_layers_there_is_no_state(model: Model) -> None:
    seen: list[object] = []
    hooks = Hooks(
        dict.fromkeys((sites.PostEmbedLoaded, sites.PreHead), lambda frame: seen.append(frame.state))
    )
    run(model, hooks, model.state())
    assert seen == [None, None]
