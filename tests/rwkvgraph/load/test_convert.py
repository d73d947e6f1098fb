"""Converting writes, byte for byte, what web-rwkv's converter writes; a file appears whole or not at all."""

import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save, save_file

from rwkvgraph.cli import main
from rwkvgraph.errors import LoadError
from rwkvgraph.load import convert, open_model, open_tensors
from rwkvgraph.op import Array
from tests.rwkvgraph.load.torch_files import saved
from tests.rwkvgraph.test_cli import command, environment, read_terminal

DATA = Path(__file__).parent / "data"
DIGESTS: dict[str, str] = json.loads((DATA / "converted.json").read_text())
MODELS = sorted(DIGESTS)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", MODELS)
def test_bytes_are_those_of_the_converter_of_web_rwkv(tmp_path: Path, name: str) -> None:
    convert(DATA / f"{name}.pth", tmp_path / "out.st")
    assert digest(tmp_path / "out.st") == DIGESTS[name]


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"state"}))
def test_what_is_converted_is_converted_to_itself(tmp_path: Path, name: str) -> None:
    convert(DATA / f"{name}.pth", tmp_path / "once.st")
    convert(tmp_path / "once.st", tmp_path / "twice.st")
    assert digest(tmp_path / "twice.st") == DIGESTS[name]


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"state"}))
def test_raw_safetensors_are_converted_to_the_same(tmp_path: Path, name: str) -> None:
    raw = open_tensors(DATA / f"{name}.pth")
    save_file(
        {key: raw.rows(key, 0, 100).reshape(raw.shape(key)) for key in raw.names()}, tmp_path / "raw.st"
    )
    convert(tmp_path / "raw.st", tmp_path / "out.st")
    assert digest(tmp_path / "out.st") == DIGESTS[name]


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_all_tensors_are_of_the_type_that_was_asked_for(tmp_path: Path, dtype: str) -> None:
    source = open_model(DATA / "v4.pth")
    convert(DATA / "v4.pth", tmp_path / "out.st", dtype)
    with safe_open(tmp_path / "out.st", "numpy") as file:
        assert {file.get_slice(key).get_dtype() for key in source.names()} == {dtype}
        assert file.metadata() == {"format": "pt"}
    found = open_model(tmp_path / "out.st")
    for name in source.names():
        rows = found.rows(name, 0, 100)
        assert rows.dtype == (np.float16 if dtype == "F16" else np.float32)
        np.testing.assert_allclose(rows, source.rows(name, 0, 100), 2**-8 if dtype == "BF16" else 2**-11)


def test_the_header_is_that_of_safetensors(tmp_path: Path) -> None:
    """Names in the order of their bytes, letters of any kind, sizes of none and one."""
    names = ["blocks.10.x", "blocks.9.x", "ünï", "a b", '"', "\\", "\u007e", "z" * 200]
    tensors: dict[str, Array] = {
        name: np.full((index, 2), index, np.float16) for index, name in enumerate(names)
    }
    tensors["one"] = np.array(3, np.float16)
    convert(tensors, tmp_path / "out.st")
    assert (tmp_path / "out.st").read_bytes() == save(tensors, {"format": "pt"})


