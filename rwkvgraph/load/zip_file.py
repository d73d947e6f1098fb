"""The members of a zip file that was written to be mapped: stored, not compressed.

Only the directory at the file's end is read. Python's zipfile is not used: it inflates what it is asked for,
and does not say where in the file a member's bytes are. Format: PKWARE's APPNOTE.TXT, 4.3.7 to 4.3.16.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass

from rwkvgraph.errors import LoadError
from rwkvgraph.load.mapped import shown

MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
"""How a zip file begins; the second one is empty."""

MOST_DIRECTORY = 1 << 20
"""Bytes. A member takes about 100, a model has some 2,000 members; of the smallest, this has 20,000."""

END = struct.Struct("<4s4H2LH")
END64_PLACE = struct.Struct("<4sLQL")
END64 = struct.Struct("<4sQ2H2L4Q")
ENTRY = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")

ELSEWHERE = 0xFFFFFFFF
"""A size or place of 32 bits that stands, with 64, in the extra field of this number:"""
EXTRA64 = 1


@dataclass(frozen=True)
class Member:
    """A file in a zip file: how it is packed, its bytes before and after, and where its own header begins."""

    name: str
    flags: int
    method: int
    packed: int
    size: int
    header: int


def read_members(path: str, data: mmap.mmap) -> dict[str, Member]:
    """The members by name. Raises LoadError for a directory that is missing or damaged."""
    try:
        size, start = _directory(path, data)
        return _entries(path, data[start : start + size])
    except (struct.error, UnicodeDecodeError) as error:
        raise LoadError(f"{path}: the directory of this zip file is damaged") from error


def place(path: str, data: mmap.mmap, member: Member) -> tuple[int, int]:
    """The first byte of a member's content, and the byte after it. Raises LoadError if it is packed."""
    if member.flags & 1:
        raise LoadError(f"{path}: {shown(member.name)} in this zip file is encrypted")
    if member.method or member.packed != member.size:
        raise LoadError(
            f"{path}: {shown(member.name)} in this zip file is compressed, and torch.save never does that; "
            "packed anew? Unpack it and zip it without compression (zip -0)"
        )
    head = data[member.header : member.header + LOCAL.size]
    if len(head) < LOCAL.size or not head.startswith(MAGICS[0]):
        raise LoadError(
            f"{path}: {shown(member.name)} is not where the zip file's directory has it; damaged?"
        )
    name_bytes, extra_bytes = LOCAL.unpack(head)[-2:]
    start = member.header + LOCAL.size + name_bytes + extra_bytes
    if start + member.size > len(data):
        raise LoadError(
            f"{path}: {shown(member.name)} would end at byte {start + member.size} of {len(data)}; damaged?"
        )
    return start, start + member.size


def _directory(path: str, data: mmap.mmap) -> tuple[int, int]:
    """Bytes and first byte of the central directory."""
    at = data.rfind(b"PK\x05\x06", max(0, len(data) - END.size - 0xFFFF))
    if at < 0:
        raise LoadError(
            f"{path} is a zip file, as .pth files are, without the directory at its end: it was cut off at "
            f"{len(data)} bytes; fetch it again"
        )
    *_, size, start, _ = END.unpack(data[at : at + END.size])
    if ELSEWHERE in (size, start) or data[max(0, at - END64_PLACE.size) :][:4] == b"PK\x06\x07":
        _, _, at64, _ = END64_PLACE.unpack(data[at - END64_PLACE.size : at])
        *_, size, start = END64.unpack(data[at64 : at64 + END64.size])
    if size > MOST_DIRECTORY:
        raise LoadError(
            f"{path}: the directory of this zip file has {size} bytes; a model's has at most {MOST_DIRECTORY}"
        )
    if start + size > len(data):
        raise LoadError(f"{path}: the directory of this zip file has {size} bytes at {start}; damaged?")
    return size, start


def _entries(path: str, directory: bytes) -> dict[str, Member]:
    members: dict[str, Member] = {}
    at = 0
    while at < len(directory):
        entry = ENTRY.unpack_from(directory, at)
        if entry[0] != b"PK\x01\x02":
            raise LoadError(f"{path}: the directory of this zip file is damaged")
        flags, method, packed, size = entry[3], entry[4], entry[8], entry[9]
        name_bytes, extra_bytes, comment_bytes = entry[10:13]
        at += ENTRY.size
        name = directory[at : at + name_bytes].decode()
        extra = directory[at + name_bytes : at + name_bytes + extra_bytes]
        size, packed, header = _wide([size, packed, entry[16]], extra)
        if name in members:
            raise LoadError(f"{path}: {shown(name)} stands twice in this zip file; damaged?")
        members[name] = Member(name, flags, method, packed, size, header)
        at += name_bytes + extra_bytes + comment_bytes
    return members


def _wide(values: list[int], extra: bytes) -> list[int]:
    """The values, and where they stand elsewhere those of 64 bits, in the format's order."""
    at = 0
    while at + 4 <= len(extra):
        number, count = struct.unpack_from("<2H", extra, at)
        at += 4
        if number == EXTRA64:
            wide = iter(struct.unpack_from(f"<{count // 8}Q", extra, at))
            return [next(wide, value) if value == ELSEWHERE else value for value in values]
        at += count
    return values
