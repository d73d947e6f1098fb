"""Writing each stage's text to a folder: `RWKVGRAPH_DUMP=folder`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True)
class Dump:
    """Where stages are written. Calling it writes a value's text and gives the value back."""

    folder: Path | None

    def __call__(self, stage: str, value: Value) -> Value:
        """Write `str(value)` to `stage.txt` if there is a folder."""
        if self.folder is not None:
            write_text(self.folder / f"{stage}.txt", f"{value}\n")
        return value


_compiled = count(1)


def dump_from_environment() -> Dump:
    """Where a compilation's stages go: the folder `RWKVGRAPH_DUMP`; nowhere if it is unset or empty.

    The first program of a process is written into the folder itself, the next ones into `program-2` and so on
    in it: other hooks, the softmax. Folders are made if missing.
    """
    name = os.environ.get("RWKVGRAPH_DUMP", "")
    if not name:
        return Dump(None)
    number = next(_compiled)
    return Dump(Path(name) if number == 1 else Path(name) / f"program-{number}")


def write_text(path: Path, text: str) -> None:
    """Write a file whole: through a temporary name beside it, renamed when complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
