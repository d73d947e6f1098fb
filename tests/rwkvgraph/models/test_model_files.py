"""Faulty model files of every version: one line says which file and which tensor, at once.

What makes a file readable at all is tested in load/, RWKV-7's files also in test_loading.py.
"""

import time
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rwkvgraph.errors import LoadError
from rwkvgraph.model import Model
from tests.rwkvgraph.load.torch_files import saved
from tests.rwkvgraph.models.oracle_common import Array
from tests.rwkvgraph.models.raw import raw
from tests.rwkvgraph.models.synthetic import Half, plan, synthetic

VERSIONS = ("v4", "v5.0", "v5.2", "v6", "v7")  # 5.1's files are 5.2's with other numbers
WIDTH, HEADS, SIZE, VOCAB = 32, 4, 8, 40
RANKS = {"v6": (8, 12), "v7": (8, 8, 8, 12)}
MOST_SECONDS = 1.0
PROMPT = [3, 1, 4, 1, 5]


@cache
def good(version: str, layers: int = 2) -> dict[str, Half]:
    return synthetic(version, layers, WIDTH, head_size=SIZE, vocab=VOCAB, low_rank=RANKS.get(version))


def answer(source: Path | Mapping[str, Array]) -> Array:
    model = Model.load(source, "cpu")
    (logits,) = model.run([list(PROMPT)], model.state())
    assert logits is not None
    return logits


def refuse(tensors: Mapping[str, Array], folder: Path) -> str:
    """The one line that a file of these tensors is refused with."""
    path = folder / "bad.st"
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path)
    started = time.process_time()  # not by the clock: other work on the machine would count
    with pytest.raises(LoadError) as caught:
        Model.load(path, "cpu")
    assert time.process_time() - started < MOST_SECONDS
    line = str(caught.value)
    assert line.isprintable()
    assert "bad.st" in line
    return line


def is_checked(name: str) -> bool:
    """Whether a tensor is of layer 1 or of no layer; those of layer 0 also tell the version."""
    return name.startswith("blocks.1.") or not name.startswith("blocks.0.") or ".ln0." in name


def names(version: str) -> list[str]:
    ranks = RANKS.get(version)
    every = plan(2, WIDTH, SIZE, vocab=VOCAB, low_rank=ranks, version=version)
    return [name for name in every if is_checked(name)]


EACH_TENSOR = [(version, name) for version in VERSIONS for name in names(version)]


