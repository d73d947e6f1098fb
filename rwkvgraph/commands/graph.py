"""`rwkvgraph graph`: what a model is compiled to, at any stage, as text, as a graph or as a page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rwkvgraph.commands.command import DONE, Command
from rwkvgraph.commands.options import add_names, device, model_path
from rwkvgraph.compiler import Target
from rwkvgraph.errors import DeviceError
from rwkvgraph.gpu import Context
from rwkvgraph.gpu.engine import GpuEngine
from rwkvgraph.hooks import Hooks
from rwkvgraph.load.reader import Reader, open_model
from rwkvgraph.model import TOKEN_CHUNK_SIZE, Model
from rwkvgraph.sight import formats
from rwkvgraph.sight.drawing import draw, fold
from rwkvgraph.sight.hooks_file import read_hooks, telling_where
from rwkvgraph.sight.page import page
from rwkvgraph.sight.shapes import HEAD_SIZE, VERSIONS, ShapeReader, shapes_of
from rwkvgraph.sight.stages import STAGES, Stages, look, subject_of
from rwkvgraph.sight.timing import Timing, time_passes
from rwkvgraph.terminal import show_table, waiting
from rwkvgraph.writing import appearing

ENDINGS = {
    ".html": "html",
    ".dot": "dot",
    ".gv": "dot",
    ".mmd": "mermaid",
    ".mermaid": "mermaid",
    ".graphml": "graphml",
    ".json": "json",
    ".txt": "text",
}
FORMATS = ("text", "dot", "mermaid", "graphml", "json", "html")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of `graph`."""
    parser.add_argument(
        "--stage", choices=STAGES, default="program", help="how far to compile; default: %(default)s"
    )
    parser.add_argument("--format", choices=FORMATS, help="default: what the ending of -o says, else text")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: stdout; html needs a file"
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="text, dot and mermaid: every layer, also those that equal another",
    )
    parser.add_argument(
        "--hooks",
        type=Path,
        metavar="FILE.py",
        help="splice in what this file defines as `hooks`, an rg.Hooks",
    )
    parser.add_argument(
        "--time", action="store_true", help="time each pass on the device, which needs the weights there"
    )
    parser.add_argument(
        "-T",
        "--tokens",
        type=int,
        default=1,
        metavar="N",
        help="tokens of the run that is measured; default: 1",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="nothing on stderr but errors")
    add_subject(parser)
    add_target(parser)


def add_subject(parser: argparse.ArgumentParser) -> None:
    """Add what says which model is looked at."""
    group = parser.add_argument_group("which model: a file, of which only sizes are read, or sizes alone")
    group.add_argument(
        "-m",
        "--model",
        type=Path,
        metavar="FILE",
        help="a model, .st or .pth; default: the small one that comes along",
    )
    add_names(group, "the model")
    group.add_argument("--version", choices=VERSIONS, help="a model of this version, without any weights")
    group.add_argument("--layers", type=int, metavar="N", help="with --version; default: 2")
    group.add_argument("--width", type=int, metavar="C", help="with --version, channels; default: 768")
    group.add_argument("--vocab", type=int, metavar="V", help="with --version; default: 65536")
    group.add_argument("--head-size", type=int, metavar="S", help="with --version; default: 64")


def add_target(parser: argparse.ArgumentParser) -> None:
    """Add what says for which device is compiled."""
    group = parser.add_argument_group("which device it is compiled for")
    group.add_argument(
        "--target",
        choices=("device", "browser"),
        help="limits and dialect of an adapter, or those of any browser; default: device if there is one",
    )
    group.add_argument(
        "--adapter", metavar="NAME|INDEX", help="a part of an adapter's name or its index; default: the best"
    )


