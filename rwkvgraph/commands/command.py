"""What a subcommand is, and the exit codes that all of them use."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

DONE, FAILED, WRONG_USE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141
"""Exit codes; the last two are 128 + the signal, as shells report them."""


@dataclass(frozen=True)
class Command:
    """A subcommand: `add` gives a parser its options, `run` does it and gives the exit code."""

    name: str
    help: str
    add: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
