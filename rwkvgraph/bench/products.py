"""Passes of matrix products alone, with noise for weights: how long a kernel takes, and what it gives.

A pass here is only its matrices; a model's own goes on with maps, which cost the same with every kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from math import prod
from time import perf_counter

import numpy as np

from rwkvgraph.bench.steady import Rounds, Samples, collect
from rwkvgraph.compiler import compile
from rwkvgraph.compiler.tuning import tuning_for
from rwkvgraph.gpu.context import Context
from rwkvgraph.gpu.memory import AnyMemory, DeviceMemory, memory_for
from rwkvgraph.gpu.runner import Prepared, Runner
from rwkvgraph.graph import Graph
from rwkvgraph.op import Array, Buffer, DType, Role, Tensor, tape
from rwkvgraph.ops import blit, matmul
from rwkvgraph.quant import BLOCK, Fp16, Matrix
from rwkvgraph.view import Dim, round_up
from rwkvgraph_codegen import Shape

NONE = Dim("none")
ROUND_SECONDS = 0.02
"""Dispatches go out together for about as long, so that submitting costs little of it."""
MOST_REPEATS = 1000
COPIES_BYTES = {"gpu": 256 << 20, "cpu": 32 << 20}
"""Of a pass's weights in turn, more than caches hold: a model has other layers between two runs of one."""
MOST_COPIES = 32
NOISE = 1 << 16
"""Random numbers that weights are cut from, again and again."""


@dataclass(frozen=True)
class Case:
    """Matrices side by side in a pass: each the rows of its parts, and its columns."""

    matrices: tuple[tuple[tuple[int, ...], int], ...]

    @property
    def rows(self) -> list[int]:
        """Of every part."""
        return [rows for parts, _ in self.matrices for rows in parts]

    def __str__(self) -> str:
        sizes = [f"{sum(parts)}x{columns}" for parts, columns in self.matrices]
        found = {size: sizes.count(size) for size in sizes}
        return " + ".join(f"{count}·{size}" if count > 1 else size for size, count in found.items())


@dataclass(eq=False)
class Copy:
    """A set of weights with a run's input and output: what dispatches are bound to."""

    memory: dict[Buffer, AnyMemory]


class Product:
    """A case's weights on a device, several times."""

    def __init__(self, context: Context, case: Case) -> None:
        self.context = context
        self.case = case
        in_textures = tuning_for(context.target).weights_in_textures
        self.weights = [_buffers(parts, columns, in_textures) for parts, columns in case.matrices]
        nbytes = sum(prod(_whole(buffer)) * 2 for parts in self.weights for buffer in parts)
        count = max(1, min(MOST_COPIES, COPIES_BYTES[context.target.kind] // nbytes))
        self.copies = [dict(_filled(context, self.weights)) for _ in range(count)]

    def run(self, tokens: int) -> Run:
        """Runs of so many tokens."""
        return Run(self, tokens)


class Run:
    """Runs of some tokens over a product's weights."""

    def __init__(self, product: Product, tokens: int) -> None:
        self.context = product.context
        self.ends: list[tuple[Buffer, Buffer]] = []
        with tape() as items:
            for (parts, columns), buffers in zip(product.case.matrices, product.weights, strict=True):
                x, y = Buffer("x", (tokens, columns)), Buffer("y", (tokens, sum(parts)))
                weights = tuple(_matrix(buffer, columns) for buffer in buffers)
                blit(matmul(Matrix(Fp16(), weights), x.tensor), y.tensor)
                self.ends.append((x, y))
        self._graph = Graph(tuple(items))
        self._memory = {
            buffer: DeviceMemory(self.context, buffer, {}) for pair in self.ends for buffer in pair
        }
        random = np.random.default_rng(tokens)
        for x, _ in self.ends:
            self._memory[x].write(random.normal(size=_whole(x)).astype(np.float32))
        self._copies = [Copy({**weights, **self._memory}) for weights in product.copies]
        self._runners: dict[Shape, Runner] = {}

    def values(self, shape: Shape) -> Array:
        """All results by a kernel, in a row."""
        for _, y in self.ends:
            self._memory[y].write(np.full(_whole(y), np.nan, np.float32))  # a result that nobody writes shows
        self._seconds(self._prepared(shape, 1))
        return np.concatenate([self._memory[y].read().reshape(-1) for _, y in self.ends])

    def measure(self, shape: Shape, rounds: Rounds) -> Samples:
        """Seconds that a kernel takes."""
        once = self._seconds(self._prepared(shape, len(self._copies))) / len(self._copies)
        repeats = max(1, min(MOST_REPEATS, int(ROUND_SECONDS / max(once, 1e-9))))
        prepared = self._prepared(shape, repeats)
        return collect(self._taken(prepared), rounds).over(repeats)

    def _taken(self, prepared: Prepared) -> Iterator[float]:
        """Of all repeats together: how long a warm-up takes is counted by it."""
        while True:
            yield self._seconds(prepared)

    def _seconds(self, prepared: Prepared) -> float:
        """Of a submission, from when it is handed over."""
        runner = next(iter(self._runners.values()))
        with self.context.lock:
            commands = runner.encode(prepared, 0, len(prepared.steps)).finish()
            start = perf_counter()
            self.context.wait(self.context.submit([commands]))
            return perf_counter() - start

    def _prepared(self, shape: Shape, repeats: int) -> Prepared:
        """So many runs, each with the next copy of the weights."""
        if shape not in self._runners:
            target = self.context.target
            any_number = () if shape.splits == 1 else tuning_for(target).matmul[-1:]
            program = compile(self._graph, None, replace(target, matmul=(shape, *any_number)))
            nothing = Buffer("nothing", (NONE, 1), DType.F32, Role.OUTPUT)
            self._runners[shape] = Runner(self.context, program, {}, nothing)
        runner = self._runners[shape]
        copies = islice(cycle(self._copies), repeats)
        runs = [runner.steps({NONE: 0}, copy, copy.memory) for copy in copies]
        steps = [step for run in runs for step in run.steps]
        return Prepared(tuple(range(len(steps))), steps, self.context.driver.prepare(steps))


def _buffers(parts: Sequence[int], columns: int, in_textures: bool) -> list[Buffer]:
    found = [Buffer("w", (rows, round_up(columns, BLOCK)), DType.F16) for rows in parts]
    for buffer in found:
        buffer.is_texture = in_textures
    return found


def _filled(context: Context, weights: Sequence[Sequence[Buffer]]) -> Iterator[tuple[Buffer, AnyMemory]]:
    noise = np.random.default_rng(0).normal(0.0, 0.02, NOISE).astype(np.float16)
    for buffer in (buffer for parts in weights for buffer in parts):
        memory = memory_for(context, buffer)
        memory.fill(0, np.resize(noise, prod(_whole(buffer))))
        yield buffer, memory


def _matrix(buffer: Buffer, columns: int) -> Tensor:
    return buffer.tensor[:, :columns]


def _whole(buffer: Buffer) -> tuple[int, ...]:
    return tuple(size for size in buffer.shape if isinstance(size, int))
