"""Files as `torch.save` writes them, put together by hand: to say in them what torch never would."""

import io
import math
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from rwkvgraph.load import open_tensors
from rwkvgraph.load.mapped import contiguous
from rwkvgraph.op import Array

LEGACY_HEAD = (
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}(X\r\x00\x00\x00little_endian"
)
STORAGES = {np.dtype(np.float16): "HalfStorage", np.dtype(np.float32): "FloatStorage"}
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def text(value: str) -> bytes:
    """A text, pickled."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    """An integer, pickled."""
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def numbers(values: Iterable[int]) -> bytes:
    """A tuple of integers, pickled."""
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(kind: str, key: str, count: int, module: str = "torch", view: bytes | None = None) -> bytes:
    """A storage, pickled; with a view, which may be None, as legacy files have it."""
    parts = text("storage") + f"c{module}\n{kind}\n".encode() + text(key) + text("cuda:0") + number(count)
    return b"(" + parts + (view or b"") + b"tQ"


def tensor(of: bytes, offset: int, shape: Iterable[int], strides: Iterable[int]) -> bytes:
    """A tensor, pickled."""
    return (
        REBUILD
        + b"("
        + of
        + number(offset)
        + numbers(shape)
        + numbers(strides)
        + b"\x89"
        + ORDERED_DICT
        + b"tR"
    )


def pickled(items: Mapping[str, bytes]) -> bytes:
    """A dict of values that are already pickled."""
    return b"\x80\x02}(" + b"".join(text(name) + value for name, value in items.items()) + b"u."


def torch_zip(
    pickle: bytes, storages: Mapping[str, bytes], method: int = zipfile.ZIP_STORED, **more: bytes
) -> bytes:
    """A zip file by torch.save. more: further members, by name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr("archive/data.pkl", pickle)
        for name, data in more.items():
            file.writestr(f"archive/{name}", data)
        for key, data in storages.items():
            file.writestr(f"archive/data/{key}", data)
    return buffer.getvalue()


def torch_legacy(pickle: bytes, storages: Mapping[str, tuple[int, bytes]], is_little: bool = True) -> bytes:
    """A file by torch.save before 1.6: storages are pairs of a number of elements and bytes."""
    keys = b"\x80\x02](" + b"".join(map(text, storages)) + b"e."
    data = b"".join(struct.pack("<q", count) + values for count, values in storages.values())
    return LEGACY_HEAD + (b"\x88" if is_little else b"\x89") + b"u." + pickle + keys + data


def save_as_torch(source: Path, target: Path) -> None:
    """Write a large model anew as a zip file by torch.save, a few rows at a time."""
    reader = open_tensors(source)
    names = reader.names()
    items = {}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as file:
        for key, name in enumerate(names):
            shape = reader.shape(name)
            of = storage("HalfStorage", str(key), math.prod(shape))
            items[name] = tensor(of, 0, shape, contiguous(shape))
            step = max(1, (1 << 22) // math.prod(shape[1:]))
            with file.open(f"archive/data/{key}", "w", force_zip64=True) as member:
                for start in range(0, shape[0], step):
                    member.write(reader.rows(name, start, start + step).data)
        file.writestr("archive/data.pkl", pickled(items))


def saved(tensors: Mapping[str, Array]) -> bytes:
    """Arrays as a zip file by torch.save."""
    items, storages = {}, {}
    for index, (name, array) in enumerate(tensors.items()):
        strides = [stride // array.itemsize for stride in np.ascontiguousarray(array).strides[: array.ndim]]
        of = storage(STORAGES[array.dtype], str(index), array.size)
        items[name] = tensor(of, 0, array.shape, strides)
        storages[str(index)] = array.tobytes()
    return torch_zip(pickled(items), storages)
