"""Files of states: what was saved is loaded to the bit, anything else is refused with the reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rwkvgraph.errors import LoadError
from rwkvgraph.load.arrays import ArrayReader
from rwkvgraph.model import Model
from rwkvgraph.op import Array
from rwkvgraph.state import State
from tests.rwkvgraph.conftest import Device
from tests.rwkvgraph.load.torch_files import saved
from tests.rwkvgraph.models.synthetic import synthetic
from tests.rwkvgraph.test_state import VERSIONS, load

OUTSIDE_LAYERS = ("emb.weight", "head.weight", "ln_out.weight", "blocks.0.ln0.weight", "blocks.0.ln0.bias")

WITH_MATRICES = VERSIONS[1:]
"""Of RWKV-4 the state has no matrices, so that none is tuned."""


@pytest.fixture(scope="module", params=VERSIONS)
def model(request: pytest.FixtureRequest, device: Device) -> Model:
    return load(request.param, device)


@pytest.fixture
def state(model: Model) -> State:
    """Two slots, of which the second is used."""
    state = model.state(2)
    model.run([[], [3, 1, 4]], state)
    return state


@pytest.fixture
def file(state: State, tmp_path: Path) -> Path:
    state.save(tmp_path / "slot.st", 1)
    return tmp_path / "slot.st"


def test_a_saved_slot_is_loaded_to_the_bit(model: Model, state: State, file: Path) -> None:
    other = model.state(3)
    other.load(file, 2)
    np.testing.assert_array_equal(other.read(2), state.read(1))
    assert [other.is_empty(slot) for slot in range(3)] == [True, True, False]
    state.load(str(file), 0)
    np.testing.assert_array_equal(state.read(0), state.read(1))


def test_a_file_outlives_the_process_that_made_it(model: Model, state: State, file: Path) -> None:
    version = {"V4": "v4", "V5": "v5.2", "V6": "v6", "V7": "v7"}[model.info.version]
    again = load(version, "cpu")
    assert again.fingerprint == model.fingerprint
    other = again.state()
    other.load(file, 0)
    np.testing.assert_array_equal(other.read(0), state.read(1))


def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(state: State, file: Path) -> None:
    state.save(file, 0)
    assert [path.name for path in file.parent.iterdir()] == ["slot.st"]
    state.load(file, 1)
    assert state.is_empty(1)


def test_a_file_that_cannot_be_written_is_named(state: State, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"cannot write .*nowhere"):
        state.save(tmp_path / "nowhere" / "slot.st", 0)


def check_refused(
    state: State, path: Path, match: str, load: Callable[[Path, int], None] | None = None
) -> None:
    before = state.read(0)
    with pytest.raises(LoadError, match=match):
        (load or state.load)(path, 0)
    np.testing.assert_array_equal(state.read(0), before)


@pytest.mark.parametrize("keep", [0, 7, 40, 500, -1])
def test_a_file_cut_off_is_refused(state: State, file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    check_refused(state, file, r"slot\.st")


@pytest.mark.parametrize("at", [-1, -1000])
def test_a_flipped_bit_is_noticed(state: State, file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
    check_refused(state, file, "is damaged: its values are not those that were saved")


def test_a_missing_file_is_refused(state: State, tmp_path: Path) -> None:
    check_refused(state, tmp_path / "none.st", "cannot read .*none.st: No such file")
    check_refused(state, tmp_path, "is a folder")


def test_a_file_of_something_else_is_refused(state: State, tmp_path: Path) -> None:
    save_file({"state": np.zeros(3, np.float32)}, tmp_path / "x.st")
    check_refused(state, tmp_path / "x.st", r"is not a state that State.save wrote; .*State.load_tuned")


def test_the_state_of_another_version_or_shape_is_refused(device: Device, file: Path, model: Model) -> None:
    other = load("v6" if model.info.version != "V6" else "v7", device).state()
    check_refused(other, file, f"the state of another model: its version is {model.info.version}")
    narrow = Model.load(synthetic("v7", 2, 32, head_size=16, vocab=50, low_rank=(8, 8, 8, 12)), device)
    if model.info.version == "V7":
        check_refused(narrow.state(), file, "its shape is 2x18x48, this model's 2x18x32")


def test_the_state_of_other_weights_is_refused(device: Device, tmp_path: Path) -> None:
    tensors = synthetic("v7", 2, 48, head_size=16, vocab=50, low_rank=(8, 8, 8, 12))
    one = Model.load(tensors, device)
    one.state().save(tmp_path / "one.st", 0)
    for name in (*OUTSIDE_LAYERS, *(name for name in tensors if name.startswith("blocks.1."))):
        other = Model.load({**tensors, name: tensors[name] + np.float16(0.01)}, "cpu")
        assert other.fingerprint != one.fingerprint
    check_refused(other.state(), tmp_path / "one.st", "the state of another model: its fingerprint is")


def test_the_fingerprint_is_of_the_values_and_not_of_the_file(tmp_path: Path) -> None:
    tensors = synthetic("v7", 2, 48, head_size=16, vocab=50, low_rank=(8, 8, 8, 12))
    wanted = Model.load(tensors, "cpu").fingerprint
    assert len(wanted) == 32
    wide = {name: values.astype(np.float32) for name, values in tensors.items()}
    shaped = {name: values[None, None] if values.ndim == 1 else values for name, values in tensors.items()}
    save_file(wide, tmp_path / "wide.st")
    for source in (wide, shaped, ArrayReader(tensors, "elsewhere"), tmp_path / "wide.st"):
        assert Model.load(source, "cpu", 5, names="converted").fingerprint == wanted  # type: ignore[arg-type]


def tuned(model: Model, seed: int = 0, layers: int = 2) -> dict[str, Array]:
    """A tuned initial state as trained: [head][value][key], in half precision."""
    random = np.random.default_rng(seed)
    shape = (model.info.num_head, 16, 16)
    return {
        f"blocks.{layer}.att.time_state": random.standard_normal(shape).astype(np.float16)
        for layer in range(layers)
    }


@pytest.fixture
def matrices(model: Model) -> dict[str, Array]:
    return tuned(model)


def check_tuned(state: State, matrices: dict[str, Array]) -> None:
    rows = state.read(1)
    assert not rows[:, [0, -1]].any()
    for layer, (h, key, value) in zip([0, 1, 1], [(0, 1, 2), (2, 15, 3), (1, 0, 9)], strict=True):
        wanted = matrices[f"blocks.{layer}.att.time_state"][h, value, key]
        assert rows[layer, 1 + key, h * 16 + value] == wanted
    assert rows.sum(dtype=np.float64) == pytest.approx(
        sum(m.sum(dtype=np.float64) for m in matrices.values())
    )


@pytest.mark.parametrize("model", WITH_MATRICES, indirect=True)
def test_a_tuned_state_is_loaded(state: State, matrices: dict[str, Array], tmp_path: Path) -> None:
    converted = {name: np.ascontiguousarray(values.swapaxes(1, 2)) for name, values in matrices.items()}
    save_file(converted, tmp_path / "tuned.st")
    save_file(matrices, tmp_path / "raw.safetensors")
    state.load_tuned(tmp_path / "tuned.st", 1)
    check_tuned(state, matrices)
    state.clear(1)
    state.load_tuned(tmp_path / "raw.safetensors", 1, key_first=False)
    check_tuned(state, matrices)
    assert state.is_empty(0)


@pytest.mark.parametrize("model", WITH_MATRICES, indirect=True)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_tuned_state_by_torch_is_the_converted_one_with_its_axes_swapped(
    state: State, matrices: dict[str, Array], tmp_path: Path, dtype: type[np.generic]
) -> None:
    converted = {name: np.ascontiguousarray(values.swapaxes(1, 2)) for name, values in matrices.items()}
    save_file(converted, tmp_path / "tuned.st")
    for ending in ("pth", "pt", "bin"):
        path = tmp_path / f"tuned.{ending}"
        path.write_bytes(saved({name: values.astype(dtype) for name, values in matrices.items()}))
        state.clear_all()
        state.load_tuned(path, 1)
        check_tuned(state, matrices)
        state.load_tuned(tmp_path / "tuned.st", 0)
        np.testing.assert_array_equal(state.read(0), state.read(1))
        state.load_tuned(path, 0, key_first=True)
        assert (state.read(0) != state.read(1)).any()


@pytest.mark.parametrize("model", ["v4"], indirect=True)
@pytest.mark.parametrize("ending", ["st", "pth"])
def test_a_tuned_state_is_refused_by_rwkv_4(model: Model, state: State, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"tuned.{ending}"
    save_file(tuned(model), path) if ending == "st" else path.write_bytes(saved(tuned(model)))
    check_refused(state, path, rf"tuned.{ending}: RWKV-4 has no tuned initial states", state.load_tuned)
    check_refused(state, tmp_path / "none.st", "RWKV-4 has no tuned initial states", state.load_tuned)


@pytest.mark.parametrize("model", WITH_MATRICES, indirect=True)
def test_a_tuned_state_that_does_not_fit_is_refused(model: Model, state: State, tmp_path: Path) -> None:
    path = tmp_path / "tuned.st"
    good = tuned(model)
    name = "blocks.1.att.time_state"
    spoilt: list[tuple[dict[str, Any], str]] = [
        ({"x": good[name]}, r"has no blocks.0.att.time_state, .*read by State.load"),
        (tuned(model, layers=1), "has no blocks.1.att.time_state"),
        (tuned(model, layers=3), "has blocks.2.att.time_state, and the model 2 layers"),
        ({**good, name: good[name][:2]}, r"blocks.1.att.time_state has shape \(2, 16, 16\)"),
        ({**good, name: good[name] * np.float16(np.nan)}, "NaN or infinity"),
    ]
    for tensors, match in spoilt:
        save_file({key: np.ascontiguousarray(values) for key, values in tensors.items()}, path)
        with pytest.raises(LoadError, match=match):
            state.load_tuned(path, 1)


def test_a_saved_file_is_an_ordinary_safetensors_file(state: State, file: Path) -> None:
    np.testing.assert_array_equal(load_file(file)["state"], state.read(1))


def test_a_slot_that_went_wrong_is_not_saved(device: Device, tmp_path: Path) -> None:
    state = load("v7", device).state()
    broken = state.read(0)
    broken[0, 1, 2] = np.nan
    memories, row = state._place(0)
    state._engine.write_slot(memories, row, broken.reshape(-1))
    with pytest.raises(LoadError, match=r"slot.st was not written: the slot has NaN"):
        state.save(tmp_path / "slot.st", 0)
    assert not list(tmp_path.iterdir())


def test_the_values_of_another_type_are_refused(state: State, file: Path) -> None:
    data = file.read_bytes().replace(b'"dtype":"F32"', b'"dtype":"U32"')
    file.write_bytes(data)
    check_refused(state, file, r"slot.st: tensor state is U32")