@pytest.mark.parametrize(("version", "name"), EACH_TENSOR)
def test_a_missing_tensor_is_named(version: str, name: str, tmp_path: Path) -> None:
    tensors = {other: array for other, array in good(version).items() if other != name}
    assert f"bad.st has no tensor {name};" in refuse(tensors, tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_tensor_of_layer_0_may_not_be_missing_either(version: str, tmp_path: Path) -> None:
    unread = {f"blocks.0.att.v{number}" for number in range(3)}
    for name in good(version).keys() - unread:
        refuse({other: array for other, array in good(version).items() if other != name}, tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_missing_layer_is_named(version: str, tmp_path: Path) -> None:
    tensors = good(version, 3)
    middle = {name: array for name, array in tensors.items() if not name.startswith("blocks.1.")}
    assert "blocks.1." in refuse(middle, tmp_path) or "no layer 1" in refuse(middle, tmp_path)
    first = {name: array for name, array in tensors.items() if not name.startswith("blocks.0.")}
    assert "blocks.0." in refuse(first, tmp_path) or "no layer 0" in refuse(first, tmp_path)


SAY_THE_SIZE = ("emb.weight", "blocks.1.att.v1")
"""Matrices whose sizes are those that a model has."""
PER_HEAD = (".time_decay", ".time_first")
"""Vectors of RWKV-5 that may have one number a head; 32 heads of one channel are made of 32 of them."""


def spoilt_shapes(array: Array) -> Iterator[tuple[int, ...]]:
    """Shapes that no tensor of this kind has: another size, more or fewer axes, none of a size."""
    shape = array.shape
    sizes = [size for size in shape if size != 1]
    yield (*shape[:-1], shape[-1] + 1)
    yield (0, *shape[1:]) if shape[0] != 1 else (*shape[:-1], 0)
    yield (2, array.size // 2) if len(sizes) == 1 else (array.size,)
    if len(sizes) > 1:
        yield (sizes[0] + 5, *sizes[1:])
        yield (sizes[1] + 3, sizes[0] + 2, *sizes[2:])


@pytest.mark.parametrize(("version", "name"), EACH_TENSOR)
def test_a_tensor_of_another_shape_is_named_with_it(version: str, name: str, tmp_path: Path) -> None:
    for shape in spoilt_shapes(good(version)[name]):
        line = refuse({**good(version), name: np.ones(shape, np.float16)}, tmp_path)
        if len(shape) == 2 and name in SAY_THE_SIZE:  # then the others do not fit
            continue
        shown = (*shape, 1) if (version, len(shape)) == ("v5.2", 1) and name.endswith(PER_HEAD) else shape
        assert f"bad.st: {name} has shape {shown}; " in line


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("rows", [VOCAB + 1, VOCAB - 1, 1])
def test_a_head_of_another_vocabulary_is_refused(version: str, rows: int, tmp_path: Path) -> None:
    line = refuse({**good(version), "head.weight": np.ones((rows, WIDTH), np.float16)}, tmp_path)
    assert f"head.weight has shape ({rows}, {WIDTH}); wanted ({VOCAB}, {WIDTH})" in line
    line = refuse({**good(version), "emb.weight": np.ones((rows, WIDTH), np.float16)}, tmp_path)
    assert f"head.weight has shape ({VOCAB}, {WIDTH}); wanted ({rows}, {WIDTH})" in line


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("other", VERSIONS)
def test_layers_of_two_versions_are_refused(version: str, other: str, tmp_path: Path) -> None:
    if version == other:
        return
    layer = {name: array for name, array in good(other, 3).items() if name.startswith("blocks.1.")}
    rest = {name: array for name, array in good(version, 3).items() if name not in layer}
    rest = {name: array for name, array in rest.items() if not name.startswith("blocks.1.")}
    line = refuse({**rest, **layer}, tmp_path)  # what layer 0 lacks of layer 1's version, or the reverse
    assert "blocks.0." in line or "blocks.1." in line


EXTRA = ("blocks.1.att.deep_embed", "blocks.0.ffn.s_emb.weight", "pos_emb", "blocks.1.ffn.x_r",
         "blocks.0.att.key.lora.0", "head_q.weight", "blocks.1.ln3.weight")  # fmt: skip


@pytest.mark.parametrize("name", EXTRA)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_tensor_of_a_variant_is_refused_by_name(version: str, name: str, tmp_path: Path) -> None:
    line = refuse({**good(version), name: np.ones((WIDTH,), np.float16)}, tmp_path)
    assert f"tensors that this version of the model does not have (1): {name};" in line


@pytest.mark.parametrize("version", VERSIONS)
def test_of_many_tensors_of_a_variant_three_are_named(version: str, tmp_path: Path) -> None:
    extra = {f"blocks.{layer}.att.q_{k}": np.ones(3, np.float16) for layer in (0, 1) for k in "abc"}
    line = refuse({**good(version), **extra}, tmp_path)
    some = "blocks.0.att.q_a, blocks.0.att.q_b, blocks.0.att.q_c, …"
    assert f"tensors that this version of the model does not have (6): {some}" in line


def spoil(array: Array, value: float) -> tuple[Array, list[int]]:
    """The tensor in float32 with a value somewhere behind its middle, and where."""
    at = [size - 1 - size // 3 for size in array.shape]
    spoilt = array.astype(np.float32)
    spoilt[tuple(at)] = value
    return spoilt, at


@pytest.mark.parametrize(
    ("version", "name", "value"),
    [
        (version, name, value)
        for (version, name), value in zip(EACH_TENSOR, cycle((np.nan, np.inf, -np.inf)), strict=False)
    ],
)
def test_a_weight_that_is_not_finite_is_named_with_its_place(
    version: str, name: str, value: float, tmp_path: Path
) -> None:
    spoilt, at = spoil(good(version)[name], value)
    assert f"bad.st: {name} has {value} at {at}; weights are finite" in refuse(
        {**good(version), name: spoilt}, tmp_path
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_float16s_that_are_not_finite_are_found_as_well(version: str, tmp_path: Path) -> None:
    for name in ("emb.weight", "blocks.1.ffn.value.weight", "blocks.1.ln2.bias", "head.weight"):
        spoilt, at = spoil(good(version)[name], -np.inf)
        line = refuse({**good(version), name: spoilt.astype(np.float16)}, tmp_path)
        assert f"bad.st: {name} has -inf at {at}; weights are finite" in line


@pytest.mark.parametrize("value", [65520.0, -70000.0, 3e38])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_matrix_may_not_have_what_float16_cannot_hold(version: str, value: float, tmp_path: Path) -> None:
    for name in ("emb.weight", "blocks.1.att.key.weight", "blocks.1.ffn.value.weight", "head.weight"):
        spoilt, at = spoil(good(version)[name], value)
        line = refuse({**good(version), name: spoilt}, tmp_path)
        assert f"bad.st: {name} has {np.float32(value)} at {at}; float16 holds up to 65504" in line


@pytest.mark.parametrize("value", [65520.0, -70000.0])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_vector_may_have_what_float16_cannot_hold(version: str, value: float, tmp_path: Path) -> None:
    spoilt, _ = spoil(good(version)["ln_out.bias"], value)
    save_file({**good(version), "ln_out.bias": spoilt}, tmp_path / "good.st")
    wanted = value * good(version)["head.weight"].astype(np.float64)[:, WIDTH - 1 - WIDTH // 3]
    found = answer(tmp_path / "good.st") - answer(good(version))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=10)


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.uint16, np.bool_])
@pytest.mark.parametrize("version", VERSIONS)
def test_tensors_of_integers_are_refused(version: str, kind: type[np.generic], tmp_path: Path) -> None:
    for name in ("blocks.1.att.output.weight", "blocks.1.ln1.weight", "head.weight"):
        tensors = {**good(version), name: np.ones(good(version)[name].shape, kind)}
        assert f"tensor {name} is " in refuse(tensors, tmp_path)
        with pytest.raises(LoadError, match=f"arrays in memory: tensor {name} is {np.dtype(kind)}"):
            Model.load(tensors, "cpu")


@pytest.mark.parametrize("shape", [(5,), (5, 8), (5, 6), (3, 8), (33, 1), (0, 8)])
@pytest.mark.parametrize(
    ("version", "name"),
    [("v5.0", "time_decay"), ("v5.2", "time_decay"), ("v6", "time_first"), ("v7", "r_k")],
)
def test_heads_that_do_not_divide_the_width_are_refused(
    version: str, name: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    name = f"blocks.0.att.{name}"
    line = refuse({**good(version), name: np.ones(shape, np.float16)}, tmp_path)
    assert f"{shape[0]} heads" in line or f"{name} has shape {shape}" in line


@pytest.mark.parametrize("version", ["v5.0", "v5.2", "v6", "v7"])
def test_heads_of_another_size_are_refused(version: str, tmp_path: Path) -> None:
    name = {"v6": "time_first", "v7": "r_k"}.get(version, "time_decay")
    for shape in ((4, 9), (8, 4), (2, 16), (1, 32)):
        tensors = {**good(version), f"blocks.1.att.{name}": np.ones(shape, np.float16)}
        assert f"blocks.1.att.{name} has shape {shape}; wanted (4, 8)" in refuse(tensors, tmp_path)


def time_states(layers: int = 2) -> dict[str, Half]:
    shape = (HEADS, SIZE, SIZE)
    return {f"blocks.{layer}.att.time_state": np.ones(shape, np.float16) for layer in range(layers)}


@pytest.mark.parametrize("version", ["v5.0", "v5.2", "v6", "v7"])
def test_a_model_may_have_a_tuned_state_in_it(version: str, tmp_path: Path) -> None:
    save_file({**good(version), **time_states()}, tmp_path / "good.st")
    np.testing.assert_array_equal(answer(tmp_path / "good.st"), answer(good(version)))


@pytest.mark.parametrize("version", ["v5.1", "v5.2", "v6", "v7"])
def test_a_model_as_published_may_have_a_tuned_state_in_it(version: str, tmp_path: Path) -> None:
    path = tmp_path / "good.pth"
    path.write_bytes(saved({**raw(version, good(version)), **time_states()}))
    np.testing.assert_array_equal(answer(path), answer(good(version)))


def lora(a: str, b: str) -> dict[str, Half]:
    parts = {a: np.ones((4, WIDTH), np.float16), b: np.ones((WIDTH, 4), np.float16)}
    return {f"blocks.0.att.key.{part}": array for part, array in parts.items()}


@pytest.mark.parametrize(
    "tensors",
    [
        pytest.param(lora("lora.0", "lora.1"), id="lora"),
        pytest.param(lora("lora_A", "lora_B"), id="raw lora"),
        pytest.param({"state": np.zeros((2, 10, WIDTH), np.float32)}, id="saved state"),
        pytest.param(time_states(), id="tuned state"),
    ],
)
def test_a_file_that_goes_with_a_model_is_not_one(tensors: dict[str, Array], tmp_path: Path) -> None:
    line = refuse(tensors, tmp_path)
    assert "bad.st is not a model that can be run: known versions are V4, V5, V6, V7" in line
    assert sorted(tensors)[0].replace("_A", ".0") in line


def test_a_tuned_state_by_torch_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "state.pth").write_bytes(saved(time_states()))
    with pytest.raises(LoadError, match=r"state.pth is not a model .* such as blocks.0.att.time_state"):
        Model.load(tmp_path / "state.pth", "cpu")


@pytest.mark.parametrize("bonus", [89.0, 1000.0])
def test_a_bonus_of_5_0_whose_exponential_is_infinite_is_refused(bonus: float, tmp_path: Path) -> None:
    name = "blocks.1.att.time_first"
    tensors = {**good("v5.0"), name: np.full_like(good("v5.0")[name], bonus)}
    assert name in refuse(tensors, tmp_path)
