"""`rwkvgraph generate`: text to stdout as it comes, then on stderr what ran, where and how fast."""

from __future__ import annotations

import argparse
import secrets
import sys
from time import perf_counter

from rwkvgraph.commands.command import DONE, INTERRUPTED, Command
from rwkvgraph.commands.options import (
    add_model,
    add_sampling,
    load,
    model_path,
    read_prompt,
    read_sampler,
    unescaped,
)
from rwkvgraph.generate import Generation, generate
from rwkvgraph.gpu.engine import GpuEngine
from rwkvgraph.gpu.runner import Runner
from rwkvgraph.model import Model
from rwkvgraph.sampler import Sampler
from rwkvgraph.terminal import show_table, waiting

FINISHES = {"end": "the text ended", "stop": "at a stop text", "length": "as many as asked for"}


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of `generate`."""
    parser.add_argument(
        "-p",
        "--prompt",
        default="",
        metavar="TEXT",
        help=r"what to continue, where \n is a new line; - reads stdin, less one line end at its end",
    )
    parser.add_argument("-n", "--max-tokens", type=int, default=100, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help=r"end before this text, where \n is a new line; may be given again",
    )
    parser.add_argument("--no-echo", action="store_true", help="leave the prompt out of what is written")
    add_sampling(parser)
    add_model(parser)


def run(options: argparse.Namespace) -> int:
    """Write the prompt and what follows it; Ctrl-C ends the text early, with the figures so far."""
    prompt = read_prompt(options.prompt)
    if options.seed is None:
        options.seed = secrets.randbelow(1 << 32)  # so that it can be told
    sampling = read_sampler(options)
    started = perf_counter()
    with waiting("loading the model", options.quiet):
        model, tokenizer = load(options)
    seconds = perf_counter() - started
    stops = [unescaped(text) for text in options.stop]
    story = generate(model, tokenizer, prompt, options.max_tokens, sampling, stop=stops)
    code = stream(story, "" if options.no_echo else prompt)
    if not options.quiet:
        name = model_path(options).name
        show_table({"model": f"{name}, {shape(model)}; loaded in {seconds:.2f} s"} | figures(story, model))
    return code


def stream(story: Generation, prompt: str) -> int:
    """Write text as it comes, and a line end if it lacks one. Gives the exit code."""
    last = write(prompt)
    try:
        for piece in story:
            last = write(piece.text) or last
        return DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        if last != "\n":
            write("\n")


def write(text: str) -> str:
    """Write to stdout at once. Gives the last character."""
    sys.stdout.write(text)
    sys.stdout.flush()
    return text[-1:]


def figures(story: Generation, model: Model) -> dict[str, str]:
    """What there is to tell of a run, by label."""
    times, sampler = story.timings, story.sampler
    finish = FINISHES[story.finish_reason] if story.finish_reason else "interrupted"
    return {
        "adapter": f"{place(model)}; compiled in {times.setup_seconds:.2f} s",
        "sampling": sampling(sampler),
        "prompt": speed(times.prompt_tokens, times.prompt_speed),
        "generation": f"{speed(times.generated_tokens, times.generation_speed)}; {finish}",
    }


def sampling(sampler: Sampler) -> str:
    """A sampler's settings; those that not all texts have, where they are set."""
    words = [f"temperature {sampler.temperature:g}", f"top-p {sampler.top_p:g}", f"top-k {sampler.top_k}"]
    words += [f"min-p {sampler.min_p:g}"] if sampler.min_p else []
    if sampler.has_penalties:
        words += [
            f"presence {sampler.presence:g}",
            f"frequency {sampler.frequency:g}",
            f"decay {sampler.decay:g}",
        ]
    return ", ".join([*words, f"seed {sampler.seed}"])


def shape(model: Model) -> str:
    """A model in a few words."""
    info = model.info
    return f"RWKV-{info.version[1:]}, {info.num_layer} layers of {info.num_emb}"


def place(model: Model) -> str:
    """Where a model runs, and on a device in how many passes a token."""
    if not isinstance(model.engine, GpuEngine):
        return "cpu, numpy"
    program = model.program()
    passes = f"; {len(program.program.passes)} passes a token" if isinstance(program, Runner) else ""
    return f"{model.engine.context.info}{passes}"


def speed(tokens: int, tokens_per_second: float | None) -> str:
    """How many tokens, and how fast where that is known."""
    count = f"{tokens} token{'' if tokens == 1 else 's'}"
    return f"{count}, {tokens_per_second:.1f} tok/s" if tokens_per_second else count


GENERATE = Command("generate", "Continue a text.", add, run)
