"""The kernels of the matrix product: the family of a shape decides which of five modules writes one."""

from __future__ import annotations

from functools import cache

from rwkvgraph_codegen.matmul_lanes import lanes
from rwkvgraph_codegen.matmul_layout import Layout
from rwkvgraph_codegen.matmul_matrix import matrix
from rwkvgraph_codegen.matmul_shape import DECODE, Shape
from rwkvgraph_codegen.matmul_share import share
from rwkvgraph_codegen.matmul_split import split
from rwkvgraph_codegen.matmul_team import team
from rwkvgraph_codegen.matmul_units import Tile, Units


@cache
def matmul_main(
    shape: Shape,
    subgroups: bool,
    prepares: bool = False,
    keeps: bool = False,
    looks: bool = False,
    units: Units = "none",
    later: bool = False,
) -> str:
    """The entry point for a shape, with what it needs of workgroup memory.

    prepares: whether it calls `prepare` first; keeps, looks: whether `keep`, `look_ahead`. Only
    "split" heeds these; "share" calls `prepare` in any case. units: who multiplies the matrices of "matrix".
    later: whether `adding` goes on with what workgroups that share a tile have; for "matrix" it does always.
    """
    match shape.family:
        case "split":
            return f"{DECODE}\n{split(shape, subgroups, prepares, keeps, looks)}"
        case "lanes":
            return f"{DECODE}\n{lanes(shape)}"
        case "matrix":
            return matrix(shape, units)
        case "share":
            return f"{DECODE}\n{share(shape)}"
        case _:
            return f"{DECODE}\n{team(shape, later)}"


def uses_subgroups(shape: Shape, available: bool) -> bool:
    """Whether the kernel of a shape calls subgroup functions that every dialect has."""
    return available and shape.family in ("split", "lanes")


def workgroup_bytes(shape: Shape, units: Units = "native") -> int:
    """Workgroup memory that the kernel of a shape takes."""
    match shape.family:
        case "split":
            return shape.threads * shape.rows * shape.tokens * 4
        case "lanes":
            return 0
        case "matrix":
            return Tile(shape, units).nbytes
        case _:
            return Layout(shape).nbytes
