"""Files by `torch.save` are read without torch: as torch of several ages wrote them, beside here in data/."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest

from rwkvgraph.errors import LoadError
from rwkvgraph.load import open_tensors
from rwkvgraph.op import Array
from tests.rwkvgraph.load.torch_files import (
    number,
    pickled,
    saved,
    storage,
    tensor,
    text,
    torch_legacy,
    torch_zip,
)

DATA = Path(__file__).parent / "data"
HALVES = np.arange(24, dtype=np.float16)


def expected_views() -> dict[str, Array]:
    """What data/make.py saved in views*.pth."""
    values = np.arange(24, dtype=np.float32)
    whole = values.reshape(4, 6)
    thirds = (values / 3).view(np.uint32)
    return {
        "whole": whole,
        "part": values[5:11],
        "columns": whole[:, 2:4],
        "transposed": whole.T,
        "every_second": values[1::2],
        "repeated": np.full((2, 3), 3, np.float32),
        "scalar": np.array([7], np.float32),
        "empty": np.empty((0, 4), np.float32),
        "parameter": values[:4],
        "half": HALVES.reshape(2, 3, 4),
        # Rounded to bfloat16: to nearest, ties to even.
        "brain": ((thirds + 0x7FFF + ((thirds >> 16) & 1)) >> 16 << 16).view(np.float32).reshape(3, 8),
    }


@pytest.mark.parametrize("name", ["views", "views_protocol4", "views_gpu", "views_legacy"])
def test_views_parameters_and_storages_that_are_shared_are_read(name: str) -> None:
    reader = open_tensors(DATA / f"{name}.pth")
    expected = expected_views()
    assert reader.names() == list(expected)
    for key, array in expected.items():
        found = reader.rows(key, 0, 100)
        assert reader.shape(key) == (() if key == "scalar" else array.shape)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("name", ["views", "views_legacy"])
def test_rows_are_those_of_the_first_axis(name: str) -> None:
    reader = open_tensors(DATA / f"{name}.pth")
    for key, array in expected_views().items():
        for start in range(len(array)):
            np.testing.assert_array_equal(reader.rows(key, start, start + 2), array[start : start + 2])


def test_the_tensors_of_a_checkpoint_are_found_in_it() -> None:
    assert open_tensors(DATA / "checkpoint.pth").names() == ["weight", "bias"]


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "module"])
def test_the_dict_around_the_tensors_is_taken_off(tmp_path: Path, wrapper: str) -> None:
    inner = pickled({"x": tensor(storage("HalfStorage", "0", 24), 0, (24,), (1,))})[2:-1]
    pickle = pickled({"epoch": number(3), wrapper: inner})
    (tmp_path / "m.pth").write_bytes(torch_zip(pickle, {"0": HALVES.tobytes()}))
    np.testing.assert_array_equal(open_tensors(tmp_path / "m.pth").rows("x", 0, 24), HALVES)


def test_a_name_that_is_no_file_type_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(saved({"x": HALVES}))
    np.testing.assert_array_equal(open_tensors(str(tmp_path / "model.bin")).rows("x", 3, 9), HALVES[3:9])


def test_legacy_files_have_views_of_storages_and_types_of_a_gpu(tmp_path: Path) -> None:
    view = b"(" + text("1") + number(4) + number(12) + b"t"
    whole = storage("HalfStorage", "0", 24, "torch.cuda", b"N")
    part = storage("HalfStorage", "0", 24, "torch.cuda", view)
    items = {"x": tensor(whole, 0, (24,), (1,)), "y": tensor(part, 2, (5, 2), (2, 1))}
    (tmp_path / "m.pth").write_bytes(torch_legacy(pickled(items), {"0": (24, HALVES.tobytes())}))
    reader = open_tensors(tmp_path / "m.pth")
    np.testing.assert_array_equal(reader.rows("x", 0, 24), HALVES)
    np.testing.assert_array_equal(reader.rows("y", 0, 5), HALVES[6:16].reshape(5, 2))


def zip64(data: bytes) -> bytes:
    """A zip file's directory in the form that files of more than 4 GB have, where all sizes are elsewhere."""
    end = data.rindex(b"PK\x05\x06")
    count, size, start = struct.unpack_from("<HLL", data, end + 10)
    entries, at = b"", start
    while at < start + size:
        fields = list(struct.unpack_from("<4s6H3L5H2L", data, at))
        name = data[at + 46 : at + 46 + fields[10]]
        at += 46 + fields[10] + fields[11] + fields[12]
        extra = b"\x07\x00\x01\x00!" + struct.pack("<2H3Q", 1, 24, fields[9], fields[8], fields[16])
        fields[8], fields[9], fields[16], fields[11] = 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, len(extra)
        entries += struct.pack("<4s6H3L5H2L", *fields) + name + extra
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(entries), start)
    place = struct.pack("<4sLQL", b"PK\x06\x07", 0, start + len(entries), 1)
    last = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:start] + entries + end64 + place + last


