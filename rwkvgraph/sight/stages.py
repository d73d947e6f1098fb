"""Every stage of one compilation, kept side by side, and what connects them.

Stages hand on operations, not their history. So the tape is marked before it is compiled: an operation's
`where`, which every stage carries along, gets its place on the tape as built.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from rwkvgraph.compiler import (
    Fused,
    Group,
    Pass,
    Plan,
    Program,
    Simplified,
    Target,
    compile_stages,
)
from rwkvgraph.graph import Graph
from rwkvgraph.hook import Hook, Site
from rwkvgraph.hooks import Hooks
from rwkvgraph.load.reader import Reader
from rwkvgraph.model import arena_for
from rwkvgraph.models import detect
from rwkvgraph.models.arena import Arena
from rwkvgraph.models.common import Inputs, ModelInfo
from rwkvgraph.op import Buffer, Tensor, TensorOp

STAGES = ("build", "splice", "simplify", "fuse", "plan", "program")


class Place(str):
    """`file:line` of an operation, and its position on the tape as built."""

    position: int

    @classmethod
    def of(cls, where: str, position: int) -> Place:
        """That place."""
        made = cls(where)
        made.position = position
        return made


@dataclass(frozen=True, eq=False)
class Subject:
    """What is looked at: a model's graph as built, its numbers, and which tensor lies where.

    tensors: names in the file by buffer name and first element.
    """

    info: ModelInfo
    graph: Graph
    tensors: Mapping[tuple[str, int], str]
    source: str


@dataclass(frozen=True, eq=False)
class Lowered:
    """A pass, the group it runs, and their positions in the program."""

    item: Pass
    group: Group
    index: int
    group_index: int


@dataclass(frozen=True, eq=False)
class Stages:
    """The values of all stages of one compilation."""

    subject: Subject
    hooks: Hooks
    target: Target
    build: Graph
    splice: Graph
    simplified: Simplified
    fused: Fused
    plan: Plan
    lowered: tuple[Lowered, ...]
    program: Program

    def value(self, stage: str) -> Graph | Simplified | Fused | Plan | Program:
        """A stage's value; `str` of it is its text. Raises ValueError for a name that is none."""
        values: dict[str, Graph | Simplified | Fused | Plan | Program] = {
            "build": self.build,
            "splice": self.splice,
            "simplify": self.simplified,
            "fuse": self.fused,
            "plan": self.plan,
            "program": self.program,
        }
        if stage not in values:
            raise ValueError(f"there is no stage {stage!r}, only {', '.join(STAGES)}")
        return values[stage]

    @cached_property
    def slot_names(self) -> dict[int, tuple[str, ...]]:
        """The frame slots that hold each operation's result at some site, by its position as built."""
        found: dict[int, dict[str, None]] = {}
        for site in self.build.sites():
            for name, tensor in site.slots.items():
                at = position(tensor.source) if isinstance(tensor.source, TensorOp) else None
                if at is not None and tensor.is_whole:
                    found.setdefault(at, {})[name] = None
        return {at: tuple(names) for at, names in found.items()}

    @cached_property
    def spliced(self) -> frozenset[int]:
        """`id`s of the operations of any stage that hooks added."""
        return self.splice.spliced | self.simplified.graph.spliced


def look(subject: Subject, hooks: Hooks | None, target: Target) -> Stages:
    """Compile a subject, keeping every stage. Raises what compiling raises."""
    build = subject.graph
    for index, op in enumerate(build.ops):
        object.__setattr__(op, "where", Place.of(op.where, index))
    hooks = hooks or Hooks()
    made = compile_stages(build, hooks, target)
    number = {group: at for at, group in enumerate(made.fuse.groups)}
    lowered = tuple(
        Lowered(item, item.group, index, number[item.group]) for index, item in enumerate(made.program.passes)
    )
    return Stages(
        subject, hooks, target, build, made.splice, made.simplify, made.fuse, made.plan, lowered, made.program
    )


def subject_of(reader: Reader, target: Target) -> Subject:
    """A model's graph from the shapes of its tensors: nothing of its weights is read. Raises LoadError."""
    version = detect(reader)
    info: ModelInfo = version.read_info(reader)
    arena = arena_for(reader, target)
    weights = version.place_weights(info, arena)
    graph, _ = version.build(info, weights, version.make_state(info), Inputs.make(info.num_emb))
    return Subject(info, graph, tensors_of(arena), str(reader.path))


def tensors_of(arena: Arena) -> dict[tuple[str, int], str]:
    """What lies where in an arena's buffers: file names by buffer name and first element."""
    found = {}
    for upload in arena.uploads:
        part = f"[{upload.index}]" if upload.index is not None else ""
        rows = f"[{upload.start}:{upload.stop}]" if upload.start and upload.format else ""
        found[upload.buffer.name, upload.offset] = f"{upload.name}{part}{rows}"
    return found


def position(op: object) -> int | None:
    """Where on the tape as built an operation comes from; None for what hooks added."""
    where = getattr(op, "where", None)
    return where.position if isinstance(where, Place) else None


Beside = dict[int, tuple[list[Site], list[Site]]]
"""By `id` of an operation the sites right before and right after it."""


def sites_by_op(ops: Iterable[TensorOp], build: Graph) -> Beside:
    """Where a model's sites stand among operations of a later stage.

    A site stands after the last operation before it that is left, or, where that is of another layer, before
    the next one that is left.
    """
    known = sorted(((at, op) for op in ops if (at := position(op)) is not None), key=lambda pair: pair[0])
    found: Beside = {}
    passed, upcoming = 0, 0
    for item in build.items:
        if isinstance(item, TensorOp):
            passed = (position(item) or 0) + 1
            continue
        while upcoming < len(known) and known[upcoming][0] < passed:
            upcoming += 1
        layer = getattr(item.hook, "layer", None)
        before = known[upcoming - 1][1] if upcoming else None
        after = known[upcoming][1] if upcoming < len(known) else None
        if before is not None and (before.layer == layer or after is None or after.layer != layer):
            found.setdefault(id(before), ([], []))[1].append(item)
        elif after is not None:
            found.setdefault(id(after), ([], []))[0].append(item)
    return found


def hooked_at(hooks: Hooks, hook: Hook) -> list[str]:
    """The functions at a site, as `name (file:line)`."""
    found = []
    for function in hooks.at(hook):
        code = getattr(function, "__code__", None)
        name = getattr(function, "__qualname__", type(function).__name__)
        place = f" ({code.co_filename.rpartition('/')[2]}:{code.co_firstlineno})" if code else ""
        found.append(f"{name}{place}")
    return found


def tensor_name(tensor: Tensor, tensors: Mapping[tuple[str, int], str]) -> str:
    """What an operand that lies in a buffer is called: the file's name of a weight, or the buffer's."""
    assert isinstance(tensor.source, Buffer), "results of operations are called by their numbers"
    name = tensor.source.name
    return tensors.get((name, tensor.view.offset), name)
