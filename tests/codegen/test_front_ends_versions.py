"""Every shader of RWKV-4, 5 and 6, bare and hooked, before both WGSL front ends.

As test_front_ends.py does it for RWKV-7 and users' graphs.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from rwkvgraph import Hooks, ops, v4, v5, v6
from rwkvgraph.compiler import compile
from rwkvgraph.gpu import Context
from rwkvgraph.graph import Graph
from rwkvgraph.model import Model
from rwkvgraph.op import Buffer, Role
from rwkvgraph.testing import buffers_of, holding
from tests.codegen.test_front_ends import (
    NEEDS_TINT,
    Peak,
    Shader,
    Wave,
    accesses_of,
    check_naga,
    check_tint,
    targets,
)
from tests.rwkvgraph.models.synthetic import synthetic

VERSIONS = ("v4", "v5.0", "v5.2", "v6")
# (head size, width, hidden, vocabulary, ranks of V6): wide and narrow heads, whole blocks of weights and not
SHAPES = [(64, 128, 256, 48, (32, 64)), (5, 15, 7, 3, (3, 2))]
FEWEST = {"v4": 15, "v5.0": 15, "v5.2": 15, "v6": 20}
"""Distinct shaders that a version has at least, whichever the target: so that some were looked at."""


def hooks(version: str, width: int, size: int) -> Hooks:
    """Hooks that read, replace and capture, around every kind of pass."""
    made, seen = Hooks(), Buffer("seen", (3, width))

    @made.on(v4.PreAttTimeMix)
    def before_the_recurrence(frame: v4.Frame) -> None:
        by_head = frame.att_r.reshape(frame.x.shape[0], width // size, size)
        frame.att_r = ops.identity(ops.softmax(by_head).reshape(*frame.x.shape))
        frame.att_v = Wave(Peak(frame.att_v).result).result

    @made.on(v4.PostAttTimeMix)
    def behind_it(frame: v4.Frame, layer: int) -> None:
        frame.att_x = Peak(frame.att_x).result
        ops.blit(frame.att_x[-1], seen[0])
        ops.blit(frame.state.wkv[-1][0], seen[2])

    @made.on(v4.PostFfn)
    def on_the_stream(frame: v4.Frame) -> None:
        ops.blit(frame.x[-1], seen[1])
        frame.x = Wave(frame.x + holding(np.ones(width))).result

    if version not in ("v4", "v5.0"):

        @made.on(v5.PreAttGate)
        def on_the_gate(frame: v5.Frame) -> None:
            frame.att_g = ops.tanh(frame.att_g)

    if version == "v6":

        @made.on(v6.PreAttTokenShiftAdapt, v6.PostAttTokenShiftAdaptActivate, v6.PreAttGatedTokenShift)
        def in_the_mixing(frame: v6.Frame) -> None:
            frame.att_xx = Wave(frame.att_xx).result

        @made.on(v6.PreAttTimeDecayActivate, v6.PostAttTimeDecayActivate)
        def on_the_decay(frame: v6.Frame) -> None:
            frame.time_decay = ops.sigmoid(frame.time_decay)

    return made


def graphs(version: str, in_textures: bool) -> Iterator[tuple[Graph, Hooks | None]]:
    for size, width, hidden, vocab, ranks in SHAPES:
        low_rank = ranks if version == "v6" else None
        tensors = synthetic(version, 2, width, head_size=size, hidden=hidden, vocab=vocab, low_rank=low_rank)
        graph = Model.load(tensors, device="cpu").graph
        for buffer in buffers_of(graph):
            buffer.is_texture = in_textures and buffer.role is Role.WEIGHT and buffer.name != "emb"
        yield graph, None
        if in_textures == (size == 5):  # each shape hooked in one of the two: that is enough, and halves it
            yield graph, hooks(version, width, size)


@cache
def shaders(dialect: str) -> tuple[Shader, ...]:
    """Every distinct shader of all versions for a front end."""
    found: dict[str, Shader] = {}
    for version in VERSIONS:
        looked_at: set[str] = set()
        for target in targets(dialect):
            for graph, added in graphs(version, in_textures=target.kind == "cpu"):
                for source in compile(graph, added, target).sources():
                    looked_at.add(source.text)
                    label = f"{len(found)} {version} {source.label}"
                    found.setdefault(source.text, (label, source.text, accesses_of(source)))
        assert len(looked_at) >= FEWEST[version]
    return tuple(found.values())


@NEEDS_TINT
def test_tint_accepts_every_shader_and_refuses_bad_ones(tmp_path: Path) -> None:
    check_tint(shaders("tint"), tmp_path)


def test_naga_accepts_every_shader_and_refuses_bad_ones(gpu: Context, tmp_path: Path) -> None:
    check_naga(shaders("naga"), gpu, tmp_path)


def test_the_shaders_of_5_1_are_those_of_5_2() -> None:
    target = next(targets("naga"))
    one, other = (
        [
            source.text
            for graph, added in graphs(version, False)
            for source in compile(graph, added, target).sources()
        ]
        for version in ("v5.1", "v5.2")
    )
    assert one == other
