"""Which kernels of the matrix product are best on a device, measured for a model's matrices and put in order.

The order is a table as `Tuning` has it: the first kernel that is meant for a run's tokens and makes enough
workgroups.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from rwkvgraph.bench.products import Case, Product, Run
from rwkvgraph.bench.steady import AGREEMENT, Rounds, Samples
from rwkvgraph.compiler import compile
from rwkvgraph.compiler.target import Target
from rwkvgraph.compiler.tuning import is_usable, kernel_of, suits, takes, tuning_for
from rwkvgraph.gpu.context import Context
from rwkvgraph.load.reader import Reader
from rwkvgraph.ops.matmul import Matmul
from rwkvgraph.sight.stages import subject_of
from rwkvgraph_codegen import MOST_HANDED, Shape

NUMBERS = 1e-5
"""Of the largest result: kernels add up thousands of float32 in other orders; an H200 was off by 5e-7."""
BY_MATRICES = 1e-4
"""The same by matrix units: they cut off what does not fit a sum, an H200's 6e-6 of 2048 columns, and more of
more."""
MOST_RULES = 3
"""Kernels for one number of tokens, by the workgroups that they make."""

MOST_SPLIT = 512
"""Workgroups that share tiles in a candidate, four for each of 128 processors: more need not share."""

MOST_TILES = 32
"""Of tokens side by side in a candidate: with more of them a larger tile is always better."""
TOKENS = {"gpu": (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024), "cpu": (1, 4, 16, 64)}
"""Measured; up to each, and from the one before, its kernels are taken; beyond, the last ones."""


def _team(
    threads: int, rows: int, wide: int, teams: int, depth: int, buffers: int = 1, ahead: int = 1
) -> Shape:
    return Shape("team", threads, rows, 8, wide=wide, teams=teams, depth=depth, buffers=buffers, ahead=ahead)


def _split_tiles(shape: Shape, splits: int) -> Shape:
    """A kernel of which several workgroups share a tile."""
    room = MOST_HANDED // (shape.group_rows * shape.group_tokens * 4)
    return replace(shape, splits=splits, max_groups=min(MOST_SPLIT, room))


CANDIDATES = {
    "gpu": (
        *(Shape("split", threads, 4, 1) for threads in (32, 64, 128, 256)),
        *(Shape("split", threads, 4, 4) for threads in (32, 64, 128)),
        Shape("split", 64, 8, 4),
        Shape("split", 64, 4, 8),
        _team(256, 4, 16, 16, 128, ahead=2),
        _team(128, 4, 4, 32, 128, ahead=2),
        _team(256, 4, 16, 8, 64, ahead=2),
        _team(256, 8, 8, 16, 128),
        _team(256, 4, 4, 32, 128, ahead=2),
        _team(256, 4, 8, 8, 64, ahead=2),
        _team(256, 4, 4, 16, 128, ahead=2),
        _team(128, 8, 4, 8, 64, ahead=2),
        _team(128, 8, 8, 4, 32, ahead=2),
        _team(256, 8, 8, 8, 64, ahead=2),
        _team(256, 8, 16, 4, 32),
        _team(256, 8, 8, 4, 64),
        _team(128, 8, 8, 2, 32),
        _team(256, 8, 16, 2, 32),
        _team(128, 8, 16, 1, 16),
        _team(256, 8, 16, 1, 16),
        _team(256, 8, 16, 1, 16, buffers=2),
        _split_tiles(_team(256, 4, 16, 8, 64, ahead=2), 8),
        *(_split_tiles(_team(256, 4, 8, 8, 64, ahead=2), splits) for splits in (4, 16)),
        *(_split_tiles(_team(256, 8, 8, 8, 64, ahead=2), splits) for splits in (2, 8)),
        *(_split_tiles(_team(256, 8, 16, 2, 32), splits) for splits in (2, 8)),
        *(_split_tiles(Shape("matrix", 256, 16, 32, wide=4, teams=2, depth=128), n) for n in (2, 8)),
        Shape("matrix", 256, 32, 32, wide=2, teams=4, depth=128),
        Shape("matrix", 256, 32, 64, wide=4, depth=32),
        Shape("matrix", 512, 16, 32, wide=4, teams=4, depth=64),
        Shape("matrix", 512, 32, 32, wide=4, depth=32),
    ),
    "cpu": (
        *(Shape("lanes", 8, *size) for size in ((8, 1), (16, 1), (8, 4), (8, 16), (16, 16))),
        *(Shape("split", 32, rows, tokens) for rows, tokens in ((4, 1), (4, 4), (8, 4))),
        Shape("split", 8, 8, 8),
    ),
}
"""What an H200 and llvmpipe were fastest with for some matrix and number of tokens, and their neighbours."""


@dataclass(frozen=True)
class Trial:
    """A pass with some tokens. kernel: the one that is taken as it is. count: passes like it in a model.

    times: of each kernel whose numbers were right. wrong: how far off the others were.
    """

    case: Case
    count: int
    tokens: int
    kernel: Shape
    times: dict[Shape, Samples]
    wrong: dict[Shape, float]

    @property
    def best(self) -> Shape:
        """The fastest kernel."""
        return min(self.times, key=self.seconds)

    def seconds(self, shape: Shape) -> float:
        """Of all passes of the case, by a kernel; no end of them by one that was wrong or not tried."""
        return self.count * self.times[shape].median if shape in self.times else float("inf")


Rules = tuple[tuple[Shape, int], ...]
"""Kernels for one number of tokens, each with the least workgroups that it is taken for: the first that makes
them is, and the last always."""


def cases_of(reader: Reader, target: Target) -> dict[Case, int]:
    """A model's passes of matrix products, and how often each is in it. Nothing of its weights is read."""
    program = compile(subject_of(reader, target).graph, None, target)
    found: dict[Case, int] = {}
    for group in dict.fromkeys(item.group for item in program.passes if item.group.kind == "matmul"):
        products = [op for op in group.ops if isinstance(op, Matmul)]
        sizes = [(tuple(_rows(part.shape) for part in op.w.parts), op.w.shape[1]) for op in products]
        case = Case(tuple(sizes))
        found[case] = found.get(case, 0) + 1
    return found


