"""Tokens a second of models of any size with random weights, or of a file: a command, not a test.

    python tests/benchmark.py                                  # the shipped model
    python tests/benchmark.py --synthetic 24x2048 v6:12x768    # version, layers x width

Each figure is the median of repeats after a warm-up that ends when two rounds agree, as GPUs clock up slowly.
GB/s counts the weights that a token reads: every matrix but the embedding.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

import rwkvgraph as rg
from rwkvgraph import assets
from rwkvgraph.compiler import compile
from rwkvgraph.gpu.engine import GpuEngine
from rwkvgraph.gpu.runner import Runner
from rwkvgraph.load.reader import Reader, open_model
from rwkvgraph.sight.shapes import ShapeReader, shapes_of
from rwkvgraph.view import B, E, N, O, T


def measure(reader: Reader, context: rg.Context, prompt: int, count: int) -> None:
    """Print a model's compile times, memory and speeds."""
    start = time.perf_counter()
    model = rg.Model(reader, GpuEngine(context), token_chunk_size=prompt)
    loaded = time.perf_counter() - start
    weights = sum(int(np.prod(reader.shape(name))) for name in reader.names() if len(reader.shape(name)) == 2)
    nbytes = 2 * (weights - model.info.num_vocab * model.info.num_emb)
    state = model.state()
    start = time.perf_counter()
    program = compile(model.graph, None, context.target)
    compiled = time.perf_counter() - start
    start = time.perf_counter()
    model.run([[1]], state)
    first = time.perf_counter() - start
    runner = model.program()
    assert isinstance(runner, Runner), "a GPU engine makes runners"
    print(f"{model.info}\n{program!r}; loaded in {loaded:.2f} s, graph to program {compiled:.2f} s")
    print(f"first token {first:.2f} s, with {len(context.kernels)} kernels compiled")
    tokens = [1 + index % 100 for index in range(prompt)]
    decode = steady(lambda: spin(model, state, count)) / count
    prefill = steady(lambda: model.run([list(tokens)], state))
    bandwidth = f"{nbytes / decode / 1e9:7.1f} GB/s of weights ({nbytes / 1e9:.2f} GB)"
    print(f"decode   {1 / decode:9.1f} tok/s   {bandwidth}")
    print(f"prefill  {prompt / prefill:9.1f} tok/s   ({prompt} tokens)")
    print(f"encoding {encoding(runner, state) * 1e6:9.2f} µs a pass")
    for size in (1, 4096):
        sizes = dict.fromkeys((T, O, N), size)
        print(f"scratch  {program.plan.bytes(sizes):9d} bytes for T = O = {size}")


def spin(model: rg.Model, state: rg.State, count: int) -> None:
    """Decode `count` tokens, one after another."""
    for _ in range(count):
        model.run([[1]], state)


def steady(work: object) -> float:
    """Median seconds of five rounds, once two rounds in a row agree to 3 percent (or ten have run)."""
    assert callable(work), "work is something to call"
    last = timed(work)
    for _ in range(10):
        now = timed(work)
        agree = abs(now - last) < 0.03 * now
        last = now
        if agree:
            break
    return statistics.median(timed(work) for _ in range(5))


def timed(work: object) -> float:
    """Seconds of one call."""
    assert callable(work), "work is something to call"
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def encoding(runner: Runner, state: rg.State) -> float:
    """Seconds that recording one pass takes, without running it."""
    count = len(runner.program.passes)
    block = state.blocks[0]
    steps = runner.steps({T: 1, O: 1, N: 1, B: 1, E: 1}, block, block.memory)
    return steady(lambda: [runner.encode(steps, 0, count).finish() for _ in range(20)]) / 20 / count


def random_reader(text: str, vocab: int) -> ShapeReader:
    """The model that `v6:12x768`, or `12x768` for V7, asks for."""
    version, _, size = text.rpartition(":")
    layers, width = map(int, size.split("x"))
    return ShapeReader(shapes_of(version or "v7", layers, width, vocab), f"synthetic {text}")


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--synthetic", nargs="*", default=[], metavar="[VERSION:]LAYERSxWIDTH")
    parser.add_argument("--vocab", type=int, default=65536)
    parser.add_argument("-m", "--model", default=None)
    parser.add_argument("-p", "--prompt", type=int, default=512)
    parser.add_argument("-n", "--count", type=int, default=100)
    parser.add_argument("--adapter", default=None)
    given = parser.parse_args()
    context = rg.Context.create(given.adapter)
    print(context)
    readers: list[Reader] = [random_reader(text, given.vocab) for text in given.synthetic]
    if not readers:
        readers = [open_model(given.model or assets.default_model())]
    for reader in readers:
        print()
        measure(reader, context, given.prompt, given.count)


if __name__ == "__main__":
    main()
