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
from rwkvgraph.compiler.program import Program
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.tuning import suits, tuning_for
from rwkvgraph.gpu.context import Context
from rwkvgraph.gpu.memory import AnyMemory, DeviceMemory, memory_for
from rwkvgraph.gpu.runner import Prepared, Runner
from rwkvgraph.graph import Graph
from rwkvgraph.op import Array, Buffer, DType, Role, Tensor, tape
from rwkvgraph.ops import blit, matmul
from rwkvgraph.quant import BLOCK, Fp16, Matrix
from rwkvgraph.view import LANES, Dim, View, round_up
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
    """A case's weights on a device, several times: in one buffer, as in a model, if it may be so large."""

    def __init__(self, context: Context, case: Case) -> None:
        self.context = context
        self.case = case
        self.weights = _weights(case, context.target)
        buffers = list(dict.fromkeys(_source(part) for parts in self.weights for part in parts))
        nbytes = sum(prod(_whole(buffer)) * 2 for buffer in buffers)
        count = max(1, min(MOST_COPIES, COPIES_BYTES[context.target.kind] // nbytes))
        self.copies = [dict(_filled(context, buffers)) for _ in range(count)]

    def run(self, tokens: int) -> Run:
        """Runs of so many tokens."""
        return Run(self, tokens)


class Run:
    """Runs of some tokens over a product's weights; inputs are side by side in one buffer, so are results."""

    def __init__(self, product: Product, tokens: int) -> None:
        self.context, self.case, self.tokens = product.context, product.case, tokens
        widths = [round_up(columns, LANES) for _, columns in product.case.matrices]
        heights = [round_up(sum(parts), LANES) for parts, _ in product.case.matrices]
        self.x, self.y = Buffer("x", (tokens, sum(widths))), Buffer("y", (tokens, sum(heights)))
        with tape() as items:
            for at, ((rows, columns), parts) in enumerate(
                zip(product.case.matrices, product.weights, strict=True)
            ):
                left, top = sum(widths[:at]), sum(heights[:at])
                given = self.x.tensor[:, left : left + columns]
                blit(matmul(Matrix(Fp16(), tuple(parts)), given), self.y.tensor[:, top : top + sum(rows)])
        self._graph = Graph(tuple(items))
        self._memory = {buffer: DeviceMemory(self.context, buffer, {}) for buffer in (self.x, self.y)}
        random = np.random.default_rng(tokens)
        self._memory[self.x].write(random.normal(size=_whole(self.x)).astype(np.float32))
        self._memory[self.y].write(np.zeros(_whole(self.y), np.float32))
        self._copies = [Copy({**weights, **self._memory}) for weights in product.copies]
        self._runners: dict[Shape, Runner] = {}

    def can(self, shape: Shape) -> bool:
        """Whether it is this kernel that a run takes where it is the first of a table."""
        if not suits(shape, self.case.rows, self.tokens):
            return False
        variant = self._program(shape).passes[0].variants[0]
        is_split = variant.after is not None or "fn count(" in variant.source.text
        is_matrix = "var<workgroup> matrix" in variant.source.text
        return (is_split, is_matrix) == (shape.splits > 1, shape.family == "matrix")

    def _program(self, shape: Shape) -> Program:
        return compile(self._graph, None, replace(self.context.target, matmul=(shape,)))

    def values(self, shape: Shape) -> Array:
        """All results by a kernel, in a row."""
        self._memory[self.y].write(
            np.full(_whole(self.y), np.nan, np.float32)
        )  # so that what nobody writes shows
        self._seconds(self._prepared(shape, 1))
        y, top = self._memory[self.y].read().reshape(_whole(self.y)), 0
        found = []
        for parts, _ in self.case.matrices:
            found.append(y[:, top : top + sum(parts)].reshape(-1))
            top += round_up(sum(parts), LANES)
        return np.concatenate(found)

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
            nothing = Buffer("nothing", (NONE, 1), DType.F32, Role.OUTPUT)
            self._runners[shape] = Runner(self.context, self._program(shape), {}, nothing)
        runner = self._runners[shape]
        copies = islice(cycle(self._copies), repeats)
        runs = [runner.steps({NONE: 0}, copy, copy.memory) for copy in copies]
        steps = [step for run in runs for step in run.steps]
        return Prepared(tuple(range(len(steps))), steps, self.context.driver.prepare(steps))


def _weights(case: Case, target: Target) -> list[list[Tensor]]:
    """The parts of each matrix, in as few buffers as a binding's size allows."""
    sizes = [rows * round_up(columns, BLOCK) for parts, columns in case.matrices for rows in parts]
    homes: list[list[int]] = [[]]
    for size in sizes:
        if homes[-1] and 2 * (sum(homes[-1]) + size) > target.limits.most_bytes:
            homes.append([])
        homes[-1].append(size)
    buffers = [Buffer("w", (sum(home),), DType.F16) for home in homes]
    for buffer in buffers:
        buffer.is_texture = tuning_for(target).weights_in_textures
    places = (
        (buffer, sum(home[:at]))
        for buffer, home in zip(buffers, homes, strict=True)
        for at in range(len(home))
    )
    found = []
    for parts, columns in case.matrices:
        views = [(next(places), View((rows, columns), (round_up(columns, BLOCK), 1), 0)) for rows in parts]
        found.append([Tensor(buffer, replace(view, offset=at), DType.F16) for (buffer, at), view in views])
    return found


def _source(part: Tensor) -> Buffer:
    assert isinstance(part.source, Buffer), "weights live in buffers"
    return part.source


def _filled(context: Context, buffers: Sequence[Buffer]) -> Iterator[tuple[Buffer, AnyMemory]]:
    noise = np.random.default_rng(0).normal(0.0, 0.02, NOISE).astype(np.float16)
    for buffer in buffers:
        memory = memory_for(context, buffer)
        memory.fill(0, np.resize(noise, prod(_whole(buffer))))
        yield buffer, memory


def _whole(buffer: Buffer) -> tuple[int, ...]:
    return tuple(size for size in buffer.shape if isinstance(size, int))
