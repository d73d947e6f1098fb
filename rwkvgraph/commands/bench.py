"""`rwkvgraph bench`: how fast a model takes prompts and generates, and which passes the time goes to."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np

from rwkvgraph.bench.bandwidth import measure_bandwidth
from rwkvgraph.bench.endurance import HEADER, RULE, Tenth, endure, verdict
from rwkvgraph.bench.report import Report, facts
from rwkvgraph.bench.speed import Speed, Trial, measure_speed, state_bytes
from rwkvgraph.bench.steady import MOST_WARM_UP, Rounds
from rwkvgraph.bench.subject import check_host, counts, weight_bytes
from rwkvgraph.bench.tables import number, pass_table, speed_table
from rwkvgraph.commands.command import DONE, Command
from rwkvgraph.commands.options import device
from rwkvgraph.commands.subject import add_subject, check_subject, open_subject
from rwkvgraph.engine import Engine
from rwkvgraph.errors import DeviceError
from rwkvgraph.gpu.engine import GpuEngine
from rwkvgraph.load.reader import Reader
from rwkvgraph.model import TOKEN_CHUNK_SIZE, Model, open_engine
from rwkvgraph.terminal import show_table, waiting


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bench`."""
    subject = parser.add_argument_group("which model, and where")
    add_subject(
        subject,
        "a model, .st or .pth; default: the small one that comes along",
        "a model of these sizes with noise for weights, without a file: v7:24x2048",
    )
    subject.add_argument(
        "--adapter",
        metavar="NAME|INDEX|cpu",
        help="a part of an adapter's name, its index in `rwkvgraph devices`, or cpu for numpy; default: the "
        "best",
    )
    add_tests(parser)
    parser.add_argument(
        "--json", action="store_true", help="write JSON, with every sample, instead of tables"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="nothing on stderr but errors")


def add_tests(parser: argparse.ArgumentParser) -> None:
    """Add what is measured. Texts, as several numbers may stand in one."""
    group = parser.add_argument_group("what is measured; several numbers with commas between")
    group.add_argument(
        "-p",
        "--prompt",
        default="512",
        metavar="N",
        help="pp: a prompt of N tokens in each slot; 0 leaves it out; default: %(default)s",
    )
    group.add_argument(
        "-n",
        "--generate",
        default="128",
        metavar="N",
        help="tg: N steps of a token a slot, logits read back; 0 leaves it out; default: %(default)s",
    )
    group.add_argument(
        "-d",
        "--depth",
        default="0",
        metavar="N",
        help="tokens that each slot has taken before tg begins; default: %(default)s",
    )
    group.add_argument(
        "-b", "--slots", default="1", metavar="N", help="sequences side by side; default: %(default)s"
    )
    group.add_argument(
        "-r", "--repeats", type=int, default=5, metavar="N", help="rounds that count; default: %(default)s"
    )
    group.add_argument(
        "--warm-up",
        type=float,
        default=MOST_WARM_UP,
        metavar="S",
        help="most seconds that each measurement takes to become steady; default: %(default)s",
    )
    group.add_argument(
        "--token-chunk-size",
        type=int,
        default=TOKEN_CHUNK_SIZE,
        metavar="N",
        help="most tokens of all slots in a run, at least one a slot; default: %(default)s",
    )
    group.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="instead of pp and tg: generate for so long in one slot, and see whether memory grows",
    )
    group.add_argument(
        "--passes", action="store_true", help="time each pass of a run too: which shader, bytes, GB/s"
    )


def run(options: argparse.Namespace) -> int:
    """Measure, and write the tables."""
    trials = read_trials(options)
    reader = open_subject(options)
    engine = open_engine(device(options.adapter))
    if options.passes and not isinstance(engine, GpuEngine):
        raise DeviceError(
            "there are no passes to time on numpy; --passes needs an adapter (rwkvgraph devices)"
        )
    with np.errstate(all="ignore"):  # noise for weights may overflow
        report = measured(options, reader, engine, trials)
    if options.json:
        print(json.dumps(facts(report), ensure_ascii=False, indent=1, allow_nan=False))
    elif report.speeds:
        print(
            "\n\n".join(filter(None, [speed_table(report), *(pass_table(report, s) for s in report.speeds)]))
        )
    else:
        print(verdict(report.tenths))
    if not options.quiet:
        show_table(figures(report))
    return DONE


