"""`rwkvgraph inspect`: the values of a prompt by layer and slot, or where two models first drift apart."""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from rwkvgraph.commands.command import DONE, Command
from rwkvgraph.commands.generate import shape
from rwkvgraph.commands.options import add_model, load, model_path, read_prompt
from rwkvgraph.errors import LoadError
from rwkvgraph.generate import check as check_vocabulary
from rwkvgraph.generate import prompt_ids
from rwkvgraph.gpu import Context
from rwkvgraph.gpu.engine import GpuEngine
from rwkvgraph.load.convention import CHOICES
from rwkvgraph.model import Device, Model
from rwkvgraph.sight.drift import THRESHOLD
from rwkvgraph.sight.reading import (
    MAIN,
    Value,
    check_alike,
    check_kept,
    drifts,
    keep,
    read,
    statistics,
    values_of,
)
from rwkvgraph.sight.reports import Prompt, Report, comparison_report, statistics_report
from rwkvgraph.sight.values_file import ENDINGS, save_values
from rwkvgraph.terminal import show_table, waiting
from rwkvgraph.tokenizer import Tokenizer
from rwkvgraph.writing import appearing

JSON = ".json"
FORMAT = "rwkvgraph inspect 1"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of `inspect`."""
    parser.add_argument(
        "-p",
        "--prompt",
        required=True,
        metavar="TEXT",
        help=r"what is run, where \n is a new line; - reads stdin, less one line end at its end",
    )
    parser.add_argument(
        "--tokens", choices=("all", "last"), default="all", help="of which tokens; default: %(default)s"
    )
    which = parser.add_argument_group("which values: by default a few of each layer, with --compare all")
    which.add_argument(
        "--values",
        nargs="+",
        metavar="PATTERN",
        help='by name, "3.att_k@PostAttLinear"; * is anything: "*.x@PostFfn", "*" each slot at every site',
    )
    which.add_argument("--layers", metavar="LIST", help="of these layers alone, such as 0-3,7")
    which.add_argument(
        "--all",
        action="store_true",
        help="each slot once, at every site where it is new; with --compare: show a line of each",
    )
    result = parser.add_argument_group("what comes of them")
    result.add_argument("--json", action="store_true", help="write JSON instead of a table")
    result.add_argument(
        "--save",
        type=Path,
        metavar="FILE",
        help="the values themselves as .npz or .st, 4 bytes a number in memory and at most 4.3 GB; or as "
        ".json what --json writes",
    )
    add_comparison(parser)
    add_model(parser)


def add_comparison(parser: argparse.ArgumentParser) -> None:
    """Add what a second model needs."""
    group = parser.add_argument_group(
        "comparing two forms of a model",
        "The second is loaded when the first is gone from the device. Values of the first stay in memory: 4 "
        "bytes a number, at most 4.3 GB.",
    )
    group.add_argument("--compare", type=Path, metavar="OTHER", help="say where OTHER drifts from the model")
    group.add_argument(
        "--threshold",
        type=float,
        default=THRESHOLD,
        metavar="R",
        help="drift is rms(difference) / rms(value) above this; default: %(default)s",
    )
    group.add_argument(
        "--compare-names",
        choices=[choice for choice in CHOICES if choice],
        help="as --names, of OTHER",
    )


def run(options: argparse.Namespace) -> int:
    """Write the table or the comparison."""
    check(options)
    text = read_prompt(options.prompt)
    if not text:
        raise ValueError("the prompt is empty, so there is nothing to look at; give a text with -p")
    if options.compare:
        check_alike(model_path(options), options.compare, options.names, options.compare_names)
    with np.errstate(all="ignore"):  # what is not finite is told
        report, figures = compare(options, text) if options.compare else inspect(options, text)
    data = json.dumps(report.facts, ensure_ascii=False, indent=1, allow_nan=False)
    print(data if options.json else report.text)
    if options.save and options.save.suffix.lower() == JSON:
        with appearing(options.save) as file:
            file.write(f"{data}\n".encode())
            figures["saved"] = f"{options.save}, {file.tell() / 1e3:,.0f} kB"
    if not options.quiet:
        show_table(figures)
    return DONE


def inspect(options: argparse.Namespace, text: str) -> tuple[Report, dict[str, str]]:
    """Statistics of one model's values, and the figures."""
    model, tokenizer, loaded = loading(options)
    prompt, values = prompt_of(model, tokenizer, text), chosen(options, model)
    is_kept = options.save is not None and options.save.suffix.lower() != JSON
    figures = {"model": f"{model_path(options).name}, {shape(model)}; {loaded}", "adapter": adapter(model)}
    if is_kept:
        check_kept(values, rows_of(options, prompt))
    with waiting("running the prompt", options.quiet):
        pieces = read(model, prompt.ids, values, options.tokens == "last")
        kept = keep(pieces) if is_kept else None
        found = statistics(kept.pieces() if kept else pieces)
    figures["values"] = f"{len(values)} of {rows_of(options, prompt)} tokens"
    if kept:
        size = save_values(options.save, kept, prompt.ids)
        figures["saved"] = f"{options.save}, {size / 1e6:,.1f} MB"
    hint = "" if options.values or options.all else "; --all looks at every value"
    report = statistics_report(values, found, prompt, hint)
    return Report(report.text, facts_of(model, options, prompt) | report.facts), figures


