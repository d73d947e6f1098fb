"""What a command says beside its results: all of it on stderr, with `rich` where that is a terminal.

Without rich, or into a file or a pipe, plain lines and nothing that moves.
"""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

LABEL_WIDTH = 12


def is_rich() -> bool:
    """Whether stderr is a terminal and rich is there to write on it."""
    return sys.stderr.isatty() and importlib.util.find_spec("rich") is not None


@contextmanager
def waiting(what: str, is_quiet: bool) -> Iterator[None]:
    """Show on a terminal that something goes on which takes a while."""
    if is_quiet or not is_rich():
        yield
        return
    from rich.console import Console  # rich is an extra, and slow to import: only for terminals

    with Console(stderr=True).status(what):
        yield


@contextmanager
def progress(what: str, total: int, is_quiet: bool) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how far something of `total` bytes is; gives what is to be told of more bytes."""
    if is_quiet or not is_rich():
        yield lambda count: None
        return
    from rich.console import Console  # rich is an extra, and slow to import: only for terminals
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn  # likewise

    columns = TextColumn(what), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def show_table(rows: Mapping[str, str]) -> None:
    """Write labelled lines."""
    if not is_rich():
        for label, text in rows.items():
            print(f"{label:<{LABEL_WIDTH}}{text}", file=sys.stderr)
        return
    from rich.console import Console  # rich is an extra, and slow to import: only for terminals
    from rich.table import Table  # likewise
    from rich.text import Text  # likewise

    table = Table.grid(padding=(0, 2))
    for label, text in rows.items():
        table.add_row(Text(label, "bold cyan"), Text(text))
    Console(stderr=True).print("", table, sep="\n")


def show_error(error: BaseException | str) -> None:
    """Write an error on one line."""
    print("rwkvgraph: error:", " ".join(str(error).split()), file=sys.stderr)


def use_utf8() -> None:
    """Make the standard streams UTF-8, which a locale may not be; what stdin holds besides stays visible."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                encoding="utf-8", errors="surrogateescape" if stream is sys.stdin else "replace"
            )
