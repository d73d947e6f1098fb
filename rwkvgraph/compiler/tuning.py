"""Choices that change speed and never results, by kind of device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from rwkvgraph.compiler.target import Limits, Target
from rwkvgraph_codegen import Shape, Units, workgroup_bytes


@dataclass(frozen=True)
class Tuning:
    """Numbers that kernels are built with.

    row_threads: threads that reduce a row, a power of two. single_threads: where a run has one row, as far
    as the device allows; held: lanes of it that each of them loads ahead; few_rows: where a run has up to so
    many, they do so too. sample_threads: threads that draw a token of a row of logits, a power of two up to
    1024; 256 where a workgroup may not have more. matmul: kernels, the best first; a run takes the first that
    is meant for its tokens, makes enough workgroups and fits the device; the last serves all.
    weights_in_textures: whether matrices are read from textures instead of buffers. share: the matrix kernel
    of relays, whose threads are those of all their kernels; as many as reduce a row. leg_bytes: matrices of
    so many bytes are read faster by a dispatch of their own.
    single_shares: threads that share a column of a head for a single token, 4, 8 or 16. inline_groups: a
    product of one token that has so many workgroups, or fewer, works out the rows that it multiplies.
    parts: where workgroups share heads, how many threads share a pair of columns, and the most workgroups for
    which they do; the first that suits is taken. part_tokens: the fewest tokens of a slot, on average.
    """

    row_threads: int
    sample_threads: int
    matmul: tuple[Shape, ...]
    weights_in_textures: bool = False
    share: Shape = Shape("share", 256, 4, 1, max_tokens=1, depth=8)
    leg_bytes: int = 9 << 20
    single_shares: int = 16
    inline_groups: int = 1024
    parts: tuple[tuple[int, int], ...] = ((16, 132), (8, 256))
    part_tokens: int = 16
    single_threads: int = 512
    held: int = 2
    few_rows: int = 256


FEW = 8
"""Tokens up to which the kernels of a kind come before those for matrices of subgroups."""


def tuning_for(target: Target) -> Tuning:
    """The measured choices for a target: of its kind, with the kernels that were measured for it, if any."""
    measured = _of_kind(target)
    if target.matmul:
        return replace(measured, matmul=target.matmul)
    if target.matrices == "none":
        return measured
    if not any(shape.family == "matrix" and is_usable(shape, target) for shape in MATRICES):
        return measured
    few = [shape for shape in measured.matmul if (shape.max_tokens or FEW + 1) <= FEW]
    rest = [shape for shape in measured.matmul if shape not in few]
    return replace(measured, matmul=(*few, *MATRICES, *rest))


def _of_kind(target: Target) -> Tuning:
    if target.kind == "cpu" and target.lanes >= 8:
        return CPU
    if target.kind == "cpu":
        return CPU_NARROW
    return GPU


def kernels_for(
    target: Target, rows: Sequence[int], can_split: bool = True, in_one: bool = True
) -> list[tuple[Shape, int | None]]:
    """Kernels for matrices of so many rows side by side, each with the most tokens it takes; None: any.

    can_split: whether there is room for what workgroups of a tile hand over. in_one: whether the matrices
    are in one buffer; with seven of them, each load a choice, matrices of subgroups took eight times as long.
    """
    shapes = [shape for shape in tuning_for(target).matmul if is_usable(shape, target)]
    shapes = [shape for shape in shapes if can_split or shape.splits == 1]
    shapes = [shape for shape in shapes if in_one or shape.family != "matrix"]
    shapes.append(_of_kind(target).matmul[-1])  # a table of a file may end with a kernel that was left out
    return list(_chosen(tuple(shapes), tuple(rows)))


@lru_cache(maxsize=256)
def _chosen(shapes: tuple[Shape, ...], rows: tuple[int, ...]) -> tuple[tuple[Shape, int | None], ...]:
    """The kernels of a table, as `kernels_for` gives them; layers that are alike ask for the same."""
    firsts = sorted({1} | {tokens for shape in shapes for tokens in _changes(shape, rows)})
    chosen = [next(shape for shape in shapes if suits(shape, rows, first)) for first in firsts]
    found = list(zip(map(kernel_of, chosen), firsts, strict=True))
    kernels: list[tuple[Shape, int | None]] = []
    for (shape, _), later in zip(found, [*found[1:], None], strict=True):
        if later is None or later[0] != shape:
            kernels.append((shape, None if later is None else later[1] - 1))
    return tuple(kernels)


def kernel_for(target: Target, rows: Sequence[int], tokens: int) -> Shape:
    """The kernel that a run of so many tokens takes."""
    return next(shape for shape, most in kernels_for(target, rows) if most is None or tokens <= most)


def is_usable(shape: Shape, target: Target) -> bool:
    """Whether a device can run the kernel of a shape, and gets right numbers from it."""
    has_lanes = shape.family != "lanes" or target.lanes >= 8
    has_units = shape.family != "matrix" or target.matrices != "none"
    return fits(shape, target.limits, target.matrices) and has_lanes and has_units


def fits(shape: Shape, limits: Limits, units: Units = "native") -> bool:
    """Whether a device can run the kernel of a shape."""
    has_room = workgroup_bytes(shape, units) <= limits.max_workgroup_storage
    return shape.threads <= limits.most_threads and has_room


def kernel_of(shape: Shape) -> Shape:
    """A shape without what says when it is chosen: the same for the same kernel."""
    most = shape.max_groups if shape.splits > 1 else 0
    return replace(shape, max_tokens=None, min_groups=0, max_groups=most)


def fitted(shape: Shape, columns: int, target: Target) -> Shape:
    """A kernel with as many threads as it takes for none to idle in the last turn over so many columns.

    For one token: less than twice as many, in steps of 32, where subgroups add the sums up; without them
    they are halved again and again, which takes a power of two.

    NVIDIA H200, one token: 10240x2560 23.4 µs with 256 threads, of which three quarters idle in the second
    turn, 20.1 with 320; 65536x2560 98 and 82 µs.
    """
    if shape.family != "split" or shape.tokens != 1 or shape.threads % 32 or not target.subgroups:
        return shape
    sizes = [replace(shape, threads=threads) for threads in range(shape.threads, 2 * shape.threads, 32)]
    return min((size for size in sizes if fits(size, target.limits)), key=lambda size: _idle(size, columns))


def _idle(shape: Shape, columns: int) -> int:
    """Columns that the threads of a team could take more, in as many turns."""
    turn = shape.threads // shape.teams_for(columns) * 8
    return -columns % turn


def suits(shape: Shape, rows: Sequence[int], tokens: int) -> bool:
    """Whether a table's kernel is meant for runs of so many tokens, over matrices of so many rows."""
    is_within = shape.max_tokens is None or tokens <= shape.max_tokens
    return is_within and takes(shape, shape.groups(rows, tokens), shape.min_groups)