def run(options: argparse.Namespace) -> int:
    """Write the graph."""
    kind = options.format or ENDINGS.get(options.output.suffix if options.output else ".txt", "text")
    check(options, kind)
    hooks = read_hooks(options.hooks) if options.hooks else None
    context = open_context(options)
    target = context.target if context else Target.browser()
    reader = open_reader(options)
    with telling_where(options.hooks and options.hooks.resolve()):
        stages = look(subject_of(reader, target), hooks, target)
        timing = measure(options, reader, context, stages, hooks) if options.time and context else None
    text = written(options, kind, stages, timing)
    if options.output is None:
        sys.stdout.write(text + "\n")
        return DONE
    with appearing(options.output) as file:
        file.write(f"{text}\n".encode())
    if not options.quiet:
        show_table({kind: f"{options.output}, {len(text.encode()) / 1e3:,.0f} kB; {stages.program!r}"})
    return DONE


def check(options: argparse.Namespace, kind: str) -> None:
    """Raise ValueError for options that do not go together."""
    if kind == "html" and options.output is None:
        raise ValueError("a page goes into a file: add -o graph.html, then open it in a browser")
    if options.version is None:
        for name in ("layers", "width", "vocab", "head_size"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} goes with --version; a file has its own sizes")
    elif options.model is not None:
        raise ValueError("-m reads a file and --version makes a model up: give one of them")
    if options.tokens < 1:
        raise ValueError(f"--tokens is {options.tokens}; it is at least 1")
    if options.time and options.target == "browser":
        raise ValueError("--time measures on a device; leave --target browser out")
    if options.output is not None and options.output.is_dir():
        raise ValueError(f"{options.output} is a folder; -o takes the name of a file")
    if options.output is not None and not options.output.parent.is_dir():
        raise ValueError(f"there is no folder {options.output.parent} to write {options.output.name} to")


def open_context(options: argparse.Namespace) -> Context | None:
    """The device whose limits are compiled for, None for a browser's.

    Raises DeviceError where one is asked for and there is none.
    """
    if options.target == "browser":
        return None
    try:
        chosen = device(options.adapter)
        return chosen if isinstance(chosen, Context) else Context.create(chosen)
    except DeviceError:
        if options.target or options.adapter or options.time:
            raise
        return None


def open_reader(options: argparse.Namespace) -> Reader:
    """The tensors of -m, or the shapes that --version stands for."""
    if options.version is None:
        return open_model(model_path(options), options.names)
    layers, width, vocab, head_size = (
        given if given is not None else usual
        for given, usual in zip(
            (options.layers, options.width, options.vocab, options.head_size),
            (2, 768, 65536, HEAD_SIZE),
            strict=True,
        )
    )
    shapes = shapes_of(options.version, layers, width, vocab, head_size)
    return ShapeReader(shapes, f"RWKV {options.version}, made up")


def measure(
    options: argparse.Namespace, reader: Reader, context: Context, stages: Stages, hooks: Hooks | None
) -> Timing:
    """Load the weights and time the passes."""
    with waiting("loading the weights", options.quiet):
        model = Model(reader, GpuEngine(context), max(options.tokens, TOKEN_CHUNK_SIZE))
    with waiting("timing the passes", options.quiet):
        return time_passes(model, stages, hooks, options.tokens)


def written(options: argparse.Namespace, kind: str, stages: Stages, timing: Timing | None) -> str:
    """A stage in a format."""
    if kind == "html":
        return page(stages, options.stage, options.tokens, timing)
    if kind == "text":
        return formats.text_of(stages, options.stage, options.full, timing)
    drawing = draw(stages, options.stage, options.tokens, timing.microseconds if timing else None)
    match kind:
        case "dot":
            return formats.dot(drawing if options.full else fold(drawing))
        case "mermaid":
            return formats.mermaid(drawing if options.full else fold(drawing))
        case "graphml":
            return formats.graphml(drawing)
        case _:
            return formats.as_json(drawing, stages, timing)


GRAPH = Command(
    "graph", "Show what a model is compiled to: text, DOT, Mermaid, GraphML, JSON or a page.", add, run
)