def test_rounding_is_to_nearest_and_to_even(tmp_path: Path) -> None:
    bits = np.concatenate(
        [np.arange(0x3F800000, 0x3F840000, 0x1000), np.arange(0x00000000, 0x00030000, 0x4000)]
    )
    values = bits.astype(np.uint32).view(np.float32)
    convert({"x": values}, tmp_path / "b.st", "BF16")
    found = open_model(tmp_path / "b.st").rows("x", 0, len(values)).view(np.uint32)
    assert not (found & 0xFFFF).any()
    # Of two neighbours the nearer one, of two as near the one that is even.
    error = np.abs(found.astype(np.int64) - bits)
    assert error.max() == 0x8000
    assert not (found[error == 0x8000] & 0x10000).any()


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("given", [np.float16, np.float32])
def test_infinities_and_nan_are_refused_by_name(
    tmp_path: Path, value: float, given: type[np.floating]
) -> None:
    values = np.array([0, value, 1], given)
    for dtype in ("F16", "BF16", "F32"):
        with pytest.raises(LoadError, match="tensor y holds NaN or infinity"):
            convert({"x": np.zeros(3, given), "y": values}, tmp_path / "out.st", dtype)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("dtype", "value"), [("F16", 65520.0), ("F16", -70000.0), ("BF16", 3.4e38), ("BF16", -3.4e38)]
)
def test_a_number_that_is_too_large_is_named(tmp_path: Path, dtype: str, value: float) -> None:
    wide = {"x": np.ones(3, np.float32), "y": np.array([[1, 2], [value, 3]], np.float32)}
    with pytest.raises(
        LoadError, match=rf"tensor y holds {value:g}; the largest {dtype} is .*\(--dtype".replace("+", r"\+")
    ):
        convert(wide, tmp_path / "out.st", dtype)
    assert not list(tmp_path.iterdir())
    convert(wide, tmp_path / "out.st", "F32")


def test_the_largest_number_is_not_too_large(tmp_path: Path) -> None:
    convert({"x": np.array([65519.0, 65504.0], np.float32)}, tmp_path / "out.st")
    assert open_model(tmp_path / "out.st").rows("x", 0, 2).tolist() == [65504, 65504]


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    out = tmp_path / "out.st"
    out.write_bytes(b"mine")
    with pytest.raises(LoadError, match=r"out.st is there already; .*--force. overwrites it"):
        convert(DATA / "v4.pth", out)
    assert out.read_bytes() == b"mine"
    convert(DATA / "v4.pth", out, force=True)
    assert digest(out) == DIGESTS["v4"]


def test_a_file_can_be_converted_onto_itself(tmp_path: Path) -> None:
    out = tmp_path / "model.st"
    out.write_bytes((DATA / "v7.pth").read_bytes())
    convert(out, out, force=True)
    assert digest(out) == DIGESTS["v7"]


@pytest.mark.skipif(sys.platform == "win32", reason="links are POSIX")
def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real.st").write_bytes(b"old")
    (tmp_path / "link.st").symlink_to("real.st")
    convert(DATA / "v4.pth", tmp_path / "link.st", force=True)
    assert (tmp_path / "link.st").is_symlink()
    assert digest(tmp_path / "real.st") == DIGESTS["v4"]


def test_a_conversion_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "out.st"
    out.write_bytes(b"mine")
    with pytest.raises(LoadError):
        convert({"x": np.array([1e9], np.float32)}, out, force=True)
    assert out.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("place", "message"),
    [("none/out.st", r"cannot write .*out\.st: No such"), ("", "is there already|cannot write")],
)
@pytest.mark.parametrize("force", [False, True])
def test_where_nothing_can_be_written_it_is_said(
    tmp_path: Path, place: str, message: str, force: bool
) -> None:
    with pytest.raises(LoadError, match=message):
        convert(DATA / "v4.pth", tmp_path / place, force=force)


def test_nothing_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="has no tensors"):
        convert({}, tmp_path / "out.st")
    with pytest.raises(ValueError, match="dtype is 'I8'; it is one of F16, BF16, F32"):
        convert({}, tmp_path / "out.st", "I8")


