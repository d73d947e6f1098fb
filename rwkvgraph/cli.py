"""The command `rwkvgraph`: what a command was asked for goes to stdout, all the rest to stderr.

Exit codes: 0, 1 for errors of files, devices and texts, 2 for wrong arguments, 130 after Ctrl-C, 141 where
the reader of stdout went away. An error is one line; `python -X dev -m rwkvgraph` shows where it came from.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import rwkvgraph
from rwkvgraph.commands.bench import BENCH
from rwkvgraph.commands.command import BROKEN_PIPE, FAILED, INTERRUPTED, WRONG_USE, Command
from rwkvgraph.commands.convert import CONVERT
from rwkvgraph.commands.devices import DEVICES
from rwkvgraph.commands.generate import GENERATE
from rwkvgraph.commands.graph import GRAPH
from rwkvgraph.commands.inspect import INSPECT
from rwkvgraph.commands.tune import TUNE
from rwkvgraph.errors import RwkvGraphError
from rwkvgraph.terminal import show_error, use_utf8

COMMANDS = (GENERATE, INSPECT, GRAPH, BENCH, TUNE, CONVERT, DEVICES)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default the process's own. Gives the exit code.

    Raises SystemExit after --help, --version and for a command line that cannot be parsed.
    """
    use_utf8()
    options = build_parser().parse_args(arguments)
    command: Command = options.command
    try:
        code = command.run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return leave_pipe()
    except (RwkvGraphError, OSError, ValueError) as error:
        if sys.flags.dev_mode:
            raise
        show_error(error)
        return FAILED if isinstance(error, (RwkvGraphError, OSError)) else WRONG_USE


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(prog="rwkvgraph", description=rwkvgraph.__doc__)
    parser.add_argument("--version", action="version", version=f"rwkvgraph {rwkvgraph.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        added = commands.add_parser(command.name, help=command.help, description=command.help)
        command.add(added)
        added.set_defaults(command=command)
    return parser


def leave_pipe() -> int:
    """The exit code when nobody reads stdout any more. What is still buffered then goes nowhere, quietly."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE
