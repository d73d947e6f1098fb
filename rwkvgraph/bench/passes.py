"""Where the time of a run goes: its passes by kind, equal ones of all layers together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from rwkvgraph.compiler.program import Program
from rwkvgraph.gpu.runner import Prepared, Runner
from rwkvgraph.op import Buffer, Role
from rwkvgraph.sight.stages import Lowered
from rwkvgraph.sight.timing import time_steps
from rwkvgraph.sight.traffic import Traffic, traffic_of
from rwkvgraph.view import Sizes

Grid = tuple[int, int, int]


@dataclass(frozen=True)
class PassTime:
    """One pass of a run. nbytes: read and written, as `Traffic` counts."""

    label: str
    shader: str
    layer: int | None
    microseconds: float
    nbytes: int
    workgroups: Grid


@dataclass(frozen=True)
class PassKind:
    """Passes of one label, shader, size and grid."""

    passes: tuple[PassTime, ...]

    @property
    def label(self) -> str:
        """Their operations."""
        return self.passes[0].label

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that they are in; none for those of no layer."""
        return tuple(item.layer for item in self.passes if item.layer is not None)

    @property
    def median(self) -> float:
        """Microseconds of one of them."""
        return median(item.microseconds for item in self.passes)

    @property
    def total(self) -> float:
        """Microseconds of all."""
        return sum(item.microseconds for item in self.passes)

    @property
    def nbytes(self) -> int:
        """Of each."""
        return self.passes[0].nbytes

    @property
    def workgroups(self) -> Grid:
        """Of each."""
        return self.passes[0].workgroups

    @property
    def gigabytes_per_second(self) -> float:
        """While they ran; 0 where that was too short to be told."""
        return len(self.passes) * self.nbytes / self.total / 1e3 if self.total else 0.0


@dataclass(frozen=True)
class PassTimes:
    """Every pass of a run, and how they were timed."""

    passes: tuple[PassTime, ...]
    method: str

    @property
    def total(self) -> float:
        """Microseconds of all."""
        return sum(item.microseconds for item in self.passes)

    def kinds(self) -> tuple[PassKind, ...]:
        """What takes longest first."""
        found: dict[object, list[PassTime]] = {}
        for item in self.passes:  # sizes tell a matrix from another that the same shader multiplies by
            key = item.label, item.shader, item.nbytes, item.workgroups
            found.setdefault(key, []).append(item)
        kinds = [PassKind(tuple(items)) for items in found.values()]
        return tuple(sorted(kinds, key=lambda kind: -kind.total))


def time_program(runner: Runner, steps: Prepared, sizes: Sizes) -> PassTimes:
    """Time each pass of a run whose inputs are in place."""
    microseconds, method = time_steps(runner.context, steps)
    traffic = traffic_by_pass(runner.program, steps, sizes)
    found = []
    for index, step in zip(steps.passes, steps.steps, strict=True):
        item, moved = runner.program.passes[index], traffic[index]
        shader = item.variant(sizes).source.text
        nbytes = moved.read + moved.written
        found.append(PassTime(item.label, shader, item.layer, microseconds[index], nbytes, step.grid))
    return PassTimes(tuple(found), method)


def traffic_by_pass(program: Program, steps: Prepared, sizes: Sizes) -> dict[int, Traffic]:
    """What each pass of a run reads and writes."""
    passes = ((index, program.passes[index]) for index in steps.passes)
    return {
        index: traffic_of(Lowered(item, item.group, index, index), program.plan, sizes)
        for index, item in passes
    }


def bytes_moved(program: Program, steps: Prepared, sizes: Sizes) -> Mapping[Role, int]:
    """Bytes of a run by the role of the buffer that they lie in, read and written; scratch memory aside."""
    found = dict.fromkeys(Role, 0)
    for moved in traffic_by_pass(program, steps, sizes).values():
        for side in (moved.reads, moved.writes):
            for home, count in side.items():
                if isinstance(home, Buffer):
                    found[home.role] += count
    return found
