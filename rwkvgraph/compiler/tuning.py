"""Choices that change speed and never results, by kind of device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rwkvgraph.compiler.target import Limits, Target
from rwkvgraph_codegen import Shape, workgroup_bytes


@dataclass(frozen=True)
class Tuning:
    """Numbers that kernels are built with.

    row_threads: threads that reduce a row, a power of two. sample_threads: threads that draw a token of a row
    of logits, a power of two up to 1024; 256 where a workgroup may not have more. matmul: kernels, the best
    first; a run takes the first that is meant for its tokens, makes enough workgroups and fits the device;
    the last serves all. weights_in_textures: whether matrices are read from textures instead of buffers.
    """

    row_threads: int
    sample_threads: int
    matmul: tuple[Shape, ...]
    weights_in_textures: bool = False


def tuning_for(target: Target) -> Tuning:
    """The measured choices for a target."""
    if target.kind == "cpu" and target.lanes >= 8:
        return CPU
    if target.kind == "cpu":
        return CPU_NARROW
    return GPU


def kernels_for(target: Target, rows: Sequence[int]) -> list[tuple[Shape, int | None]]:
    """Kernels for matrices of so many rows side by side, each with the most tokens it takes; None: any."""
    shapes = [shape for shape in tuning_for(target).matmul if fits(shape, target.limits)]
    firsts = sorted({1} | {tokens for shape in shapes for tokens in _changes(shape, rows)})
    found = [(next(shape for shape in shapes if _suits(shape, rows, first)), first) for first in firsts]
    kernels: list[tuple[Shape, int | None]] = []
    for (shape, _), later in zip(found, [*found[1:], None], strict=True):
        if later is None or later[0] != shape:
            kernels.append((shape, None if later is None else later[1] - 1))
    return kernels


def fits(shape: Shape, limits: Limits) -> bool:
    """Whether a device can run the kernel of a shape."""
    most = min(limits.max_workgroup_invocations, limits.max_workgroup_size_x)
    return shape.threads <= most and workgroup_bytes(shape) <= limits.max_workgroup_storage


def _suits(shape: Shape, rows: Sequence[int], tokens: int) -> bool:
    is_within = shape.max_tokens is None or tokens <= shape.max_tokens
    return is_within and shape.groups(rows, tokens) >= shape.min_groups


def _changes(shape: Shape, rows: Sequence[int]) -> list[int]:
    """The numbers of tokens from which on a kernel begins, or ceases, to suit."""
    turns = -(-shape.min_groups // shape.groups(rows, 1))
    begins = max(0, turns - 1) * shape.group_tokens + 1
    return [begins] if shape.max_tokens is None else [begins, shape.max_tokens + 1]


# llvmpipe (2 cores, AVX2), multiply-adds a second: a load from a buffer is a loop over the lanes, one from
# a texture is not, so textures give 2.7 G for one token where buffers give 0.6 G, and 14 G for many where
# buffers give 6 G. Two tokens in the kernel for 16 take 1.3 times as long as one in its own, seven 1.6 times.
CPU = Tuning(
    8,
    8,
    (
        Shape("lanes", 8, 8, 1, max_tokens=1),
        Shape("lanes", 8, 16, 16),
    ),
    weights_in_textures=True,
)
CPU_NARROW = Tuning(
    8,
    8,
    (
        Shape("split", 32, 4, 1, max_tokens=1),
        Shape("split", 32, 4, 4, max_tokens=7),
        Shape("tile", 64, 4, 4, unroll=2),
    ),
    weights_in_textures=True,
)

# One NVIDIA H200, f16 weights, each kernel alone. One token: 1.6, 3.0, 3.2, 2.6, 4.3 TB/s for 2048x2048,
# 6432x2048, 8192x2048, 2048x8192, 65536x2048 (a plain copy kernel: 3.9, a reading one: 4.6), without
# subgroups up to 5 % less. Two and four cost 1.1 times what one does, 8 twice, 32 five to seven times
# (16 TFLOP/s): four tokens a workgroup, and those of the same rows side by side, so that memory is read once
# and the cache serves the others. Eight tokens a workgroup, or more rows, are 5 to 30 % slower; 32, with each
# weight loaded by one thread alone, are 2.5 times slower (registers), tiles in workgroup memory 1.5 times.
# From five tokens on come teams, in an order that was worked out and is yet to be measured.
# More tokens: tiles of 64x64 where those make 200 workgroups or more, else most of the GPU is idle, and each
# workgroup's walk along K is long: with 128 tokens 195 instead of 440 us for 8192x2048, 830 instead of 320
# for 2048x8192. Eight rows a workgroup are 1.1 to 1.4 times faster than four from 64 tokens on.
# 1024 tokens: 27 to 30 TFLOP/s with tiles of 64x64, 34 with 128x64 where those make 600 workgroups and more;
# with 256 of them 24. Tiles of 128x128 (256 threads) reach 34 and, on small matrices, 24; 64x128 and 128x128
# of 64 threads 33 and 6 (registers).
GPU = Tuning(
    256,
    1024,
    (
        Shape("split", 128, 4, 1, max_tokens=1),
        Shape("split", 64, 4, 4, max_tokens=4),
        Shape("team", 128, 4, 8, max_tokens=8, min_groups=200, wide=8, teams=16, depth=128, ahead=2),
        Shape("team", 128, 4, 8, max_tokens=8, wide=4, teams=32, depth=128, ahead=2),
        Shape("team", 256, 8, 8, max_tokens=16, min_groups=100, wide=8, teams=16, depth=64, ahead=2),
        Shape("team", 256, 4, 8, max_tokens=16, wide=4, teams=32, depth=128),
        Shape("team", 256, 8, 8, max_tokens=32, min_groups=100, wide=8, teams=8, depth=64, ahead=2),
        Shape("team", 256, 8, 8, min_groups=600, wide=16, depth=16, buffers=2),
        Shape("team", 256, 8, 8, min_groups=100, wide=8, teams=8, depth=64),
        Shape("team", 256, 4, 8, max_tokens=96, wide=4, teams=16, depth=64),
        # For devices with less workgroup memory, as browsers give.
        Shape("split", 64, 4, 4, max_tokens=16),
        Shape("team", 128, 8, 8, max_tokens=32, min_groups=100, wide=8, teams=4, depth=32),
        Shape("split", 64, 4, 4, max_tokens=32),
        Shape("tile", 64, 16, 8, unroll=2, min_groups=600),
        Shape("tile", 64, 8, 8, unroll=2, min_groups=200),
        Shape("team", 128, 8, 8, min_groups=100, wide=8, teams=4, depth=32),
        Shape("split", 64, 8, 4),
    ),
)