def read_trials(options: argparse.Namespace) -> list[Trial]:
    """What is to be measured. Raises ValueError for numbers that nothing can be measured with."""
    check_subject(options)
    for name in ("repeats", "token_chunk_size"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(options, name)}; it is at least 1")
    if not options.warm_up >= 0:
        raise ValueError(f"--warm-up is {options.warm_up}; it is at least 0")
    if options.minutes is not None:
        if not 0 < options.minutes < float("inf"):
            raise ValueError(f"--minutes is {options.minutes}; it is more than 0")
        return []
    prompts, steps = counts(options.prompt, "-p", 0), counts(options.generate, "-n", 0)
    depths = counts(options.depth, "-d", 0)
    found: list[Trial] = []
    for slots in counts(options.slots, "-b", 1):
        found += [Trial("pp", count, slots) for count in prompts if count]
        found += [Trial("tg", count, slots, depth) for depth in depths for count in steps if count]
    if not found:
        raise ValueError("-p 0 and -n 0 leave nothing to measure")
    return found


def measured(options: argparse.Namespace, reader: Reader, engine: Engine, trials: list[Trial]) -> Report:
    """Load the model and run all trials. Raises DeviceError where memory is out."""
    context = engine.context if isinstance(engine, GpuEngine) else None
    rounds = Rounds(options.repeats, options.warm_up)
    if is_host(engine):
        check_host(f"the model {reader.path}", weight_bytes(reader))
    with waiting("measuring the memory's bandwidth", options.quiet):
        bandwidth = measure_bandwidth(context, rounds) if context else None
    chunk = max([options.token_chunk_size, *(trial.slots for trial in trials)])
    start = perf_counter()
    with waiting("loading the weights", options.quiet):
        model = Model(reader, engine, chunk)
        if context is not None:
            context.wait(context.submit([]))  # the last of them are still on their way
    loaded = perf_counter()
    model.program()
    lowered = perf_counter()
    speeds = tuple(run_trials(options, model, weight_bytes(reader), trials, rounds))
    tenths = () if trials else tuple(run_minutes(options, model))
    return Report(
        source=str(reader.path),
        info=model.info,
        adapter=str(context.info) if context else "cpu, numpy",
        target=str(engine.target),
        bandwidth=bandwidth,
        chunk=chunk,
        load_seconds=loaded - start,
        weight_bytes=weight_bytes(reader),
        lowering_seconds=lowered - loaded,
        device_bytes=context.allocated if context else 0,
        speeds=speeds,
        tenths=tenths,
    )


def is_host(engine: Engine) -> bool:
    """Whether a device's memory is this machine's."""
    return not isinstance(engine, GpuEngine) or engine.context.info.kind == "software"


def run_trials(
    options: argparse.Namespace, model: Model, weights: int, trials: list[Trial], rounds: Rounds
) -> Iterator[Speed]:
    """What each trial came to. weights: bytes of the model's."""
    for trial in trials:
        if is_host(model.engine):
            nbytes = weights + state_bytes(model, trial.slots)
            check_host(f"the model with {trial.slots} slots of state", nbytes)
        with waiting(f"{trial.name}, slots {trial.slots}", options.quiet):
            yield measure_speed(model, trial, rounds, options.passes)


def run_minutes(options: argparse.Namespace, model: Model) -> Iterator[Tenth]:
    """Tenths of the time, each with its line as soon as it is over."""
    if not options.json:
        print(HEADER, RULE, sep="\n", flush=True)
    for tenth in endure(model, options.minutes * 60):
        if not options.json:
            print(tenth, flush=True)
        yield tenth


def figures(report: Report) -> dict[str, str]:
    """What there is to tell beside the tables, by label."""
    found = {
        "model": f"{Path(report.source).name}, {report.info}",
        "loaded": f"in {report.load_seconds:.2f} s, {number(report.load_rate)} GB/s; "
        f"{report.device_bytes / 1e9:.2f} GB on the device",
        "adapter": report.adapter,
    }
    if report.shaders:
        first = sum(speed.first.seconds for speed in report.speeds)
        found["compiled"] = (
            f"the graph in {report.lowering_seconds:.2f} s, {report.shaders} shaders in "
            f"{report.compile_seconds:.2f} s; first runs took {first:.2f} s"
        )
    if report.bandwidth is not None:
        limit = report.bandwidth
        found["limit"] = (
            f"{number(limit.gigabytes_per_second)} GB/s read and written, by the best {limit.method} of "
            f"{limit.nbytes >> 20} MiB"
        )
    decoding = next((item.device for item in report.speeds if item.trial.kind == "tg" and item.device), None)
    if decoding is not None:
        found["a step"] = (
            f"reads {decoding.weight_bytes / 1e9:.3f} GB of weights, and reads and writes "
            f"{decoding.state_bytes / 1e6:.1f} MB of state: GB/s are of these"
        )
    rounds = len(report.speeds[0].samples.rounds) if report.speeds else 0
    if rounds:
        found["rounds"] = f"medians of {rounds} after a warm-up; runs of at most {report.chunk} tokens"
    return found


BENCH = Command(
    "bench", "Measure how fast a model takes prompts and generates, and what limits it.", add, run
)
