"""Which format a file has, told by its first bytes, and what to say of those that are not read."""

from __future__ import annotations

import mmap
from pathlib import Path

from rwkvgraph.errors import LoadError
from rwkvgraph.load.mapped import MappedFile, MappedReader, shown
from rwkvgraph.load.pickles import OLD_PROTOCOL
from rwkvgraph.load.safetensors_file import read_safetensors
from rwkvgraph.load.torch_file import LEGACY_BEGINNING, LEGACY_MAGIC, read_torch_legacy, read_torch_zip
from rwkvgraph.load.zip_file import MAGICS

READ = "models are .st (safetensors) or .pth files"

OLD_PICKLE = b"L%dL\n" % LEGACY_MAGIC
"""How a legacy file begins whose pickles are texts."""

FOREIGN: dict[bytes, str] = {
    OLD_PICKLE: f"was {OLD_PROTOCOL}",
    b"version https://git-lfs": "is a git-lfs pointer, not the model; run `git lfs pull` where it came from",
    b"GGUF": f"is a GGUF file, for llama.cpp; {READ}: get the one it was made from",
    b"lmgg": f"is a ggml file, for rwkv.cpp; {READ}: get the one it was made from",
    b"fmgg": f"is a ggml file, for rwkv.cpp; {READ}: get the one it was made from",
    b"tjgg": f"is a ggml file; {READ}: get the one it was made from",
    b"\x1f\x8b": "is packed with gzip; unpack it first",
    b"\x28\xb5\x2f\xfd": "is packed with zstd; unpack it first",
    b"\xfd7zXZ\x00": "is packed with xz; unpack it first",
    b"BZh": "is packed with bzip2; unpack it first",
    b"7z\xbc\xaf\x27\x1c": "is a 7z archive; unpack it first",
    b"Rar!": "is a rar archive; unpack it first",
    b"\x89HDF": f"is an HDF5 file; {READ}",
    b"\x93NUMPY": f"is a numpy array; {READ}",
    b"<!DOCTYPE": "is a web page, not the model; fetch the file itself",
    b"<!doctype": "is a web page, not the model; fetch the file itself",
    b"<html": "is a web page, not the model; fetch the file itself",
    b"\x7fELF": f"is a program; {READ}",
    b"MZ\x90": f"is a program; {READ}",
}
"""What a file that begins so is."""

HEAD = 512
TAR_AT = 257
"""Where a tar file says that it is one."""


def open_file(path: Path) -> MappedReader:
    """The tensors of a model file, under the names that it has. Raises LoadError for what cannot be read."""
    file = MappedFile(path)
    head = file.data[:HEAD]
    if head.startswith(MAGICS):
        return MappedReader(file, read_torch_zip(file.path, file.data), is_torch=True)
    if LEGACY_BEGINNING in head[:32]:
        return MappedReader(file, read_torch_legacy(file.path, file.data), is_torch=True)
    _check_foreign(file.path, head, file.data)
    return MappedReader(file, read_safetensors(file.path, file.data), is_torch=False)


def _check_foreign(path: str, head: bytes, data: mmap.mmap) -> None:
    """Raise LoadError for a file that is known to be of another format."""
    for beginning, what in FOREIGN.items():
        if head.startswith(beginning):
            raise LoadError(f"{path} {what}")
    if head[TAR_AT:].startswith(b"ustar"):
        raise LoadError(f"{path} is a tar archive; unpack it first, and give the model file in it")
    if head[8:9] == b"{":
        return
    if head[0] == 8 and (b"pytorch" in head[:64] or b"onnx" in head[:64] or head[2:3] == b"\x12"):
        raise LoadError(f"{path} is an ONNX file; {READ}: get the one it was made from")
    if head[0] == 0x80 and 2 <= head[1] <= 5 and data[-1:] == b".":
        raise LoadError(f"{path} is a pickle, but none that torch.save wrote; {READ}")
    if len(head) > 8 and _is_text(head):
        raise LoadError(f"{path} is a text file that begins with {shown(head[:24].decode())}; {READ}")


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        text = head[: error.start].decode() if error.start > len(head) - 4 else ""
    return bool(text) and all(letter.isprintable() or letter in "\r\n\t" for letter in text)
