"""Loading a model: what cannot be loaded says why, and what can be never lies in memory as a whole."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from rwkvgraph.errors import LoadError
from rwkvgraph.load import convert, open_model
from rwkvgraph.model import Model
from tests.rwkvgraph.load.torch_files import save_as_torch, saved
from tests.rwkvgraph.models.oracle_v7 import Array
from tests.rwkvgraph.models.synthetic import write_synthetic

LARGE = os.environ.get("RWKVGRAPH_TEST_LARGE") == "1"
MOST_MB = 150
"""What loading may hold besides the device's memory, whatever the model: 64 MB of the mapped file, for each
of a few threads 4 MB and what they are converted to, 2 × 8 MB on their way to the device."""


@pytest.fixture
def good(small_tensors: dict[str, Array], tmp_path: Path) -> Path:
    save_file(small_tensors, tmp_path / "good.st")
    return tmp_path / "good.st"


def test_a_file_and_its_arrays_are_the_same_model(good: Path, small_tensors: dict[str, Array]) -> None:
    results = []
    for source in (good, str(good), small_tensors, open_model(good)):
        model = Model.load(source, "cpu")  # type: ignore[arg-type]  # readers are taken too
        results.append(model.run([[1, 2, 149]], model.state())[0])
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("kind", ["st", "pth"])
def test_a_file_is_read_the_same_when_it_is_mapped_anew(
    good: Path, small_tensors: dict[str, Array], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("rwkvgraph.load.mapped.MAPPED_BYTES", 1000)
    if kind == "pth":
        good.write_bytes(saved(small_tensors))
    reader = open_model(good)
    for name, array in small_tensors.items():
        for start in range(0, len(array), 7):
            stop = min(start + 7, len(array))
            np.testing.assert_array_equal(reader.rows(name, start, stop), array[start:stop])


def write_nothing(path: Path) -> None:
    """Leave the path without a file."""


CANNOT_BE_READ: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (write_nothing, "cannot read .*bad.st: No such file"),
    "folder": (Path.mkdir, "bad.st is a folder; give the model file in it"),
    "lfs pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "bad.st is a git-lfs pointer, not the model; run `git lfs pull`",
    ),
    "empty": (lambda path: path.write_bytes(b""), "bad.st has 0 bytes"),
    "seven bytes": (lambda path: path.write_bytes(b"1234567"), "bad.st has 7 bytes"),
    "pth": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)), "a zip file, as .pth files are"),
    "zeros": (lambda path: path.write_bytes(bytes(1000)), "bad.st is not a safetensors file"),
    "random bytes": (
        lambda path: path.write_bytes(np.random.default_rng(0).bytes(1000)),
        "its header would have .* bytes, and the file has 1000; damaged or cut off",
    ),
    "text": (lambda path: path.write_text("Once upon a time. " * 50), "bad.st is a text file"),
    "no json": (lambda path: path.write_bytes(b"\x10" + bytes(7) + b"x" * 100), "is not a safetensors file"),
    "no tensors": (lambda path: save_file({}, path), "has no tensors, so it is not a model that can be run"),
    "other model": (
        lambda path: save_file({"model.embed_tokens.weight": np.zeros((4, 4), np.float16)}, path),
        "known versions are .*V7.*such as model.embed_tokens.weight",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("write", "message"), CANNOT_BE_READ.values(), ids=CANNOT_BE_READ.keys())
def test_what_is_no_model_says_what_it_is(
    tmp_path: Path, write: Callable[[Path], object], message: str
) -> None:
    write(tmp_path / "bad.st")
    with pytest.raises(LoadError, match=message):
        Model.load(tmp_path / "bad.st", "cpu")


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.1])
def test_a_file_that_was_cut_off_is_refused(good: Path, tmp_path: Path, kept: float) -> None:
    data = good.read_bytes()
    (tmp_path / "cut.st").write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(LoadError, match=r"cut.st.*"):
        Model.load(tmp_path / "cut.st", "cpu")


@pytest.mark.parametrize("dtype", [np.int8, np.float64])
def test_tensors_of_another_type_are_refused(
    tmp_path: Path, small_tensors: dict[str, Array], dtype: type[np.generic]
) -> None:
    save_file(small_tensors | {"head.weight": small_tensors["head.weight"].astype(dtype)}, tmp_path / "m.st")
    with pytest.raises(
        LoadError, match=r"tensor head.weight is .*; a model's tensors are one of F16, BF16, F32"
    ) as caught:
        Model.load(tmp_path / "m.st", "cpu")
    assert ("cast it before it is saved" in str(caught.value)) == (dtype is np.float64)


def float32(path: Path, tensors: dict[str, Array]) -> None:
    save_file({name: array.astype(np.float32) for name, array in tensors.items()}, path)


def by_torch(path: Path, tensors: dict[str, Array]) -> None:
    path.write_bytes(saved(tensors))


def raw_by_torch(path: Path, tensors: dict[str, Array]) -> None:
    """As BlinkDL's code saves it: low-rank matrices the other way round."""
    low_rank = tuple(f"att.{letter}{which}" for letter in "wavg" for which in (1, 2))
    raw = {name: array.T if name.endswith(low_rank) else array for name, array in tensors.items()}
    path.write_bytes(saved({name: np.ascontiguousarray(array) for name, array in raw.items()}))