def compare(options: argparse.Namespace, text: str) -> tuple[Report, dict[str, str]]:
    """How far the values of a second model are from the first's, and the figures."""
    model, tokenizer, loaded = loading(options)
    prompt, values = prompt_of(model, tokenizer, text), chosen(options, model)
    size = check_kept(values, rows_of(options, prompt))
    facts = facts_of(model, options, prompt) | {"other": str(options.compare)}
    figures = {"model": f"{model_path(options).name}, {shape(model)}; {loaded}"}
    figures["other"] = options.compare.name
    with waiting("running the prompt", options.quiet):
        first = keep(read(model, prompt.ids, values, options.tokens == "last"))
    device, figures["adapter"] = device_of(model), adapter(model)
    del model
    gc.collect()  # so that only one of them is on the device
    with waiting("loading the other model", options.quiet):
        other = load_other(options, device, values)
    with waiting("running the prompt", options.quiet):
        found, logits = drifts(first, read(other, prompt.ids, values, options.tokens == "last"))
    figures["values"] = f"{len(values)} of {rows_of(options, prompt)} tokens, {size / 1e6:,.1f} MB"
    is_full = bool(options.values or options.all)
    report = comparison_report(values, found, first.logits, logits, prompt, options.threshold, is_full)
    return Report(report.text, facts | report.facts), figures


def check(options: argparse.Namespace) -> None:
    """Raise ValueError for options that do not go together, and files that cannot be written."""
    if options.values and options.all:
        raise ValueError("--values names values and --all takes every one: give one of them")
    if not options.threshold > 0:
        raise ValueError(f"--threshold is {options.threshold:g}; it is a relative difference above 0")
    if options.compare_names and not options.compare:
        raise ValueError("--compare-names goes with --compare")
    if options.layers is not None:
        read_layers(options.layers)
    if options.save is not None:
        check_file(options.save, bool(options.compare))


def check_file(path: Path, is_comparison: bool) -> None:
    """Raise ValueError for a file that --save cannot write."""
    endings = (JSON,) if is_comparison else (*ENDINGS, JSON)
    if path.suffix.lower() not in endings:
        hint = "; values are saved by a run without --compare" if path.suffix.lower() in ENDINGS else ""
        raise ValueError(f"--save writes {', '.join(endings)}; given {path}{hint}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; --save takes the name of a file")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent} to write {path.name} to")


def read_layers(text: str) -> list[range]:
    """The ranges of "0-3,7". Raises ValueError."""
    found = []
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
            raise ValueError(f"--layers is {text!r}; it is numbers and ranges of them, such as 0-3,7")
        found.append(range(int(first), int(last) + 1))
    return found


def chosen(options: argparse.Namespace, model: Model) -> list[Value]:
    """The values that the options mean, in order of execution."""
    layers = None
    if options.layers is not None:
        ranges, there = read_layers(options.layers), range(model.info.num_layer)
        if any(part.stop > there.stop for part in ranges):
            raise ValueError(f"--layers is {options.layers}; the model has layers 0 to {there.stop - 1}")
        layers = {layer for layer in there if any(layer in part for part in ranges)}
    patterns = options.values or (None if options.all or options.compare else MAIN)
    return values_of(model.graph, patterns, layers)


def loading(options: argparse.Namespace) -> tuple[Model, Tokenizer, str]:
    """The model, its tokenizer, and how long that took."""
    started = perf_counter()
    with waiting("loading the model", options.quiet):
        model, tokenizer = load(options)
    return model, tokenizer, f"loaded in {perf_counter() - started:.2f} s"


def device_of(model: Model) -> Device:
    """Where another model runs beside this one, with what is compiled already."""
    return model.engine.context if isinstance(model.engine, GpuEngine) else "cpu"


def adapter(model: Model) -> str:
    """Where a model runs, in words."""
    device = device_of(model)
    return str(device.info) if isinstance(device, Context) else "cpu, numpy"


def load_other(options: argparse.Namespace, device: Device, values: Sequence[Value]) -> Model:
    """The second model, where the first was. Raises LoadError unless it has the same values."""
    model = Model.load(options.compare, device, names=options.compare_names)
    lacking = {value.name for value in values} - {value.name for value in values_of(model.graph, ["*"])}
    if lacking:
        raise LoadError(
            f"{options.compare} is of another kind than {model_path(options)}: it has no {min(lacking)}"
        )
    return model


def prompt_of(model: Model, tokenizer: Tokenizer, text: str) -> Prompt:
    """A text's tokens as the model is given them. Raises ValueError for another model's vocabulary."""
    check_vocabulary(model, tokenizer, 0, ())
    return Prompt(prompt_ids(tokenizer, text, is_empty=True), tokenizer)


def rows_of(options: argparse.Namespace, prompt: Prompt) -> int:
    """Of how many tokens values are looked at."""
    return 1 if options.tokens == "last" else len(prompt.ids)


def facts_of(model: Model, options: argparse.Namespace, prompt: Prompt) -> dict[str, object]:
    """What JSON says first of all: which model, which tokens."""
    return {
        "format": FORMAT,
        "model": str(model_path(options)),
        "version": model.info.version,
        "layers": model.info.num_layer,
        "channels": model.info.num_emb,
        "ids": prompt.ids,
        "texts": [prompt.text(at) for at in range(len(prompt.ids))],
    }


INSPECT = Command(
    "inspect", "Show the values of a prompt by layer and slot, or where two models drift apart.", add, run
)
