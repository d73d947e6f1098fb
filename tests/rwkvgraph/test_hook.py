"""Hooks: what they may do at a site, what that leaves in the tape, and what they are told when they err."""

import gc
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

import rwkvgraph as rg
from rwkvgraph import ops, v7
from rwkvgraph.errors import HookError, ShapeError
from rwkvgraph.graph import Graph
from rwkvgraph.hooks import Hooks
from rwkvgraph.model import Model
from rwkvgraph.models.sites import V7
from rwkvgraph.op import Array, Buffer
from rwkvgraph.splice import splice
from rwkvgraph.testing import holding
from tests.rwkvgraph.models.oracle_v7 import Oracle, float32_noise
from tests.rwkvgraph.models.synthetic import Half, synthetic_v7

LAYERS, WIDTH = 3, 32
TOKENS = [3, 1, 4, 1, 5, 9, 2, 6]


@pytest.fixture(scope="module")
def tensors() -> dict[str, Half]:
    return synthetic_v7(LAYERS, WIDTH, head_size=8, hidden=48, vocab=20, low_rank=(8, 8, 8, 8))


@pytest.fixture(scope="module")
def model(tensors: dict[str, Half]) -> Model:
    return Model.load(tensors, device="cpu")


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def either(request: pytest.FixtureRequest, tensors: dict[str, Half]) -> Model:
    """The model on numpy, and on a device."""
    return Model.load(tensors, device="cpu" if request.param == "cpu" else request.getfixturevalue("gpu"))


def run(model: Model, hooks: Hooks | None = None, tokens: list[int] = TOKENS) -> Array:
    (logits,) = model.run_with_hooks([list(tokens)], model.state(), hooks)
    assert logits is not None
    return logits


def on(where: object, function: Callable[..., object]) -> Hooks:
    hooks = Hooks()
    hooks.add(where, function)  # type: ignore[arg-type]  # a hook or a class of hooks
    return hooks


def added(model: Model, hooks: Hooks) -> list[str]:
    """The names of the operations that hooks add."""
    graph = splice(model.graph, hooks)
    return [op.name for op in graph.ops if id(op) in graph.spliced]


def test_a_model_has_every_site_in_every_layer(model: Model) -> None:
    kinds = [type(site.hook) for site in model.graph.sites()]
    assert set(kinds) == set(V7)
    assert len(set(V7)) == 34
    for kind in V7:
        assert kinds.count(kind) == (LAYERS if issubclass(kind, rg.LayerHook) else 1)
        assert getattr(v7, kind.__name__) is kind


def test_a_site_without_a_hook_leaves_nothing(model: Model) -> None:
    spliced = splice(model.graph, Hooks())
    assert spliced.sites() == ()
    assert all(a is b for a, b in zip(spliced.ops, model.graph.ops, strict=True))


def test_a_hook_of_one_layer_touches_that_layer_alone(model: Model) -> None:
    seen: list[object] = []
    splice(model.graph, on(v7.PostFfn(1), lambda frame, layer: seen.append(layer)))
    assert seen == [1]
    splice(model.graph, on(v7.PostFfn, lambda frame, layer: seen.append(layer)))
    assert seen == [1, 0, 1, 2]


def test_a_slot_that_is_assigned_is_what_later_operations_see(either: Model) -> None:
    def halve(frame: v7.Frame) -> None:
        frame.x = frame.x * 0.5

    def double(frame: v7.Frame) -> None:
        frame.x = frame.x * 2.0

    plain, halved = run(either), run(either, on(v7.PostFfn(0), halve))
    assert not np.allclose(plain, halved)
    both = on(v7.PostFfn(0), halve)
    both.add(v7.PostFfn(0), double)
    np.testing.assert_allclose(run(either, both), plain, rtol=1e-4, atol=1e-4)


