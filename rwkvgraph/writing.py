"""Files that appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rwkvgraph.errors import LoadError

NAME_KEPT = 32
"""Letters of the file's name in that of the part, which with all of them may be too long."""


@contextmanager
def appearing(path: str | Path, force: bool = True) -> Iterator[BinaryIO]:
    """A file beside `path` that takes its name, on the disk, when all is written; else it goes.

    A link is followed. force: overwrite a file that is there. Raises LoadError for what cannot be written;
    for folders, devices and pipes before anything is.
    """
    target = _target(path, force)
    part = target.with_name(f".{target.name[:NAME_KEPT]}.{secrets.token_hex(8)}.part")
    try:
        # Not by tempfile, whose files nobody else may read. "x" makes it or fails: what is unlinked is ours.
        with part.open("xb") as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                file.close()  # Windows moves no file that is open
                part.replace(target)
            except BaseException:
                file.close()
                part.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise _failure(path, error) from error


def _target(path: str | Path, force: bool) -> Path:
    """The file that is to be written, links followed. Raises LoadError where none can be."""
    try:
        target = Path(os.path.realpath(path))
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target
    except (OSError, ValueError) as error:
        raise _failure(path, error) from error
    if stat.S_ISDIR(mode):
        raise LoadError(f"cannot write {_shown(path)}: it is a folder; give a file in it")
    if not stat.S_ISREG(mode):
        raise LoadError(f"cannot write {_shown(path)}: it is no regular file, and stays as it is")
    if not force:
        raise LoadError(f"{_shown(path)} is there already; force=True (--force) overwrites it")
    return target


def _failure(path: str | Path, error: OSError | ValueError) -> LoadError:
    hint = "; give a file in a folder that is there" if isinstance(error, FileNotFoundError) else ""
    return LoadError(f"cannot write {_shown(path)}: {getattr(error, 'strerror', None) or error}{hint}")


def _shown(path: str | Path) -> str:
    text = str(path)
    return text if text.isprintable() and text else ascii(text)
