"""The oracles against goldens and bare recurrences, and the synthetic models they are fed with."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from tests.rwkvgraph.models.goldens import GOLDENS, TOKENS, golden_model
from tests.rwkvgraph.models.oracle_common import LayeredOracle
from tests.rwkvgraph.models.oracle_v4 import NO_TOKEN, VectorState, wkv4
from tests.rwkvgraph.models.oracle_v5 import wkv5
from tests.rwkvgraph.models.oracle_v7 import Array, Oracle, OracleState, float32_noise, greedy, wkv7
from tests.rwkvgraph.models.oracles import oracle_for
from tests.rwkvgraph.models.raw import raw
from tests.rwkvgraph.models.synthetic import VERSIONS, synthetic, synthetic_v7, write_synthetic
from tests.rwkvgraph.models.yardstick import at_scale_of, expect

MODELS = Path(__file__).parents[3] / "assets" / "models"
FLOAT64_TOLERANCE = 1e-11  # measured: 2e-13, of logits up to 30
FLOAT32_TOLERANCE = 5e-5  # measured: 1e-5
PACKAGE_TOLERANCE = 1e-11  # twelve digits are written; V7 measured: 6e-13, for |kk| + ε in |kk|² + ε's place

# Head sizes, widths and low ranks that are nobody's default, one layer, and a block 0 without value residual.
ODD_MODELS = [
    {"layers": 1, "width": 64},
    {"layers": 1, "width": 48, "head_size": 16, "hidden": 100, "vocab": 37, "block0_value_residual": False},
    {"layers": 3, "width": 96, "head_size": 32, "hidden": 40, "vocab": 101, "low_rank": (8, 12, 20, 28)},
    {"layers": 2, "width": 15, "head_size": 5, "hidden": 7, "vocab": 3, "block0_value_residual": False},
]

ODD_VERSIONS: list[tuple[str, dict[str, Any]]] = [
    ("v4", {"layers": 1, "width": 50, "hidden": 77, "vocab": 251}),
    ("v5.0", {"layers": 2, "width": 60, "head_size": 20, "hidden": 101, "vocab": 777}),
    ("v5.1", {"layers": 2, "width": 24, "head_size": 8, "hidden": 33}),
    ("v5.2", {"layers": 2, "width": 15, "head_size": 5, "vocab": 37}),
    ("v6", {"layers": 2, "width": 64, "head_size": 32, "hidden": 100, "low_rank": (5, 11)}),
    ("v6", {"layers": 1, "width": 256, "head_size": 256}),
]


@pytest.fixture(scope="module")
def tensors() -> dict[str, Array]:
    return dict(load_file(MODELS / "rwkv7-tiny.st"))


@pytest.fixture(scope="module")
def golden() -> Iterator[Any]:
    with np.load(MODELS / "golden.npz") as arrays:
        yield arrays


@pytest.fixture(scope="module")
def oracle(tensors: dict[str, Array]) -> Oracle:
    return Oracle(tensors)


def tokens_of(oracle: LayeredOracle[Any], count: int) -> NDArray[np.int64]:
    return np.random.default_rng(count).integers(0, oracle.vocabulary, count)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float64, FLOAT64_TOLERANCE), (np.float32, FLOAT32_TOLERANCE)]
)
def test_the_oracle_gives_the_golden_logits(
    tensors: dict[str, Array], golden: Any, dtype: type[np.floating[Any]], tolerance: float
) -> None:
    oracle = Oracle(tensors, dtype)
    for number in range(4):
        last = oracle.forward(golden[f"prompt{number}"], oracle.state())[-1]
        np.testing.assert_allclose(last, golden[f"logits{number}"], rtol=0, atol=tolerance)
    logits = oracle.forward(golden["long_prompt"], oracle.state())
    assert logits.dtype == dtype
    np.testing.assert_allclose(logits, golden["long_logits"], rtol=0, atol=tolerance)


def test_the_oracle_continues_as_the_golden_text_does(oracle: Oracle, golden: Any) -> None:
    assert greedy(oracle, golden["greedy_prompt"], 64) == golden["greedy"].tolist()


def test_splitting_a_prompt_anywhere_changes_no_bit(oracle: Oracle, golden: Any) -> None:
    prompt = golden["greedy_prompt"]
    whole_state = oracle.state()
    whole = oracle.forward(prompt, whole_state)
    for split in range(1, len(prompt)):
        state = oracle.state()
        parts = [oracle.forward(prompt[:split], state), oracle.forward(prompt[split:], state)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        np.testing.assert_array_equal(state.to_rows(), whole_state.to_rows())


def test_no_tokens_give_no_logits_and_leave_the_state(oracle: Oracle) -> None:
    state = oracle.state()
    oracle.forward([1, 2], state)
    before = state.copy()
    assert oracle.forward([], state).shape == (0, oracle.vocabulary)
    np.testing.assert_array_equal(state.to_rows(), before.to_rows())


def test_rounding_to_float32_costs_little(tensors: dict[str, Array], golden: Any) -> None:
    noise = float32_noise(tensors, golden["long_prompt"])
    print(f"float32 noise of the tiny model's logits: {noise:.1e}")
    assert 1e-6 < noise < FLOAT32_TOLERANCE


@pytest.mark.parametrize("options", ODD_MODELS, ids=str)
def test_a_model_of_any_size_calculates(options: dict[str, Any]) -> None:
    tensors = synthetic_v7(**options)
    oracle = Oracle(tensors)
    tokens = tokens_of(oracle, 30)
    logits = oracle.forward(tokens, oracle.state())
    assert logits.shape == (30, oracle.vocabulary)
    assert 1 < np.std(logits) < 4
    assert float32_noise(tensors, tokens) < 1e-4


@pytest.mark.parametrize("options", ODD_MODELS, ids=str)
def test_state_rows_are_key_major_and_lead_back_to_the_state(options: dict[str, Any]) -> None:
    oracle = Oracle(synthetic_v7(**options))
    state = oracle.state()
    oracle.forward(tokens_of(oracle, 9), state)
    rows, size = state.to_rows(), oracle.head_size
    assert rows.shape == (oracle.layers, size + 2, oracle.width)
    layer, head, key, value = oracle.layers - 1, oracle.heads - 1, 1, 2
    assert rows[layer, 1 + key, head * size + value] == state.wkv[layer, head, key, value]

    back = OracleState.from_rows(rows)
    np.testing.assert_array_equal(back.att_shift, state.att_shift)
    np.testing.assert_array_equal(back.wkv, state.wkv)
    np.testing.assert_array_equal(back.ffn_shift, state.ffn_shift)


def test_the_recurrence_is_the_one_in_the_paper() -> None:
    random = np.random.default_rng(0)
    r, k, v, a, kk = random.standard_normal((5, 4, 2, 3))  # four tokens, two heads of three
    d = random.uniform(0.5, 1, (4, 2, 3))
    state = random.standard_normal((2, 3, 3))
    m, y = state.copy(), np.zeros_like(v)
    for t, h in np.ndindex(4, 2):
        # The paper has values by keys; here it is transposed.
        transition = np.diag(d[t, h]) - np.outer(kk[t, h] * a[t, h], kk[t, h])
        m[h] = transition @ m[h] + np.outer(k[t, h], v[t, h])
        y[t, h] = r[t, h] @ m[h]
    np.testing.assert_allclose(wkv7(r, d, k, v, -kk, kk * a, state), y, rtol=1e-12)
    np.testing.assert_allclose(state, m, rtol=1e-12)


@pytest.mark.parametrize("options", ODD_MODELS, ids=str)
def test_a_written_model_is_the_one_in_memory(tmp_path: Path, options: dict[str, Any]) -> None:
    write_synthetic(tmp_path / "model.st", **options, seed=5)
    written, made = load_file(tmp_path / "model.st"), synthetic_v7(**options, seed=5)
    assert list(tmp_path.iterdir()) == [tmp_path / "model.st"]
    assert set(written) == set(made)
    for name, tensor in made.items():
        assert tensor.dtype == np.float16
        np.testing.assert_array_equal(written[name], tensor)


def test_a_synthetic_model_has_the_tensors_of_a_real_one(tensors: dict[str, Array]) -> None:
    made = synthetic_v7(layers=6, width=256, vocab=4096, low_rank=(32, 32, 32, 64))
    assert {name: tensor.shape for name, tensor in made.items()} == {
        name: tensor.shape for name, tensor in tensors.items()
    }


def test_writing_a_model_holds_little_of_it(tmp_path: Path) -> None:
    path = tmp_path / "model.st"
    tracemalloc.start()
    try:
        write_synthetic(path, layers=1, width=128, vocab=1 << 17)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 4  # 67 MB in the file


def test_a_width_that_no_head_fits_is_refused() -> None:
    with pytest.raises(ValueError, match="a width of 100 cannot be cut into heads of 64"):
        synthetic_v7(layers=1, width=100)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_oracle_gives_what_the_rwkv_package_gives(version: str) -> None:
    oracle = oracle_for(golden_model(version))
    state = oracle.state()
    logits = oracle.forward(TOKENS, state)[-1]
    rows = state.to_rows()[1]
    picked = range(5) if version == "v4" else (0, 1, 2, -2, -1)
    np.testing.assert_allclose(logits[:5], GOLDENS[version].logits, rtol=0, atol=PACKAGE_TOLERANCE)
    np.testing.assert_allclose([rows[at, 0] for at in picked], GOLDENS[version].state, rtol=PACKAGE_TOLERANCE)


@pytest.mark.parametrize("version", VERSIONS)
def test_splitting_a_prompt_of_any_version_changes_no_bit(version: str) -> None:
    oracle = oracle_for(golden_model(version))
    whole_state = oracle.state()
    whole = oracle.forward(TOKENS, whole_state)
    for split in range(1, len(TOKENS)):
        state = oracle.state()
        first = oracle.forward(TOKENS[:split], state)
        state = type(state).from_rows(state.to_rows())
        np.testing.assert_array_equal(np.concatenate([first, oracle.forward(TOKENS[split:], state)]), whole)
        np.testing.assert_array_equal(state.to_rows(), whole_state.to_rows())


@pytest.mark.parametrize("version", VERSIONS)
def test_every_tensor_of_a_model_counts(version: str) -> None:
    tensors = golden_model(version)
    oracle = oracle_for(tensors)
    whole = oracle.forward(TOKENS, oracle.state())
    unread = {f"blocks.0.att.{name}" for name in ("v0", "v1", "v2")} if version == "v7" else set()
    for name, tensor in tensors.items():
        changed = oracle_for(tensors | {name: np.roll(tensor, 1) * np.float16(1.1)})
        moved = np.max(np.abs(changed.forward(TOKENS, changed.state()) - whole))
        assert (moved < 1e-3) == (name in unread), f"{name} moves the logits by {moved:.1e}"


@pytest.mark.parametrize(("version", "options"), ODD_VERSIONS, ids=str)
def test_a_model_of_any_version_calculates(version: str, options: dict[str, Any]) -> None:
    tensors = synthetic(version, **options)
    oracle = oracle_for(tensors)
    answer = expect(tensors, tokens_of(oracle, 60))
    assert answer.logits.shape == (60, oracle.vocabulary)
    assert 1 < np.std(answer.logits) < 4
    assert answer.logits_noise < 1e-4
    assert answer.state.shape == oracle.state().to_rows().shape


@pytest.mark.parametrize(("version", "options"), ODD_VERSIONS, ids=str)
def test_a_written_model_of_any_version_is_the_one_in_memory(
    tmp_path: Path, version: str, options: dict[str, Any]
) -> None:
    write_synthetic(tmp_path / "model.st", **options, seed=5, version=version)
    written, made = load_file(tmp_path / "model.st"), synthetic(version, **options, seed=5)
    assert set(written) == set(made)
    for name, tensor in made.items():
        np.testing.assert_array_equal(written[name], tensor)


def test_the_recurrence_of_v4_is_a_weighted_mean_of_all_values() -> None:
    random = np.random.default_rng(0)
    k, v = random.standard_normal((2, 6, 3))  # six tokens, three channels
    u, w = random.standard_normal(3), -random.uniform(0.1, 2, 3)
    aa, bb, pp = np.zeros(3), np.zeros(3), np.full(3, NO_TOKEN)
    y = wkv4(k, v, w, u, aa, bb, pp)
    for t in range(6):
        weights = np.exp([k[i] + ((t - 1 - i) * w if i < t else u) for i in range(t + 1)])
        np.testing.assert_allclose(y[t], np.sum(weights * v[: t + 1], axis=0) / np.sum(weights, axis=0))
    decayed = np.array([k[i] + (5 - i) * w for i in range(6)])
    np.testing.assert_allclose(pp, decayed.max(axis=0))
    np.testing.assert_allclose(aa * np.exp(pp), np.sum(np.exp(decayed) * v, axis=0))
    np.testing.assert_allclose(bb * np.exp(pp), np.sum(np.exp(decayed), axis=0))


def test_the_recurrence_of_v5_and_v6_is_a_sum_over_all_tokens() -> None:
    random = np.random.default_rng(0)
    r, k, v = random.standard_normal((3, 5, 2, 3))  # five tokens, two heads of three
    d, u = random.uniform(0.5, 1, (5, 2, 3)), random.standard_normal((2, 3))
    y = wkv5(r, d, k, v, u, np.zeros((2, 3, 3)))
    for t, h in np.ndindex(5, 2):
        scores = [np.sum(r[t, h] * k[i, h] * np.prod(d[i + 1 : t, h], axis=0)) for i in range(t)]
        scores.append(np.sum(r[t, h] * u[h] * k[t, h]))
        np.testing.assert_allclose(y[t, h], scores @ v[: t + 1, h])


def test_states_of_v4_are_compared_at_one_scale() -> None:
    oracle = oracle_for(golden_model("v4"))
    state = oracle.state()
    oracle.forward(TOKENS, state)
    rows = state.to_rows()
    moved = VectorState.from_rows(rows)
    moved.aa, moved.bb, moved.pp = moved.aa * np.e, moved.bb * np.e, moved.pp - 1
    np.testing.assert_allclose(at_scale_of(rows, moved.to_rows())[:, 1:3], rows[:, 1:3])


def test_raw_tensors_have_the_names_and_shapes_of_the_original() -> None:
    v51 = raw("v5.1", synthetic("v5.1", 1, 24, head_size=8))
    assert v51["blocks.0.att.time_faaaa"].shape == v51["blocks.0.att.time_decay"].shape == (3,)
    v6 = raw("v6", synthetic("v6", 1, 24, head_size=8, low_rank=(5, 7)))
    shapes = {name.removeprefix("blocks.0.att."): value.shape for name, value in v6.items()}
    assert (shapes["time_maa_w1"], shapes["time_maa_w2"]) == ((24, 25), (5, 5, 24))
    assert (shapes["time_decay_w1"], shapes["time_decay_w2"]) == ((24, 7), (7, 24))
    assert {"time_maa_x", "time_faaaa", "blocks.0.ffn.time_maa_k"} <= set(shapes)
    v7 = raw("v7", synthetic("v7", 1, 24, head_size=8, low_rank=(5, 7, 3, 6)))
    assert (v7["blocks.0.att.g1"].shape, v7["blocks.0.att.g2"].shape) == ((24, 6), (6, 24))
    for version in ("v4", "v5.0"):
        tensors = synthetic(version, 1, 24, head_size=8)
        assert raw(version, tensors).keys() == tensors.keys()
