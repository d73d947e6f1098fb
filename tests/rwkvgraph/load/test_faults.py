"""Files that are no models say what they are, in one line, at once and without taking memory."""

import io
import json
import os
import re
import struct
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from rwkvgraph.errors import LoadError
from rwkvgraph.load import open_model, open_tensors
from rwkvgraph.load.mapped import MOST_TENSORS
from tests.rwkvgraph.load.torch_files import pickled, saved, storage, tensor, torch_zip

DATA = Path(__file__).parent / "data"
HALVES = np.arange(24, dtype=np.float16)
MOST_SECONDS = 1.0
MOST_BYTES = 40 << 20
"""What refusing may take: 8 MB of pickle, or 1 MB of header and what parsing makes of it."""


def refuse(path: Path, data: bytes) -> str:
    """The one line that a file with this content is refused with."""
    path.write_bytes(data)
    tracemalloc.start()
    started = time.perf_counter()
    try:
        with pytest.raises(LoadError) as caught:
            open_model(path)
        seconds, peak = time.perf_counter() - started, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seconds < 5 * MOST_SECONDS, "tracing makes it five times slower"
    assert peak < MOST_BYTES
    line = str(caught.value)
    assert line.isprintable()
    assert path.name in line
    return line


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.add(DATA / "views.pth", "views.pth")
    return buffer.getvalue()