@pytest.mark.parametrize("write", [float32, by_torch, raw_by_torch])
def test_a_model_is_the_same_however_it_was_saved(
    tmp_path: Path, small_tensors: dict[str, Array], write: Callable[[Path, dict[str, Array]], None]
) -> None:
    write(tmp_path / "model.bin", small_tensors)
    results = []
    for source in (small_tensors, tmp_path / "model.bin"):
        model = Model.load(source, "cpu")
        results.append(model.run([[1, 2, 149]], model.state())[0])
    np.testing.assert_array_equal(results[1], results[0])


def test_a_model_in_bfloat16_is_that_of_its_rounded_weights(
    tmp_path: Path, small_tensors: dict[str, Array]
) -> None:
    convert(small_tensors, tmp_path / "model.st", "BF16")
    reader = open_model(tmp_path / "model.st")
    rounded = {name: reader.rows(name, 0, 1000).reshape(reader.shape(name)) for name in reader.names()}
    results = []
    for source in (rounded, tmp_path / "model.st"):
        model = Model.load(source, "cpu")
        results.append(model.run([[1, 2, 149]], model.state())[0])
    np.testing.assert_array_equal(results[1], results[0])


NEEDED = ["emb.weight", "head.weight", "blocks.0.ln0.bias", "blocks.0.ffn.key.weight", "blocks.1.att.v1",
          "blocks.1.att.w2", "blocks.1.att.ln_x.weight", "blocks.1.att.x_g", "ln_out.weight"]  # fmt: skip


@pytest.mark.parametrize("name", NEEDED)
def test_a_tensor_that_is_missing_is_named(small_tensors: dict[str, Array], name: str) -> None:
    with pytest.raises(LoadError, match=f"no tensor {name}"):
        Model.load({key: value for key, value in small_tensors.items() if key != name}, "cpu")


@pytest.mark.parametrize(
    "name", [*NEEDED, "blocks.0.att.r_k", "blocks.0.att.a0", "blocks.1.ffn.value.weight"]
)
@pytest.mark.parametrize("change", ["a row less", "flat", "an axis more"])
def test_a_tensor_of_another_shape_is_refused(
    small_tensors: dict[str, Array], name: str, change: str
) -> None:
    array = small_tensors[name]
    last = array.reshape(-1, array.shape[-1])
    changed = {
        "a row less": last[..., :-1],
        "flat": np.resize(array, array.size + 1),
        "an axis more": last[:, None, :2],
    }
    with pytest.raises(LoadError, match=r"has shape|no tensor|divide"):
        Model.load(small_tensors | {name: changed[change]}, "cpu")


def halves(*shape: int) -> Array:
    return np.zeros(shape, np.float16)


ODD: dict[str, dict[str, Array]] = {
    "a layer without a number": {"blocks.last.ln1.weight": halves(48)},
    "a block without a name": {"blocks.": halves(48)},
    "a layer that is missing": {"blocks.7.ln1.weight": halves(48)},
    "no heads": {"blocks.0.att.r_k": halves(0, 16)},
    "heads that do not divide": {"blocks.0.att.r_k": halves(5, 16)},
    "a number for a matrix": {"emb.weight": halves()},
    "a number for a vector": {"ln_out.weight": halves()},
    "no vocabulary": {"emb.weight": halves(0, 48), "head.weight": halves(0, 48)},
    "no channels": {"emb.weight": halves(150, 0)},
    "no hidden": {"blocks.0.ffn.key.weight": halves(0, 48)},
    "no rank": {"blocks.0.att.w1": halves(0, 48)},
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_sizes_that_make_no_model_are_refused(small_tensors: dict[str, Array], odd: dict[str, Array]) -> None:
    with pytest.raises(LoadError):
        Model.load(small_tensors | odd, "cpu")


def measure(path: Path, kind: str) -> dict[str, Any]:
    """What loading the file in another process took, in MB."""
    script = Path(__file__).with_name("loading_memory.py")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, str(script), str(path), kind],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)
    print(f"{path.stat().st_size / 1e6:.0f} MB, {kind}: {figures}")
    return figures


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of 295 MB, mostly two tables, or of 3 GB where asked for; and its largest tensor's MB."""
    folder = tmp_path_factory.mktemp("models")
    if LARGE:
        write_synthetic(folder / "large.st", layers=24, width=2048, vocab=65536)
        yield folder / "large.st", 65536 * 2048 * 2 / 1e6
    else:
        write_synthetic(folder / "small.st", layers=4, width=512, vocab=1 << 17)
        yield folder / "small.st", (1 << 17) * 512 * 2 / 1e6
    shutil.rmtree(folder)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc")
@pytest.mark.parametrize("kind", ["reader", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_loading_holds_a_small_part_of_the_file(files: tuple[Path, float], kind: str, request: Any) -> None:
    if kind == "gpu":
        request.getfixturevalue("gpu")
    path, largest = files
    figures = measure(path, kind)
    assert figures["peak"] <= MOST_MB < largest * 3 + 300
    if kind == "reader":
        assert figures["weights"] == pytest.approx(path.stat().st_size / 1e6, rel=0.01)
        assert figures["kept"] < 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc")
def test_a_file_by_torch_is_never_in_memory_as_a_whole(files: tuple[Path, float]) -> None:
    path = files[0].with_suffix(".pth")
    save_as_torch(files[0], path)
    figures = measure(path, "reader")
    path.unlink()
    assert figures["peak"] <= MOST_MB
    assert figures["kept"] < 20