def test_two_hooks_at_a_site_run_in_order_of_registration(model: Model) -> None:
    order: list[str] = []
    hooks = on(v7.PreHead(), lambda frame: order.append("first"))
    hooks.add(v7.PreHead, lambda frame: order.append("second"))
    hooks.add(v7.PreHead(), lambda frame: order.append("third"))
    splice(model.graph, hooks)
    assert order == ["first", "second", "third"]


def test_the_second_hook_sees_what_the_first_assigned(either: Model) -> None:
    seen = Buffer("seen", (WIDTH,))

    def set_to_seven(frame: v7.Frame) -> None:
        frame.att_k = ops.affine(frame.att_k, 0.0, 7.0)

    hooks = on(v7.PostAttLinear(1), set_to_seven)
    hooks.add(v7.PostAttLinear(1), lambda frame: ops.blit(frame.att_k[-1], seen.tensor))
    run(either, hooks)
    assert seen.read().tolist() == [7.0] * WIDTH


def test_one_tensor_in_two_slots_is_two_values(either: Model) -> None:
    seen = Buffer("seen", (2, WIDTH))

    def share(frame: v7.Frame) -> None:
        frame.att_r = frame.att_k

    def change_one(frame: v7.Frame) -> None:
        frame.att_r = ops.affine(frame.att_r, 0.0, 3.0)
        ops.blit(frame.att_r[-1], seen[0])
        ops.blit(frame.att_k[-1], seen[1])

    hooks = on(v7.PostAttLinear(0), share)
    hooks.add(v7.PreAttAdapt(0), change_one)
    run(either, hooks)
    assert seen.read()[0].tolist() == [3.0] * WIDTH
    assert np.ptp(seen.read()[1]) > 0.1


@pytest.mark.parametrize("back", ["op", "tensor", "list", "nothing"])
def test_operations_that_are_built_or_returned_are_spliced_in_once(model: Model, back: str) -> None:
    captured = Buffer("captured", (WIDTH,))

    def hook(frame: v7.Frame) -> object:
        op = ops.blit(frame.x[-1], captured.tensor)
        return {"op": op, "tensor": op.result, "list": [op], "nothing": None}[back]

    assert added(model, on(v7.PostFfn(2), hook)) == ["blit"]


def test_returning_a_slot_as_it_is_adds_nothing(model: Model) -> None:
    assert added(model, on(v7.PostFfn(0), lambda frame: frame.x)) == []
    assert run(model, on(v7.PostFfn(0), lambda frame: frame.x)).tobytes() == run(model).tobytes()


def test_a_hook_that_returns_something_else_is_told_what_to_return(model: Model) -> None:
    with pytest.raises(
        HookError, match=r"hook at PostFfn\(0\) returned a float; return a TensorOp, a list of them, or None"
    ):
        splice(model.graph, on(v7.PostFfn(0), lambda frame: 1.5))


def test_what_is_captured_is_the_oracles_stream(either: Model, tensors: dict[str, Half]) -> None:
    captured = Buffer("captured", (LAYERS, WIDTH))
    hooks = Hooks()

    @hooks.on(v7.PostFfn)
    def tap(frame: v7.Frame, layer: int) -> None:
        rg.blit(frame.x[-1], captured[layer])

    plain = run(either)
    with_tap = run(either, hooks)
    oracle = Oracle(tensors)
    stream = oracle.stream(oracle.embedding[TOKENS], oracle.state())
    tolerance = 20 * float32_noise(
        tensors, TOKENS
    )  # the rounding of float32 itself, and other orders of its sums
    np.testing.assert_allclose(captured.read(), [x[-1] for x in stream[1:-1]], rtol=0, atol=tolerance)
    np.testing.assert_allclose(with_tap, plain, rtol=0, atol=tolerance)


