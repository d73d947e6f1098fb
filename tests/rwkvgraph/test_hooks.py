"""Registering hooks: by site, layers and rules, for a while; and what they may do with weights."""

from typing import Any

import numpy as np
import pytest

import rwkvgraph as rg
from rwkvgraph import v7
from rwkvgraph.errors import HookError
from rwkvgraph.hooks import Hooks
from rwkvgraph.model import Model
from rwkvgraph.op import Array, Buffer
from rwkvgraph.splice import splice
from tests.rwkvgraph.conftest import Device
from tests.rwkvgraph.models.synthetic import Half, synthetic_v7

LAYERS, WIDTH = 3, 32
TOKENS = [3, 1, 4, 1, 5, 9, 2, 6]


@pytest.fixture(scope="module")
def tensors() -> dict[str, Half]:
    return synthetic_v7(LAYERS, WIDTH, head_size=8, hidden=48, vocab=20, low_rank=(8, 8, 8, 8))


@pytest.fixture(scope="module")
def model(tensors: dict[str, Half]) -> Model:
    return Model.load(tensors, device="cpu")


def run(model: Model, hooks: Hooks | None = None) -> Array:
    (logits,) = model.run_with_hooks([list(TOKENS)], model.state(), hooks)
    assert logits is not None
    return logits


def test_hooks_can_be_listed_copied_and_taken_away() -> None:
    def note(frame: v7.Frame) -> None: ...

    hooks = Hooks({v7.PostFfn: note, v7.PreHead(): note})
    copy = hooks.copy()
    assert repr(hooks).splitlines()[0] == "Hooks(2)"
    assert "PostFfn: " in repr(hooks)
    hooks.remove(note)
    assert (len(hooks), len(copy), [place.where for place in copy.places()]) == (
        0,
        2,
        [v7.PostFfn, v7.PreHead()],
    )
    with pytest.raises(HookError, match=r"note is not among these hooks: there are none"):
        hooks.remove(note)


def layers_of(model: Model, hooks: Hooks) -> list[int]:
    """The layers in which the one function that these hooks have would be called."""
    return [site.hook.layer for site in model.graph.sites() if hooks.at(site.hook)]  # type: ignore[attr-defined]


def test_hooks_are_registered_for_some_layers_or_by_a_rule(model: Model) -> None:
    def note(frame: v7.Frame) -> None: ...

    def is_odd(hook: rg.Hook) -> bool:
        return isinstance(hook, v7.PreAtt) and hook.layer % 2 == 1

    some, one, ruled = Hooks(), Hooks(), Hooks()
    some.on(v7.PostFfn, layers=range(1, 3))(note)
    one.on(v7.PostFfn, layers=2)(note)
    ruled.on(is_odd)(note)
    assert (layers_of(model, some), layers_of(model, one), layers_of(model, ruled)) == ([1, 2], [2], [1])
    assert "PostFfn in layers 1, 2: " in repr(some)
    assert "is_odd: " in repr(ruled)
    assert some.key() != one.key()
    for hooks in (some, one, ruled):
        splice(model.graph, hooks)


def test_hooks_are_added_for_a_while() -> None:
    def note(frame: v7.Frame) -> None: ...

    hooks = Hooks({v7.PreHead(): note})
    before = hooks.key()
    with hooks.added(v7.PostFfn, note):
        assert len(hooks) == 2
    assert hooks.key() == before
    assert len(hooks + Hooks({v7.PostHead(): note})) == 2


WRONG_PLACES: list[tuple[Any, Any, str]] = [
    (3, None, "not at 3"),
    (v7.PostFfn(1), range(2), r"PostFfn\(1\) is one site; layers are for classes"),
    (v7.PreHead, 0, "PreHead is one site"),
    (v7.PostFfn, [], "layers are integers from 0 up, at least one"),
    (v7.PostFfn, -1, "layers are integers from 0 up"),
]


@pytest.mark.parametrize(("where", "layers", "message"), WRONG_PLACES)
def test_what_is_no_place_is_refused_where_it_is_given(where: Any, layers: Any, message: str) -> None:
    with pytest.raises(HookError, match=message):
        Hooks().add(where, lambda frame: None, layers)


def test_a_method_is_the_same_function_each_time_it_is_taken(model: Model) -> None:
    class Plugin:
        def hook(self, frame: v7.Frame) -> None: ...

    one, other = Plugin(), Plugin()
    hooks = Hooks({v7.PostFfn: one.hook})
    assert hooks.key() == Hooks({v7.PostFfn: one.hook}).key()
    assert hooks.key() != Hooks({v7.PostFfn: other.hook}).key()
    hooks.remove(one.hook)
    assert not len(hooks)


