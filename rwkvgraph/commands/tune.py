"""`rwkvgraph tune`: which kernels of the matrix product are fastest on an adapter, and a file of them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import rwkvgraph
from rwkvgraph.bench.steady import MOST_WARM_UP, Rounds
from rwkvgraph.bench.subject import counts
from rwkvgraph.bench.tables import markdown, number
from rwkvgraph.bench.tuner import TOKENS, Trial, cases_of, chosen_by, table_of, tune
from rwkvgraph.commands.command import DONE, Command
from rwkvgraph.commands.options import device
from rwkvgraph.commands.subject import add_subject, check_subject, open_subject
from rwkvgraph.compiler.tuning_file import VARIABLE, TuningFile
from rwkvgraph.errors import DeviceError
from rwkvgraph.gpu.context import Context
from rwkvgraph.gpu.engine import GpuEngine
from rwkvgraph.model import open_engine
from rwkvgraph.terminal import show_table, waiting
from rwkvgraph.writing import appearing
from rwkvgraph_codegen import Shape

FORMAT = "rwkvgraph tune 1"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of `tune`."""
    add_subject(
        parser,
        "whose matrices, .st or .pth; default: the small model that comes along",
        "the matrices of a model of these sizes, without a file: v7:24x2048",
    )
    parser.add_argument(
        "--adapter",
        metavar="NAME|INDEX",
        help="a part of an adapter's name, or its index in `rwkvgraph devices`; default: the best",
    )
    parser.add_argument(
        "-t",
        "--tokens",
        metavar="N",
        help="numbers of tokens, with commas between; default: 1 to 1,024, on software adapters to 64",
    )
    parser.add_argument(
        "-r", "--repeats", type=int, default=5, metavar="N", help="rounds that count; default: %(default)s"
    )
    parser.add_argument(
        "--warm-up",
        type=float,
        default=MOST_WARM_UP,
        metavar="S",
        help="most seconds until a pass is steady, once for all its kernels; default: %(default)s",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help=f"write the kernels there, for {VARIABLE}=FILE"
    )
    parser.add_argument(
        "--json", action="store_true", help="write JSON, with every sample, instead of a table"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="nothing on stderr but errors")


def run(options: argparse.Namespace) -> int:
    """Measure, write the tables, and the file."""
    check_subject(options)
    if options.repeats < 1 or not options.warm_up >= 0:
        raise ValueError(
            f"--repeats is {options.repeats} and --warm-up {options.warm_up}; they are at least 1 and 0"
        )
    asked = counts(options.tokens, "-t", 1) if options.tokens is not None else None
    reader = open_subject(options)
    engine = open_engine(device(options.adapter))
    if not isinstance(engine, GpuEngine):
        raise DeviceError("numpy has no kernels to choose; tune needs an adapter (rwkvgraph devices)")
    context = engine.context
    with waiting("measuring kernels, which takes minutes", options.quiet):
        cases, tokens = cases_of(reader, context.target), asked or TOKENS[context.target.kind]
        trials = list(tune(context, cases, tokens, Rounds(options.repeats, options.warm_up)))
    found = TuningFile(context.info.name, table_of(trials))
    if options.output is not None:
        with appearing(options.output) as file:
            file.write(str(found).encode())
    print(
        json.dumps(facts(context, reader.path, trials, found), indent=1)
        if options.json
        else table(trials, found)
    )
    if not options.quiet:
        show_table(figures(options, context, trials, found))
    return DONE


def table(trials: Sequence[Trial], found: TuningFile) -> str:
    """A line a pass and number of tokens: as it was, by the new order, and the fastest kernel of all."""
    header = ["passes", "kernel", "count", "tokens", "was µs", "is µs", "best µs"]
    rows = []
    for trial in sorted(trials, key=lambda trial: trial.tokens):
        chosen = chosen_by(found.matmul, trial)
        times = [trial.times[shape].median * 1e6 for shape in (trial.kernel, chosen, trial.best)]
        rows.append(
            [str(trial.case), label(chosen), str(trial.count), str(trial.tokens), *map(number, times)]
        )
    return markdown(header, rows, left=2)


def label(shape: Shape) -> str:
    """A kernel in a few words: its family, threads, and rows by tokens of a workgroup."""
    return f"{shape.family} {shape.threads} of {shape.group_rows}x{shape.group_tokens}"


def figures(
    options: argparse.Namespace, context: Context, trials: Sequence[Trial], found: TuningFile
) -> dict[str, str]:
    """What there is to tell beside the table, by label."""
    wrong = {label(shape): error for trial in trials for shape, error in trial.wrong.items()}
    sums = []
    for tokens in sorted({trial.tokens for trial in trials}):
        some = [trial for trial in trials if trial.tokens == tokens]
        was = sum(trial.seconds(trial.kernel) for trial in some)
        now = sum(trial.seconds(chosen_by(found.matmul, trial)) for trial in some)
        sums.append(f"{tokens}: {was / now:.2f}")
    told = {
        "adapter": str(context.info),
        "faster": f"products of all passes, by tokens, times as fast as before: {', '.join(sums)}",
    }
    if wrong:
        told["wrong"] = ", ".join(f"{name} (off by {error:.1e})" for name, error in wrong.items())
    if options.output is not None:
        told["written"] = f"{options.output}; {VARIABLE}={options.output} uses it"
    return told


def facts(context: Context, source: object, trials: Sequence[Trial], found: TuningFile) -> dict[str, object]:
    """All of it. Keys stay as they are for as long as FORMAT does."""
    return {
        "format": FORMAT,
        "version": rwkvgraph.__version__,
        "model": str(source),
        "adapter": str(context.info),
        "target": str(context.target),
        "trials": [trial_facts(trial, chosen_by(found.matmul, trial)) for trial in trials],
        "tuning": json.loads(str(found)),
    }


def trial_facts(trial: Trial, chosen: Shape) -> dict[str, object]:
    """A trial, with the seconds of every round that counted."""
    return {
        "matrices": [{"rows": list(parts), "columns": columns} for parts, columns in trial.case.matrices],
        "count": trial.count,
        "tokens": trial.tokens,
        "was": repr(trial.kernel),
        "chosen": repr(chosen),
        "seconds": {repr(shape): list(samples.rounds) for shape, samples in trial.times.items()},
        "wrong": {repr(shape): repr(error) for shape, error in trial.wrong.items()},
    }


TUNE = Command("tune", "Measure which kernels of the matrix product are fastest on an adapter.", add, run)
