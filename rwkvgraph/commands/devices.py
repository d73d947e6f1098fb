"""`rwkvgraph devices`: what --adapter takes."""

from __future__ import annotations

import argparse

from rwkvgraph.commands.command import DONE, Command
from rwkvgraph.gpu import list_adapters

CPU = "cpu: numpy, needs no driver, slow"


def add(parser: argparse.ArgumentParser) -> None:
    """Add nothing: `devices` has no options."""


def run(options: argparse.Namespace) -> int:
    """List the adapters, the best first, and cpu; a star marks the one that is taken by default."""
    lines = [str(info) for info in list_adapters()] + [CPU]
    for index, line in enumerate(lines):
        print("*" if index == 0 else " ", line)
    return DONE


DEVICES = Command("devices", "List the adapters, the best first; * is taken by default.", add, run)