def test_every_token_and_every_layer_can_be_captured(either: Model, tensors: dict[str, Half]) -> None:
    captured = Buffer("captured", (len(TOKENS), WIDTH))
    hooks = on(v7.PostHeadLayerNorm, lambda frame: ops.blit(frame.head_x[-1], captured[0]))
    hooks.add(v7.PreHead(), lambda frame: ops.blit(frame.x[-1], captured[1]))
    run(either, hooks)
    oracle = Oracle(tensors)
    *_, last, final = oracle.stream(oracle.embedding[TOKENS], oracle.state())
    tolerance = 20 * float32_noise(tensors, TOKENS)
    np.testing.assert_allclose(captured.read()[:2], [final[-1], last[-1]], rtol=0, atol=tolerance)


def test_a_buffer_that_a_hook_reads_steers_without_compiling_again(either: Model) -> None:
    strength = Buffer("strength", (1,))
    direction = holding(np.linspace(-1.0, 1.0, WIDTH))

    def steer(frame: v7.Frame) -> None:
        frame.x = frame.x + direction * strength.tensor

    hooks = on(v7.PostFfn(1), steer)
    plain = run(either)
    np.testing.assert_allclose(run(either, hooks), plain, rtol=1e-4, atol=1e-4)
    program = either.program(hooks)
    strength.write([2.0])
    assert not np.allclose(run(either, hooks), plain, atol=0.1)
    assert either.program(hooks) is program


def test_a_hook_sees_the_state_of_its_layer_before_and_after_it_is_written(either: Model) -> None:
    copy = Buffer("copy", (2, WIDTH))

    def peek(frame: v7.Frame) -> None:
        ops.blit(frame.state.ffn_x[-1], copy[0])

    def look_again(frame: v7.Frame) -> None:
        ops.blit(frame.state.ffn_x[-1], copy[1])

    hooks = on(v7.PreFfn(0), peek)
    hooks.add(v7.PostFfn(0), look_again)
    run(either, hooks)
    assert not copy.read()[0].any()  # a new state is zeros, and the layer writes it between the two sites
    assert copy.read()[1].all()


def test_a_slot_that_is_not_set_yet_names_the_first_site_where_it_is(model: Model) -> None:
    hint = r"the first site where it exists is PostAttAdapt\(0\) \(read at test_hook.py:\d+\)"
    with pytest.raises(HookError, match=rf"frame.att_g has no value at PreAtt\(1\); {hint}"):
        splice(model.graph, on(v7.PreAtt(1), lambda frame: frame.att_g))


def test_a_slot_of_the_layer_before_has_no_value(model: Model) -> None:
    with pytest.raises(HookError, match=r"frame.ffn_k has no value at PreAtt\(1\)"):
        splice(model.graph, on(v7.PreAtt(1), lambda frame: frame.ffn_k))


def test_a_slot_of_a_wrong_shape_names_the_line_that_built_the_tensor(model: Model) -> None:
    def shrink(frame: v7.Frame) -> None:
        frame.x = ops.tanh(frame.x[:, 0:4])

    with pytest.raises(
        ShapeError,
        match=r"it was assigned a tensor of \[T, 4\] \(built at test_hook.py:\d+, assigned at test",
    ):
        splice(model.graph, on(v7.PostFfn(0), shrink))


def test_a_slot_takes_tensors_only(model: Model) -> None:
    with pytest.raises(
        ShapeError, match=r"frame.x takes a Tensor, not float \(assigned at test_hook.py:\d+\)"
    ):
        splice(model.graph, on(v7.PostFfn(0), lambda frame: setattr(frame, "x", 0.0)))


def test_an_unknown_slot_lists_the_nearest(model: Model) -> None:
    with pytest.raises(HookError, match=r"a frame has no slot 'att_kx1'; did you mean att_kx"):
        splice(model.graph, on(v7.PostFfn(0), lambda frame: setattr(frame, "att_kx1", frame.x)))
    with pytest.raises(AttributeError, match=r"a frame has no slot 'fnn_x'; did you mean ffn_x"):
        splice(model.graph, on(v7.PostFfn(0), lambda frame: frame.fnn_x))