@pytest.mark.parametrize(
    ("register", "message"),
    [
        (lambda: Hooks({"PostFfn": print}), "a hook is registered at a site"),  # type: ignore[dict-item]
        (lambda: Hooks({v7.PostFfn: None}), "a function of a frame is called; given None"),  # type: ignore[dict-item]
        (lambda: Hooks().on(), "takes at least one site"),
        (lambda: Hooks().on(lambda frame: True), "instead of a site; write @hooks.on"),
        (lambda: v7.PostFfn("1"), "takes a layer, an integer from 0 up; given '1'"),  # type: ignore[arg-type]
        (lambda: v7.PostFfn(-1), "given -1"),
    ],
)
def test_what_is_no_registration_is_refused(register: Any, message: str) -> None:
    with pytest.raises(HookError, match=message):
        register()


def test_a_hook_that_raises_is_told_by_site_and_name(model: Model) -> None:
    def fail(frame: v7.Frame, layer: int) -> None:
        raise ZeroDivisionError(layer)

    with pytest.raises(ZeroDivisionError) as caught:
        splice(model.graph, Hooks({v7.PostFfn(1): fail}))
    (note,) = caught.value.__notes__
    assert note.startswith("in the hook test_a_hook_that_raises")
    assert note.endswith("fail at PostFfn(1)")


def test_layers_that_the_model_lacks_are_told(model: Model) -> None:
    hooks = Hooks()
    hooks.add(v7.PostFfn, lambda frame: None, range(7, 9))
    with pytest.raises(HookError, match=r"no hook site PostFfn in layers 7, 8; its layers are 0 to 2"):
        splice(model.graph, hooks)
    with pytest.raises(HookError, match=r"<lambda>; the function says no to all 92"):
        splice(model.graph, Hooks({lambda hook: False: lambda frame: None}))  # type: ignore[dict-item]


def test_weights_can_be_read_and_used_by_hooks(tensors: dict[str, Half], device: Device) -> None:
    seen = Buffer("seen", (WIDTH,))
    again = Buffer("again", (WIDTH,))

    def use(frame: v7.Frame) -> None:
        rg.blit(frame.weights.att.k_k, seen)
        value = rg.matmul(frame.weights.att.value, frame.att_vx)
        rg.blit((value - frame.att_v)[-1], again)

    run(Model.load(tensors, device), Hooks({v7.PostAttLinear(1): use}))
    assert seen.read().any()
    np.testing.assert_allclose(again.read(), 0, atol=1e-5)


def test_a_matrix_can_be_read_by_any_operation(tensors: dict[str, Half], device: Device) -> None:
    kept = Buffer("kept", (WIDTH, WIDTH))

    def keep(frame: v7.Frame) -> None:
        (part,) = frame.weights.att.value.parts
        rg.blit(part[:, :WIDTH], kept)

    model = Model.load(tensors, device)
    plain = run(model)
    np.testing.assert_array_equal(run(model, Hooks({v7.PostFfn(1): keep})), plain)
    np.testing.assert_array_equal(kept.read(), tensors["blocks.1.att.value.weight"])
    np.testing.assert_array_equal(run(model), plain)


def test_weights_written_by_a_hook_stay_written(tensors: dict[str, Half], device: Device) -> None:
    model = Model.load(tensors, device)
    plain = run(model)
    halved = Buffer("halved", (1,))
    halved.write(np.array([0.5], np.float32))

    def scale(frame: v7.Frame) -> None:
        rg.blit(frame.weights.ln_out.weight * halved.tensor, frame.weights.ln_out.weight)

    bias = tensors["head.weight"].astype(np.float64) @ tensors["ln_out.bias"].astype(np.float64)
    run(model, Hooks({v7.PostEmbedLoaded(): scale}))
    np.testing.assert_allclose(run(model), plain / 2 + bias / 2, rtol=1e-3, atol=1e-3)


def test_matrices_are_written_whole_lanes_at_a_time(tensors: dict[str, Half], device: Device) -> None:
    model = Model.load(tensors, device)
    name = "blocks.2.att.output.weight"
    other = Buffer("other", (WIDTH, WIDTH))
    other.write((tensors[name] * 2).astype(np.float32))
    hook = Hooks({v7.PreAtt(2): lambda frame: rg.blit(other, frame.weights.att.output.parts[0])})
    expected = run(Model.load({**tensors, name: tensors[name] * 2}, device))
    np.testing.assert_array_equal(run(model, hook), expected)
    np.testing.assert_array_equal(run(model), expected)
