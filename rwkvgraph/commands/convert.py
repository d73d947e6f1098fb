"""`rwkvgraph convert`: a model of any file that is read, as a .st file in web-rwkv's names and shapes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter

from rwkvgraph.commands.command import DONE, Command
from rwkvgraph.commands.options import add_names
from rwkvgraph.load.conversion import convert, converted_bytes
from rwkvgraph.load.mapped import ELEMENTS
from rwkvgraph.load.reader import Reader, open_model
from rwkvgraph.models import detect
from rwkvgraph.models.arena import Arena
from rwkvgraph.terminal import progress, show_table


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of `convert`."""
    parser.add_argument("source", type=Path, metavar="IN", help="a model, .pth or .st")
    parser.add_argument("target", type=Path, metavar="OUT", help="the .st file to write")
    parser.add_argument(
        "--dtype",
        choices=[dtype.lower() for dtype in ELEMENTS],
        default="f16",
        help="element type of all tensors; default: %(default)s, which web-rwkv needs",
    )
    add_names(parser, "IN")
    parser.add_argument("--force", action="store_true", help="overwrite OUT")
    parser.add_argument("-q", "--quiet", action="store_true", help="nothing on stderr but errors")


def run(options: argparse.Namespace) -> int:
    """Write the file, and on stderr what was written."""
    started = perf_counter()
    dtype = options.dtype.upper()
    reader = open_model(options.source, options.names, with_states=True)
    _check(reader, options.quiet)
    size = converted_bytes(reader, dtype)
    with progress("converting", size, options.quiet) as advance:
        convert(reader, options.target, dtype, force=options.force, advance=advance)
    if not options.quiet:
        count, seconds = len(reader.names()), perf_counter() - started
        text = (
            f"{options.target}, {count} tensors of {dtype}, {size / 1e6:,.1f} MB; written in {seconds:.2f} s"
        )
        show_table({"model": text})
    return DONE


def _check(reader: Reader, quiet: bool) -> None:
    """Raise LoadError for a model that could not be run, by its names and shapes: what is written is to be.

    Files of LoRA, states and the like are no models; of those it is said that they are not checked.
    """
    if "emb.weight" in reader.names():
        version = detect(reader)
        version.place_weights(version.read_info(reader), Arena(reader, sys.maxsize))
    elif not quiet:
        print(
            f"rwkvgraph: {reader.path} has no emb.weight, so it is no whole model: neither its names nor its "
            "shapes are checked",
            file=sys.stderr,
        )


CONVERT = Command("convert", "Write a model as .st, in web-rwkv's names and layout.", add, run)