def _rows(shape: Sequence[object]) -> int:
    assert isinstance(shape[0], int), "a matrix has no symbolic axis"
    return shape[0]


def tune(
    context: Context, cases: Mapping[Case, int], tokens: Sequence[int], rounds: Rounds
) -> Iterator[Trial]:
    """Measure every candidate for every case and number of tokens."""
    for case, count in cases.items():
        weights = Product(context, case)
        for number in tokens:
            yield _trial(weights.run(number), case, count, number, rounds, context.target)


def _trial(run: Run, case: Case, count: int, tokens: int, rounds: Rounds, target: Target) -> Trial:
    """The kernel as it is warms the device up, and says what is right."""
    table = [shape for shape in tuning_for(target).matmul if is_usable(shape, target)]
    kernel = next(kernel_of(s) for s in table if suits(s, case.rows, tokens) and run.can(kernel_of(s)))
    wanted = run.values(kernel)
    times, wrong = {kernel: run.measure(kernel, rounds)}, {}
    for shape in candidates(target, tokens):
        if shape == kernel or not run.can(shape):
            continue
        error = float(np.abs(run.values(shape) - wanted).max() / np.abs(wanted).max())
        if error <= (BY_MATRICES if shape.family == "matrix" else NUMBERS):  # not so for what is no number
            times[shape] = run.measure(shape, replace(rounds, warm_up=0.0))
        else:
            wrong[shape] = error
    return Trial(case, count, tokens, kernel, times, wrong)


def candidates(target: Target, tokens: int) -> list[Shape]:
    """Kernels that a device can run, whose tiles are neither half empty nor many side by side."""
    known = [*CANDIDATES[target.kind], *map(kernel_of, tuning_for(target).matmul)]
    return [
        shape
        for shape in dict.fromkeys(known)
        if is_usable(shape, target)
        and shape.group_tokens <= max(4, 2 * tokens)
        and tokens <= MOST_TILES * shape.group_tokens
    ]


def table_of(trials: Sequence[Trial]) -> tuple[Shape, ...]:
    """The best kernels for each number of tokens in one order. None that was ever wrong is in it."""
    wrong = {shape for trial in trials for shape in trial.wrong}
    found: list[tuple[int, Rules]] = []
    for tokens in sorted({trial.tokens for trial in trials}):
        rules = rules_for([trial for trial in trials if trial.tokens == tokens], wrong)
        if found and found[-1][1] == rules:
            found.pop()
        found.append((tokens, rules))
    most = [*(tokens for tokens, _ in found[:-1]), None]
    return tuple(
        replace(shape, max_tokens=tokens, min_groups=least)
        for tokens, (_, rules) in zip(most, found, strict=True)
        for shape, least in rules
    )


def rules_for(trials: Sequence[Trial], wrong: Collection[Shape] = ()) -> Rules:
    """The fastest kernels for trials of one number of tokens, those that were wrong elsewhere left out.

    As few as possible: one more has to save a few per cent of all.
    """
    shapes = list(dict.fromkeys(s for trial in trials for s in trial.times if s not in wrong))
    always = [s for s in shapes if not s.max_groups]
    made = {s: [s.groups(trial.case.rows, trial.tokens) for trial in trials] for s in shapes}
    cost = {s: [trial.seconds(s) for trial in trials] for s in shapes}

    def total(rules: Rules) -> float:
        return sum(
            next(cost[s][at] for s, least in rules if takes(s, made[s][at], least))
            for at in range(len(trials))
        )

    limited = [(s, least) for s in shapes for least in sorted(set(made[s]))]
    best: Rules = min([((s, 0),) for s in always], key=total)
    for more in range(1, MOST_RULES):
        orders: Iterator[Rules] = (
            (*first, (s, 0)) for first in product(limited, repeat=more) for s in always
        )
        longer = min(orders, key=total)
        if total(longer) > (1 - AGREEMENT) * total(best):
            break
        best = longer
    return best


def chosen_by(table: Sequence[Shape], trial: Trial) -> Shape:
    """The kernel that a table chooses for a trial."""
    return kernel_of(next(s for s in table if suits(s, trial.case.rows, trial.tokens)))