def test_a_model_is_never_in_memory_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rwkvgraph.load.conversion.PIECE_BYTES", 1 << 18)
    rows = np.zeros((4096, 1024), np.float16)
    for name, data in (("in.pth", saved({"a": rows, "b": rows})), ("in.st", save({"a": rows, "b": rows}))):
        (tmp_path / name).write_bytes(data)
        del data
        tracemalloc.start()
        convert(tmp_path / name, tmp_path / "out.st", force=True)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 << 20 < rows.nbytes
    assert set(load_file(tmp_path / "out.st")) == {"a", "b"}


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `rwkvgraph convert`."""
    code = main(["convert", *map(str, arguments)])
    return code, *capsys.readouterr()


def test_the_command_converts_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.st"
    code, said, told = run(capsys, DATA / "v6.pth", out)
    assert (code, said, digest(out)) == (0, "", DIGESTS["v6"])
    assert told.startswith("model ")
    assert "out.st, 34 tensors of F16" in told
    code, said, told = run(capsys, DATA / "v6.pth", out)
    assert (code, said, told.count("\n")) == (1, "", 1)
    assert told.startswith("rwkvgraph: error:")
    assert "--force" in told
    assert run(capsys, "-q", "--force", "--dtype", "bf16", DATA / "v6.pth", out) == (0, "", "")


def test_the_command_is_told_what_a_file_does_not_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = np.arange(32, dtype=np.float16).reshape(2, 4, 4)
    save_file({"blocks.0.att.time_state": state}, tmp_path / "state.st")
    code, _, told = run(capsys, tmp_path / "state.st", tmp_path / "out.st")
    assert (code, "--names" in told) == (1, True)
    for names, expected in (("raw", state.swapaxes(1, 2)), ("converted", state)):
        assert (
            run(capsys, "-q", "--force", "--names", names, tmp_path / "state.st", tmp_path / "out.st")[0] == 0
        )
        np.testing.assert_array_equal(load_file(tmp_path / "out.st")["blocks.0.att.time_state"], expected)


def without(name: str) -> dict[str, Array]:
    """A model of V7 that lacks a tensor."""
    reader = open_model(DATA / "v7.pth")
    tensors = {key: reader.rows(key, 0, 100).reshape(reader.shape(key)) for key in reader.names()}
    return {key: array for key, array in tensors.items() if key != name}


@pytest.mark.parametrize("version", sorted(set(MODELS) - {"state"}))
def test_the_command_checks_that_a_model_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], version: str
) -> None:
    assert run(capsys, "-q", DATA / f"{version}.pth", tmp_path / "out.st") == (0, "", "")


@pytest.mark.parametrize("name", ["blocks.0.att.w1", "blocks.0.ffn.value.weight", "blocks.0.ln1.bias"])
def test_the_command_refuses_a_model_that_could_not_be_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    save_file(without(name), tmp_path / "in.st")
    code, _, told = run(capsys, tmp_path / "in.st", tmp_path / "out.st")
    assert (code, f"no tensor {name}" in told) == (1, True)
    save_file({"emb.weight": np.zeros((2, 2), np.float16)}, tmp_path / "in.st")
    code, _, told = run(capsys, tmp_path / "in.st", tmp_path / "out.st")
    assert (code, "is not a model that can be run" in told) == (1, True)
    assert not (tmp_path / "out.st").exists()


def test_the_command_says_what_it_did_not_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"weight": np.zeros((2, 2), np.float16)}, tmp_path / "linear.st")
    code, _, told = run(capsys, tmp_path / "linear.st", tmp_path / "out.st")
    assert code == 0
    assert "no emb.weight, so it is no whole model: neither its names nor its shapes are checked" in told
    assert run(capsys, "-q", "--force", tmp_path / "linear.st", tmp_path / "out.st") == (0, "", "")


def test_bytes_are_told_as_they_are_written(tmp_path: Path) -> None:
    told: list[int] = []
    note: Callable[[int], None] = told.append
    convert(DATA / "v7.pth", tmp_path / "out.st", advance=note)
    reader = open_model(DATA / "v7.pth")
    assert sum(told) == sum(2 * int(np.prod(reader.shape(name))) for name in reader.names())


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals as POSIX has them")
def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    import pty  # POSIX only

    ours, theirs = pty.openpty()
    subprocess.run(
        command("convert", str(DATA / "v4.pth"), str(tmp_path / "out.st")),
        env=environment(TERM="xterm-256color", COLUMNS="100"),
        stderr=theirs,
        check=True,
    )
    os.close(theirs)
    seen = read_terminal(ours)
    assert "converting" in seen
    assert "out.st" in seen