def test_a_site_that_the_model_lacks_lists_the_nearest(model: Model) -> None:
    with pytest.raises(HookError, match=r"no hook site PostFfn\(3\); nearest: PostFfn\(\d\)"):
        splice(model.graph, on(v7.PostFfn(3), lambda frame: None))

    class PostFfnn(rg.LayerHook):
        """A misspelling."""

    with pytest.raises(HookError, match=r"no hook site PostFfnn; nearest: PostFfn"):
        splice(model.graph, on(PostFfnn, lambda frame: None))


def test_assigning_the_cursors_says_that_they_are_an_input(model: Model) -> None:
    def assign(frame: v7.Frame) -> None:
        frame.cursors = frame.cursors[:, :]

    with pytest.raises(HookError, match=r"frame\.cursors was assigned .* is an input of the run"):
        splice(model.graph, on(v7.PreAtt(1), assign))


@pytest.mark.parametrize(
    ("site", "slot"),
    [
        (v7.PreAtt(1), "att_v"),
        (v7.PreAtt(0), "ffn_k"),
        (v7.PostEmbedLoaded(), "x"),
        (v7.PreAtt(1), "cursors"),
    ],
)
def test_assigning_what_nothing_later_would_read_is_an_error(model: Model, site: rg.Hook, slot: str) -> None:
    def assign(frame: v7.Frame) -> None:
        width = frame.shape_of(slot)[1]
        setattr(frame, slot, ops.tanh(Buffer("other", (width,)).tensor.broadcast(frame.shape_of(slot))))

    with pytest.raises((HookError, ShapeError)):
        splice(model.graph, on(site, assign))


def test_functions_that_come_and_go_are_not_mistaken_for_one_another(model: Model) -> None:
    def shifted(by: float) -> Array:
        def shift(frame: v7.Frame) -> None:
            frame.head_o = frame.head_o + by

        return run(model, on(v7.PostHead(), shift)) - run(model)

    for by in (1.0, 2.0, 3.0, 4.0):
        np.testing.assert_allclose(shifted(by), by, atol=1e-4)
        gc.collect()


class Tap:
    """A hook with a memory of its own."""

    def __init__(self) -> None:
        self.layers: list[int] = []

    def note(self, frame: v7.Frame, layer: int) -> None:
        self.layers.append(layer)

    def __call__(self, frame: v7.Frame, layer: int) -> None:
        self.layers.append(layer)


def test_methods_partial_functions_and_callable_objects_are_told_the_layer(model: Model) -> None:
    tap = Tap()
    for function in (tap.note, tap, partial(Tap.note, tap)):
        tap.layers.clear()
        splice(model.graph, on(v7.PostFfn, function))
        assert tap.layers == [0, 1, 2]


def test_sites_of_different_kinds_and_layers_are_different_keys() -> None:
    hooks: set[rg.Hook] = {v7.PostFfn(1), v7.PreFfn(1), v7.PreFfn(2), v7.PostFfn(1)}
    assert len(hooks) == 3


def test_a_frame_shows_its_slots_and_their_shapes(model: Model) -> None:
    shown: list[str] = []
    splice(model.graph, on(v7.PostAttLinear(2), lambda frame: shown.append(repr(frame))))
    assert shown[0].startswith("Frame(PostAttLinear(2))\n")
    assert "  att_k: [T, 32]" in shown[0]


def test_spliced_operations_are_marked_and_belong_to_the_hooks_layer(model: Model) -> None:
    graph: Graph = splice(
        model.graph, on(v7.PostFfn(1), lambda frame: ops.blit(frame.x[-1], Buffer("b", (WIDTH,)).tensor))
    )
    (op,) = (op for op in graph.ops if id(op) in graph.spliced)
    assert (op.layer, op.where.split(":")[0]) == (1, "test_hook.py")
