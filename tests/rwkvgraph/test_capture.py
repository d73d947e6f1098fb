"""Values of a running model by name: what they are, for every version, slot and length."""

from typing import Any

import numpy as np
import pytest

import rwkvgraph as rg
from rwkvgraph import v7
from rwkvgraph.errors import HookError
from rwkvgraph.model import Model
from rwkvgraph.op import Array
from tests.rwkvgraph.conftest import Device
from tests.rwkvgraph.models.oracles import oracle_for
from tests.rwkvgraph.models.synthetic import VERSIONS, Half, synthetic

LAYERS, WIDTH, VOCAB = 2, 32, 37
PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [], [8, 9, 7]]


def small(version: str) -> dict[str, Half]:
    sizes: dict[str, Any] = {} if version == "v4" else {"head_size": 8}
    if version in ("v6", "v7"):
        sizes["low_rank"] = (8, 12) if version == "v6" else (8, 8, 8, 8)
    return synthetic(version, LAYERS, WIDTH, vocab=VOCAB, **sizes)


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def there(value: Array | None) -> Array:
    """A value that is there."""
    assert value is not None
    return value


def stream(tensors: dict[str, Half], tokens: list[int]) -> list[Array]:
    """The oracle's residual stream (T, C) after every layer."""
    oracle = oracle_for(tensors)
    return oracle.stream(oracle.embedding[tokens], oracle.state())[1:-1]


def test_the_stream_after_each_layer_is_the_oracles(version: str, device: Device) -> None:
    tensors = small(version)
    model = Model.load(tensors, device, token_chunk_size=7)
    logits, cache = model.run_with_cache(PROMPTS, model.state(3), option="full")
    assert list(cache) == ["0.x@PostFfn", "1.x@PostFfn"]
    assert [rows is None for rows in logits] == [False, True, False]
    for layer in range(LAYERS):
        values = cache[f"{layer}.x@PostFfn"]
        assert values[1] is None
        for slot in (0, 2):
            wanted = stream(tensors, PROMPTS[slot])[layer]
            np.testing.assert_allclose(there(values[slot]), wanted, rtol=1e-4, atol=1e-4)


