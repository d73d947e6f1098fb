"""Choices that change speed and never results, by kind of device."""

from __future__ import annotations

from dataclasses import dataclass

from rwkvgraph.compiler.target import Target


@dataclass(frozen=True)
class Tuning:
    """Numbers that kernels are built with.

    row_threads: threads that reduce a row, a power of two. vector: the template for few tokens, `vector_threads` a
    workgroup. tile: the template for many. tile_from: the number of tokens from which tiles are used.
    """

    row_threads: int
    vector: str
    vector_threads: int
    vector_rows: int
    tile: str
    tile_threads: int
    tile_rows: int
    tile_tokens: int
    tile_from: int


def tuning_for(target: Target) -> Tuning:
    """The measured choices for a target."""
    if target.kind == "cpu":
        return CPU
    return GPU_SUBGROUPS if target.subgroups else GPU


CPU = Tuning(8, "matmul_vector", 64, 4, "matmul_tile", 64, 32, 32, 16)
GPU = Tuning(256, "matmul_vector", 64, 4, "matmul_tile", 64, 32, 32, 16)
GPU_SUBGROUPS = GPU