def test_the_directory_of_a_very_large_zip_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.pth").write_bytes(zip64((DATA / "views.pth").read_bytes()))
    reader = open_tensors(tmp_path / "m.pth")
    for key, array in expected_views().items():
        np.testing.assert_array_equal(reader.rows(key, 0, 100), array)


def zipped(of: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    return torch_zip(pickled({"x": tensor(of, offset, shape, strides)}), {"0": HALVES.tobytes()})


GOOD = storage("HalfStorage", "0", 24)
VIEW = b"(" + text("1") + number(20) + number(12) + b"t"
NOT_IN_ITS_STORAGE = {
    "too many rows": (zipped(GOOD, 0, (25,), (1,)), "tensor x of shape .25,. ends 2 bytes after its storage"),
    "offset": (zipped(GOOD, 1, (24,), (1,)), "ends 2 bytes after its storage"),
    "huge offset": (zipped(GOOD, 1 << 70, (24,), (1,)), "after its storage"),
    "offset of nothing": (zipped(GOOD, 1 << 70, (0,), (1,)), "after its storage"),
    "stride": (zipped(GOOD, 0, (2, 12), (13, 1)), "ends 2 bytes after its storage"),
    "negative offset": (zipped(GOOD, -1, (2,), (1,)), "tensor x of shape .* has strides"),
    "negative stride": (zipped(GOOD, 5, (2,), (-1,)), "integers from 0 up"),
    "negative size": (zipped(GOOD, 5, (-2,), (1,)), "integers from 0 up"),
    "other axes": (zipped(GOOD, 0, (2, 3), (1,)), "has strides"),
    "too many axes": (zipped(GOOD, 0, (1,) * 9, (1,) * 9), "at most 8 axes"),
    "huge": (zipped(GOOD, 0, (1 << 62,), (1,)), "more elements than any file"),
    "huge and empty": (zipped(GOOD, 0, (1 << 62, 0), (1, 1)), "more elements than any file"),
    "repeated for ever": (zipped(GOOD, 0, (1 << 40,), (0,)), "larger than the whole file"),
    "other type": (zipped(storage("FloatStorage", "0", 24), 0, (24,), (1,)), "after its storage"),
    "no data": (zipped(storage("HalfStorage", "9", 24), 0, (24,), (1,)), "no data/9 .for tensor x"),
    "odd key": (zipped(storage("HalfStorage", "../0", 24), 0, (24,), (1,)), r"no data/\.\./0 .for tensor x"),
    "integers": (
        zipped(storage("LongStorage", "0", 6), 0, (6,), (1,)),
        "tensor x is I64; .* F16, BF16, F32",
    ),
    "doubles": (zipped(storage("DoubleStorage", "0", 6), 0, (6,), (1,)), "x is F64; .*cast it before it is"),
    "view of too much": (
        zipped(storage("HalfStorage", "0", 24, view=VIEW), 0, (2,), (1,)),
        "tensor x is a view that ends after its storage",
    ),
}


@pytest.mark.parametrize(("data", "message"), NOT_IN_ITS_STORAGE.values(), ids=NOT_IN_ITS_STORAGE.keys())
def test_a_tensor_that_is_not_within_its_storage_is_refused(
    tmp_path: Path, data: bytes, message: str
) -> None:
    (tmp_path / "m.pth").write_bytes(data)
    with pytest.raises(LoadError, match=f"m.pth.*{message}"):
        open_tensors(tmp_path / "m.pth")


X = tensor(GOOD, 0, (24,), (1,))
BAD_DICTS = {
    "a list": (b"\x80\x02].", "holds a list, not a dict of tensors"),
    "a tensor": (b"\x80\x02" + X + b".", "holds a tensor alone"),
    "no tensors": (pickled({"epoch": number(3)}), "a dict without tensors .'epoch'."),
    "a number among them": (pickled({"x": X, "y": number(3)}), "y is an int, not a tensor"),
    "a number as a name": (b"\x80\x02}(" + number(3) + X + b"u.", "a tensor has an int as its name"),
    "a line end in a name": (pickled({"a\nb": X}), r"'a\\nb' is no tensor's name"),
    "made for the rwkv package": (
        pickled({"x": X, "_strategy": text("cuda fp16")}),
        "rwkv package for its own",
    ),
}


@pytest.mark.parametrize(("pickle", "message"), BAD_DICTS.values(), ids=BAD_DICTS.keys())
def test_what_is_no_dict_of_tensors_is_said(tmp_path: Path, pickle: bytes, message: str) -> None:
    for data in (torch_zip(pickle, {"0": HALVES.tobytes()}), torch_legacy(pickle, {})):
        if b"storage" in pickle and data.startswith(b"\x80"):
            continue
        (tmp_path / "m.pth").write_bytes(data)
        with pytest.raises(LoadError, match=message):
            open_tensors(tmp_path / "m.pth")


ONE = pickled({"x": X})[2:-1]
NESTED = {
    "model": ({"model": pickled({"state_dict": ONE})[2:-1]}, r"['model']['state_dict']"),
    "ema": ({"ema": ONE, "epoch": number(3)}, r"['ema']"),
    "beside a tensor": ({"x": X, "ema": ONE}, r"['ema']"),
    "the larger one": ({"ema": ONE, "weights": pickled({"x": X, "y": X})[2:-1]}, r"['weights']"),
    "deep": ({"a": pickled({"b": pickled({"c": ONE})[2:-1]})[2:-1]}, r"['a']['b']['c']"),
}


@pytest.mark.parametrize(("items", "where"), NESTED.values(), ids=NESTED.keys())
def test_the_dict_to_save_alone_is_named(tmp_path: Path, items: dict[str, bytes], where: str) -> None:
    (tmp_path / "m.pth").write_bytes(torch_zip(pickled(items), {"0": HALVES.tobytes()}))
    message = f"save the dict of tensors in it alone: torch.save(checkpoint{where}, …)"
    with pytest.raises(LoadError, match=re.escape(message)):
        open_tensors(tmp_path / "m.pth")


LEGACY = pickled({"x": tensor(storage("HalfStorage", "0", 24, view=b"N"), 0, (24,), (1,))})
BAD_LEGACY = {
    "big-endian": (torch_legacy(LEGACY, {"0": (24, HALVES.tobytes())}, is_little=False), "big-endian"),
    "cut off": (
        torch_legacy(LEGACY, {"0": (24, HALVES.tobytes())})[:-1],
        "storage '0' would end .*; cut off",
    ),
    "cut off before the data": (
        torch_legacy(LEGACY, {"0": (24, b"")})[:-9],
        "pickle is damaged|would end|begins",
    ),
    "cut off in the pickle": (torch_legacy(LEGACY, {})[:200], "its pickle is damaged or cut off at byte"),
    "no such storage": (torch_legacy(LEGACY, {}), "no storage '0' .for tensor x"),
    "a stranger": (torch_legacy(LEGACY, {"1": (1, b"..")}), "'1' is no storage of this file"),
    "negative": (torch_legacy(LEGACY, {"0": (-24, HALVES.tobytes())}), "would end at byte"),
    "other version": (
        torch_legacy(LEGACY, {}).replace(b"M\xe9\x03", b"M\xe8\x03"),
        "none that torch.save wrote",
    ),
}


@pytest.mark.parametrize(("data", "message"), BAD_LEGACY.values(), ids=BAD_LEGACY.keys())
def test_legacy_files_that_are_damaged_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "m.pth").write_bytes(data)
    with pytest.raises(LoadError, match=message):
        open_tensors(tmp_path / "m.pth")