def test_the_last_token_is_the_last_row(device: Device) -> None:
    model = Model.load(small("v7"), device, token_chunk_size=4)
    names = ["*.x@PostFfn", "head_o@PostHead", "*.att_k@PostAttLinear"]
    full_logits, full = model.run_with_cache(PROMPTS, model.state(3), names, "full")
    last_logits, last = model.run_with_cache(PROMPTS, model.state(3), names)
    for name, values in last.items():
        for slot in (0, 2):
            rows = there(full[name][slot])
            np.testing.assert_allclose(there(values[slot]), rows[-1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(there(last["head_o@PostHead"][0]), there(last_logits[0]), rtol=1e-6)
    np.testing.assert_allclose(there(full["head_o@PostHead"][0]), there(full_logits[0]), rtol=1e-6)


def test_every_value_of_every_version_can_be_captured_at_once(version: str) -> None:
    check_captured(Model.load(small(version), "cpu"), "*", 60)


def test_values_are_captured_where_they_are_made(gpu: rg.Context) -> None:
    model = Model.load(small("v6"), gpu)  # few, as each set of captures is a set of shaders
    check_captured(model, ["*.time_decay@PostAttTimeDecayActivate", "*.att_x@PostAttTimeMix", "x@*"], 5)


def check_captured(model: Model, names: Any, least: int) -> None:
    """Fail unless these values are captured, and the logits are as without that."""
    plain = model.run([[1, 2, 3]], model.state())[0]
    logits, cache = model.run_with_cache([[1, 2, 3]], model.state(), names, "full")
    np.testing.assert_allclose(there(logits[0])[-1], there(plain), rtol=1e-4, atol=1e-4)
    for name, (value,) in cache.items():
        assert np.isfinite(there(value)).all(), name
        assert len(there(value)) == 3, name
    assert len(cache) >= least


def test_tokens_stay_and_the_state_goes_on() -> None:
    model = Model.load(small("v6"), "cpu")
    tokens, state = [[1, 2, 3]], model.state()
    model.run_with_cache(tokens, state)
    assert tokens == [[1, 2, 3]]
    other = model.state()
    model.run([[1, 2, 3]], other)
    np.testing.assert_array_equal(state.read(0), other.read(0))


def test_a_pass_takes_as_many_tokens_as_fit_the_memory_for_captures(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model.load(small("v7"), device)
    _, whole = model.run_with_cache(PROMPTS, model.state(3), option="full")
    monkeypatch.setattr("rwkvgraph.capture.MOST_BYTES", 3 * 4 * LAYERS * WIDTH)
    _, parts = model.run_with_cache(PROMPTS, model.state(3), option="full")
    for name in whole:
        np.testing.assert_allclose(there(parts[name][0]), there(whole[name][0]), rtol=1e-4, atol=1e-4)
    monkeypatch.setattr("rwkvgraph.capture.MOST_BYTES", 100)
    with pytest.raises(HookError, match="can be captured at once; name fewer"):
        model.run_with_cache(PROMPTS, model.state(3))


def test_other_hooks_run_before_what_is_captured() -> None:
    model = Model.load(small("v7"), "cpu")
    hooks = rg.Hooks()

    @hooks.on(v7.PostFfn(1))
    def nothing_left(frame: v7.Frame) -> None:
        frame.x = frame.x * 0.0

    _, cache = model.run_with_cache([[1, 2]], model.state(), hooks=hooks)
    assert not np.any(cache["1.x@PostFfn"][0])


def test_capturing_is_compiled_once(device: Device) -> None:
    model = Model.load(small("v7"), device)
    for _ in range(3):
        model.run_with_cache([[1]], model.state(), ["*.x@PostFfn"])
    assert len(model._programs) == 1


WRONG = [
    ("*.q@PostFfn", r"at PostFfn there is no q, but cursors|at PostFfn there is no q, but"),
    ("*.x@PostFfm", r"names are layer.slot@Site.*sites: PostEmbedLoaded, .*PostHead"),
    (lambda name: False, "the function of names says no to all"),
    ("9.x@PostFfn", "layers are 0 to 1"),
    ([], "names are patterns .* at least one"),
    ([["x"]], "names are patterns"),
    (None, "names are patterns"),
    (v7.PostFfn, "names are patterns"),
]


@pytest.mark.parametrize(("names", "message"), WRONG)
def test_names_that_mean_nothing_say_what_there_is(names: Any, message: str) -> None:
    model = Model.load(small("v7"), "cpu")
    with pytest.raises(HookError, match=message):
        model.run_with_cache([[1]], model.state(), names)


def test_names_may_come_from_anything_that_gives_them_once() -> None:
    model = Model.load(small("v7"), "cpu")
    for _ in range(2):
        names: Any = (name for name in ["*.x@PostFfn"])
        _, cache = model.run_with_cache([[1]], model.state(), names)
        assert list(cache) == ["0.x@PostFfn", "1.x@PostFfn"]


def test_a_cache_is_of_all_tokens_or_the_last_of_all_slots() -> None:
    model = Model.load(small("v7"), "cpu")
    with pytest.raises(ValueError, match="for all slots"):
        model.run_with_cache([[1]], model.state(), option=["full"])  # type: ignore[arg-type]


def test_a_cache_shows_what_it_holds() -> None:
    model = Model.load(small("v7"), "cpu")
    _, cache = model.run_with_cache(PROMPTS, model.state(3), option="full")
    assert repr(cache).splitlines()[1] == "  0.x@PostFfn: [11, 32] - [3, 32]"
    with pytest.raises(KeyError, match=r"2 values were, such as"):
        cache["5.x@PostFfn"]