def zipped(*names: str, data: bytes = b"", method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name in names:
            file.writestr(name, data)
    return buffer.getvalue()


VIEWS = (DATA / "views.pth").read_bytes()
ONE = pickled({"x": tensor(storage("HalfStorage", "0", 24), 0, (24,), (1,))})

FOREIGN = {
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "run `git lfs pull`"),
    "empty": (b"", "has 0 bytes; nothing was written to it"),
    "seven bytes": (b"\x01\x02\x03\x04\x05\x06\x07", "has 7 bytes; a safetensors file has at least 8"),
    "zeros": (bytes(1000), "is not a safetensors file: its header is no JSON"),
    "random": (np.random.default_rng(0).bytes(1000), "its header would have .* damaged or cut off"),
    "text": (b"Once upon a time. " * 50, "is a text file that begins with 'Once upon"),
    "text in Chinese": ("从前有一个国王。".encode() * 50, "is a text file"),
    "JSON": (b'{"metadata": {}, "weight_map": {}}', "is a text file that begins with '{"),
    "web page": (b"<!DOCTYPE html><html>404</html>", "is a web page, not the model"),
    "GGUF": (b"GGUF\x03\0\0\0" + bytes(100), "is a GGUF file, for llama.cpp; models are .st"),
    "ggml": (b"fmgg" + bytes(100), "is a ggml file, for rwkv.cpp"),
    "ONNX": (b"\x08\x08\x12\x07pytorch\x1a\x051.9.0" + bytes(100), "is an ONNX file"),
    "gzip": (b"\x1f\x8b\x08" + bytes(100), "is packed with gzip; unpack it first"),
    "tar": (tarred(), "is a tar archive; unpack it first"),
    "numpy": (b"\x93NUMPY\x01\x00" + bytes(100), "is a numpy array"),
    "other pickle": (b"\x80\x04\x95\x05\0\0\0\0\0\0\0]\x94K\x01a.", "is a pickle, but none that torch.save"),
    "zip cut off": (VIEWS[: len(VIEWS) // 2], "without the directory at its end: it was cut off at"),
    "zip cut off at its start": (VIEWS[:4], "without the directory at its end"),
    "zip without its start": (VIEWS[100:], "header would have|no JSON"),
    "zip of nothing": (zipped(), "zip file without data.pkl"),
    "zip of arrays": (zipped("arr_0.npy"), "zip file without data.pkl, as files by torch.save have"),
    "zip of a model": (zipped("readme", "RWKV.pth"), "without data.pkl; unpack 'RWKV.pth' from it"),
    "TorchScript": (zipped("m/data.pkl", "m/constants.pkl", "m/code/x.py"), "is a TorchScript program"),
    "packed zip": (torch_zip(ONE, {"0": bytes(99)}, zipfile.ZIP_DEFLATED), "is compressed, and torch"),
    "zip bomb": (zipped("m/data.pkl", data=bytes(50 << 20), method=zipfile.ZIP_DEFLATED), "is compressed"),
    "large pickle": (zipped("m/data.pkl", data=bytes(9 << 20)), "its pickle has 9437184 bytes"),
    "big-endian": (torch_zip(ONE, {"0": bytes(48)}, byteorder=b"big"), "big-endian machine"),
    "damaged directory": (VIEWS.replace(b"PK\x01\x02", b"PK\x01\x03"), "directory of this zip file is"),
    "damaged member": (VIEWS[:4] + VIEWS[4:].replace(b"PK\x03\x04", b"PK\x03\x03"), "is not where the zip"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "message"), FOREIGN.values(), ids=FOREIGN.keys())
def test_a_file_of_another_kind_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    assert re.search(message, refuse(tmp_path / "bad.st", data))


def framed(header: object, data: bytes = b"") -> bytes:
    """A safetensors file with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: Any = (4,), offsets: Any = (0, 8), dtype: Any = "F16") -> dict[str, Any]:
    """A tensor of a header; by default one that is right."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


GOOD = save({"x": HALVES, "y": HALVES.astype(np.float32)})
BAD_HEADERS = {
    "header beyond the file": (struct.pack("<Q", 1 << 62) + b"{}" + bytes(99), "header would have 46116"),
    "large header": (framed(b"{" + b" " * (2 << 20) + b"}"), "header would have 2097154 bytes; a"),
    "no JSON": (framed(b"x" * 100), "is not a safetensors file: its header is no JSON"),
    "no UTF-8": (framed(b'{"\xff": 1}'), "its header is no JSON"),
    "a list": (framed([]), "its header is a list, not an object"),
    "deep": (framed(b'{"x":' + b"[" * 500_000), "nested too deeply"),
    "many digits": (framed(b'{"x":' + b"9" * 500_000 + b"}"), "its header is no JSON"),
    "twice": (framed(b'{"x":1,"x":2}'), "'x' stands there twice"),
    "no entry": (framed({"x": 1}), "tensor x lacks its dtype, shape or data_offsets"),
    "no shape": (framed({"x": {"dtype": "F16", "data_offsets": [0, 8]}}), "tensor x lacks its"),
    "integers": (framed({"x": entry(dtype="I64", offsets=(0, 32))}, bytes(32)), "x is I64; .* F16, BF16"),
    "no type": (framed({"x": entry(dtype=7)}, bytes(8)), "tensor x is of no type"),
    "shape of text": (framed({"x": entry("4")}, bytes(8)), "tensor x has no shape"),
    "size of text": (framed({"x": entry(["4"])}, bytes(8)), "not all integers"),
    "size of truth": (framed({"x": entry([True, 4])}, bytes(8)), "not all integers"),
    "negative size": (framed({"x": entry((-2, -2))}, bytes(8)), "integers from 0 up"),
    "huge size": (framed({"x": entry((1 << 60, 1 << 60))}, bytes(8)), "more elements than any file"),
    "nine axes": (framed({"x": entry((4,) + (1,) * 8)}, bytes(8)), "at most 8 axes"),
    "one offset": (framed({"x": entry(offsets=[8])}, bytes(8)), "data_offsets of tensor x are not two"),
    "no offsets": (framed({"x": entry(offsets="08")}, bytes(8)), "are not two integers"),
    "fractions": (framed({"x": entry(offsets=[0, 8.0])}, bytes(8)), "are not two integers"),
    "backwards": (framed({"x": entry(offsets=(8, 0))}, bytes(8)), "tensor x lies in bytes 8 to 0 of 8"),
    "negative": (framed({"x": entry(offsets=(-8, 0))}, bytes(8)), "tensor x lies in bytes -8 to 0"),
    "beyond the end": (framed({"x": entry(offsets=(8, 16))}, bytes(8)), "bytes 8 to 16 of 8; damaged"),
    "far beyond": (framed({"x": entry(offsets=(0, 1 << 90))}, bytes(8)), "tensor x lies in bytes"),
    "other size": (framed({"x": entry((3,))}, bytes(8)), r"tensor x has 8 bytes; F16 \(3,\) takes 6"),
    "overlap": (framed({"x": entry(), "y": entry(offsets=(4, 12))}, bytes(12)), "tensor y overlaps x"),
    "gap": (framed({"x": entry(), "y": entry(offsets=(9, 17))}, bytes(17)), "tensor y leaves a gap after x"),
    "gap at the start": (framed({"x": entry(offsets=(2, 10))}, bytes(10)), "leaves a gap after the header"),
    "more behind": (framed({"x": entry()}, bytes(9)), "1 bytes follow the last tensor"),
    "cut off": (GOOD[:-1], "tensor . lies in bytes .* damaged or cut off"),
    "cut off in the header": (GOOD[:30], "its header would have"),
    "no name": (framed({"": entry()}, bytes(8)), "'' is no tensor's name"),
    "odd name": (framed({"a\nb": entry()}, bytes(8)), r"'a\\nb' is no tensor's name"),
    "long name": (framed({"a" * 9999: entry()}, bytes(8)), "is no tensor's name"),
    "half a letter": (framed(b'{"\\ud800": {}}'), r"'\\ud800' is no tensor's name"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "message"), BAD_HEADERS.values(), ids=BAD_HEADERS.keys())
def test_a_header_that_is_wrong_says_where(tmp_path: Path, data: bytes, message: str) -> None:
    assert re.search(message, refuse(tmp_path / "bad.st", data))


MANY = dict.fromkeys(map(str, range(MOST_TENSORS)), entry((0,), (0, 0)))
ENTRY = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", *[0] * 9, 6, *[0] * 6)
MEMBERS = b"".join(ENTRY + b"%06d" % index for index in range(320_000))
X = tensor(storage("HalfStorage", "0", 24), 0, (24,), (1,))
AGAIN = pickled({"0": X + b"q\x00"} | {str(index): b"h\x00" for index in range(1, MOST_TENSORS + 1)})
TOO_LARGE = {
    "many tensors": (
        framed(MANY | {"x": entry((0,), (0, 0))}),
        "has 10001 tensors; a model has at most 10000",
    ),
    "many tensors by torch": (torch_zip(AGAIN, {"0": bytes(48)}), "has 10001 tensors; a model has at most"),
    "many members": (
        b"PK\x03\x04" + MEMBERS + struct.pack("<4s4H2LH", b"PK\x05\x06", *[0] * 4, len(MEMBERS), 4, 0),
        "the directory of this zip file has 16640000 bytes; a model's has at most 1048576",
    ),
}


@pytest.mark.parametrize(("data", "message"), TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_a_file_of_too_much_is_refused_at_once(tmp_path: Path, data: bytes, message: str) -> None:
    assert re.search(message, refuse(tmp_path / "bad.st", data))


def test_as_many_tensors_as_may_be_are_opened_at_once(tmp_path: Path) -> None:
    (tmp_path / "m.st").write_bytes(framed(MANY))
    started = time.process_time()
    assert len(open_model(tmp_path / "m.st").names()) == MOST_TENSORS
    assert time.process_time() - started < MOST_SECONDS


def test_a_folder_a_pipe_and_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"is a folder; give the model file in it"):
        open_model(tmp_path)
    with pytest.raises(LoadError, match=r"cannot read .*none.st: No such file"):
        open_model(tmp_path / "none.st")
    with pytest.raises(LoadError, match=r"cannot read .*null"):
        open_model(f"{tmp_path}/\0")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name are POSIX")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LoadError, match="is no regular file"):
        open_model(tmp_path / "pipe")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "m.st").write_bytes(GOOD)
    (tmp_path / "m.st").chmod(0)
    with pytest.raises(LoadError, match=r"cannot read .*: Permission denied"):
        open_model(tmp_path / "m.st")


FUZZED = {
    "safetensors": GOOD,
    "zip": saved({"x": HALVES, "y": HALVES.astype(np.float32).reshape(4, 6)}),
    "torch zip": VIEWS,
    "torch legacy": (DATA / "views_legacy.pth").read_bytes(),
    "protocol 4": (DATA / "views_protocol4.pth").read_bytes(),
}
quickly = settings(
    max_examples=60,
    deadline=2000,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


def check_line(error: LoadError) -> None:
    """Fail unless it is one line."""
    assert str(error).isprintable()


def read_all(path: Path, data: bytes) -> None:
    """Read every tensor, or be told by a LoadError of one line why not."""
    path.write_bytes(data)
    try:
        reader = open_tensors(path)
        for name in reader.names():
            shape = reader.shape(name) or (1,)
            assert reader.rows(name, 0, shape[0]).shape == shape
    except LoadError as error:
        check_line(error)


edits = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=8)


@pytest.mark.parametrize("good", FUZZED.values(), ids=FUZZED.keys())
def test_files_with_other_bytes_here_and_there_read_or_are_refused(tmp_path: Path, good: bytes) -> None:
    @quickly
    @given(edits, st.integers(0, len(good)), st.binary(max_size=20), st.integers(0, 40))
    def change(changed: list[tuple[int, int]], at: int, inserted: bytes, left_out: int) -> None:
        data = bytearray(good)
        for place, value in changed:
            data[place % len(data)] = value
        read_all(tmp_path / "a", bytes(data))
        read_all(tmp_path / "b", good[:at] + inserted + good[at + left_out :])
        read_all(tmp_path / "c", good[:at])

    change()


@pytest.mark.parametrize("start", [b"", b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."])
def test_random_bytes_are_refused(tmp_path: Path, start: bytes) -> None:
    @quickly
    @given(st.binary(max_size=300))
    def refuse_all(data: bytes) -> None:
        read_all(tmp_path / "a", start + data)
        read_all(tmp_path / "b", framed(data))

    refuse_all()


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["F16", "F32"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


def test_headers_of_anything_are_refused(tmp_path: Path) -> None:
    @quickly
    @given(st.dictionaries(st.text(max_size=5), json_values, max_size=3))
    def refuse_all(header: dict[str, Any]) -> None:
        read_all(tmp_path / "a", framed(header, bytes(16)))

    refuse_all()