def takes(shape: Shape, groups: int, least: int) -> bool:
    """Whether a rule that takes a kernel from so many workgroups on takes it for these."""
    return groups >= least and (not shape.max_groups or groups <= shape.max_groups)


def _changes(shape: Shape, rows: Sequence[int]) -> list[int]:
    """The numbers of tokens from which on a kernel begins, or ceases, to suit."""
    each = shape.groups(rows, 1)
    changes = [max(0, -(-shape.min_groups // each) - 1) * shape.group_tokens + 1]
    if shape.max_groups:
        changes.append(shape.max_groups // each * shape.group_tokens + 1)
    return changes if shape.max_tokens is None else [*changes, shape.max_tokens + 1]


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
# Four lanes, and adapters whose lanes are not known. llvmpipe with vectors of 128 bits, many tokens: 0.8 G
# with eight threads of 64 sums, 0.5 G with 32 threads of 16, 0.2 G with tiles in workgroup memory.
CPU_NARROW = Tuning(
    8,
    8,
    (
        Shape("split", 32, 4, 1, max_tokens=1),
        Shape("split", 32, 8, 4, max_tokens=4),
        Shape("split", 8, 8, 8),
    ),
    weights_in_textures=True,
)

# One NVIDIA H200 (132 multiprocessors, 48 KiB of workgroup memory), f16 weights, each kernel alone.
# One token: 1.6, 2.7, 3.0, 2.9, 3.8, 4.3 TB/s for 2048x2048, 6432x2048, 8192x2048, 2048x8192, 16384x4096,
# 65536x2048 (a plain copy kernel: 3.9, a reading one: 4.6): 3.3 µs for a dispatch, and 4.2 TB/s beyond that.
# Threads of 64 to 512, 4 or 8 rows, more loads at a time, and a subgroup for each four rows differ by 5 % or
# are slower; so are shares for 128 to 1,024 workgroups, by 10 to 50 %. Four matrices of 2048x64 to 256 take
# 3.9 µs in eight teams, 5.6 in one. Without subgroups up to 5 % less. Two and four cost 1.1 times what
# one does, 8 twice: four tokens a workgroup, and those of the same rows side by side, so that memory is read
# once and the cache serves the others. With 8, teams gain only where columns are few (7 instead of 10 us for
# four matrices of 2048x64 to 256), and only with more than 32 KiB of workgroup memory.
# More tokens: teams, in the largest tile that still makes about 100 workgroups. Microseconds of the kernels
# below, by their tiles of rows by tokens, and in brackets of the best without teams:
#   16 tokens: 64x16 26 (35) 8192x2048, 9 (16) few columns, 143 (239) 65536x2048; where it makes too few, 12
#     2048x2048, 34 2048x8192, 40 three of 2048x2048 and four small ones, for which teams take 14, 40, 43.
#   32: 32x32 38 (68), 9 (29), 49 (69) those seven; 128x32 238 (469). 16x32 16 (20), 52 (64) 2048 rows; but in
#     a model, with weights from memory, 26 and 61 (22 and 61), and 26 (9) four matrices of 2048x64 to 256.
#   64: 32x32 72 (129), 15 (37), 95 (142); 128x32 469 (646).
#   128: 128x64 115 (216), 23 (38), 154 (273); 64x32 35 (66), 127 (213) 2048 rows; 128x128 808 (1171).
#   1024: 128x128 813 (997), 91 (106), 949 (1180), from 400 workgroups on; 128x64 225 (313), 885 (1248).
# More than 32 KiB, which fewer devices have, would gain 7 of 40 us (16 tokens, the seven), 11 of 72 (64
# tokens, 8192x2048), elsewhere nothing. In the 16 KiB of browsers 8192x2048 takes 48, 124, 940 us with 32,
# 128, 1024 tokens.
# 32 tokens, tiles of 32x32 whose columns four workgroups share, where those are 200 and more: in a model 48
# instead of 66 us for 2048x8192, 22 instead of 27 for 2048x2048.
_TILE = Shape("team", 256, 4, 8, wide=8, teams=8, depth=64, ahead=2)
GPU = Tuning(
    256,
    1024,
    (
        Shape("split", 256, 4, 1, max_tokens=1),
        Shape("split", 64, 4, 4, max_tokens=8),
        Shape("team", 256, 4, 8, max_tokens=16, min_groups=120, wide=16, teams=8, depth=64, ahead=2),
        Shape("split", 64, 4, 4, max_tokens=16),
        Shape("team", 256, 8, 8, max_tokens=64, min_groups=500, wide=16, teams=4, depth=32),
        replace(_TILE, max_tokens=64, min_groups=90),
        Shape("split", 64, 4, 4, max_tokens=24),
        Shape("team", 256, 8, 8, min_groups=400, wide=16, depth=16),
        Shape("team", 256, 8, 8, min_groups=90, wide=16, teams=2, depth=32),
        Shape("team", 256, 8, 8, min_groups=90, wide=8, teams=8, depth=64, ahead=2),
        replace(_TILE, min_groups=90),
        replace(_TILE, max_tokens=32, min_groups=200, max_groups=512, splits=4),
        Shape("split", 64, 4, 4, max_tokens=32),
        Shape("team", 256, 4, 8, wide=4, teams=16, depth=128, ahead=2),
        # For devices with less workgroup memory, as browsers give.
        Shape("team", 128, 8, 8, max_tokens=64, min_groups=90, wide=8, teams=4, depth=32, ahead=2),
        Shape("split", 64, 4, 4, max_tokens=32),
        Shape("team", 128, 8, 8, min_groups=90, wide=16, depth=16),
        Shape("team", 128, 8, 8, min_groups=90, wide=8, teams=4, depth=32, ahead=2),
        Shape("split", 64, 8, 4),
    ),
)

# Heads that workgroups share, with the kernel behind: an NVIDIA H200, 132 multiprocessors, 32 heads of 64 of
# RWKV-7, microseconds natively and on Dawn, by threads a pair of columns, and in brackets of whole heads. A
# prompt of 1,024 tokens: 196 and 199 with 16, 244 and 242 with 8 (833, 557). Two of 512, when multiprocessors
# have two: 199 and 202, 154 and 151 (428, 287). One of 64 29 and 30 (62, 49), of 16 21 and 22 (25, 23).
# RWKV-6, 1,024: 136 and 139 (671, 486). Four of 256 and eight of 128 are about as fast whole. 16 threads take
# 47 KiB of workgroup memory, 8 half.

# Matrices of subgroups: an NVIDIA H200 on Dawn, each kernel alone, weights from memory; f32 inputs go in as
# two f16, so there are twice the products. Microseconds by tiles of rows by tokens, /n for n workgroups that
# share one:
#   16 tokens: 64x16 20 8192x2048, /4 23 2048x8192.
#   32: 64x32 23, /4 26, /4 13 2048x2048; 128x32 137 65536x2048 (64x32 157).
#   64: 128x64 /2 30, /8 29.  128: 128x64 42, /4 46, /4 19; 128x128 300 65536x2048.
#   256: 128x128 73, /4 80.  1024: 128x128 271, 258, 71: 125 TFLOP/s of the model's, 250 of the units'.
# With an index clamped at each load 1.4 times as long, with Dawn's own checks 1.6 times. 16 rows a workgroup,
# so that all processors have one, read inputs too often: 45 for 2048x8192 and 32 tokens. Two steps ahead
# gained up to 5 % here, and lost 20 % for 8192x2048 in a model. Matrices loaded from buffers, not by way of
# workgroup memory, take 1.5 to 8 times as long. Four low-rank matrices of 32 tokens: 9 us without,
# 15 with them.
_THIN = Shape("matrix", 256, 16, 16, wide=4, teams=2, depth=128)
_SMALL = Shape("matrix", 256, 16, 32, wide=4, teams=2, depth=128)
_FLAT = Shape("matrix", 256, 16, 32, wide=8, depth=64)
_MIDDLE = Shape("matrix", 256, 32, 32, wide=4, depth=64)
_LARGE = Shape("matrix", 256, 64, 32, wide=2, depth=32)
MATRICES = (
    Shape("split", 64, 4, 4, max_tokens=32, max_groups=1200),
    replace(_THIN, splits=4, max_tokens=16, max_groups=256),
    replace(_THIN, max_tokens=16),
    replace(_SMALL, splits=4, max_tokens=32, max_groups=256),
    replace(_FLAT, max_tokens=32, min_groups=300),
    replace(_SMALL, max_tokens=32),
    replace(_MIDDLE, splits=16, max_tokens=64, max_groups=128),
    replace(_MIDDLE, splits=8, max_tokens=64, max_groups=160),
    replace(_MIDDLE, splits=2, max_tokens=64, max_groups=256),
    replace(_MIDDLE, max_tokens=64),
    replace(_MIDDLE, splits=8, max_groups=96),
    replace(_MIDDLE, splits=4, max_groups=192),
    replace(_LARGE, splits=4, max_groups=128),
    replace(_LARGE, min_groups=120),
    replace(_MIDDLE, splits=2, max_groups=200),
    _MIDDLE,
)
"""Kernels of the matrix units, for more tokens than the first two kernels of the table take."""
