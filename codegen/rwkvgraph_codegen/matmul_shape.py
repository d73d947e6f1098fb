"""Entry points of the matrix product: y = w @ x for f16 weights and f32 inputs.

Unrolled over rows and tokens. What surrounds them gives the functions `part_of(unit)`, `weight(part,
block)` (eight f16 as `vec4<u32>`), `input(part, base, lane)` (four columns of a token), `finish(part, i0,
i2, value)` (map and store four rows of a token), and in the uniform `size` (tokens, units, where to look
ahead) and three rows a part: (first unit, rows, blocks of 8 columns, columns), (place of the first block,
blocks from row to row, first lane of the result), (place of the input, elements from token to token, how
workgroups share: teams of one, and above TEAM_BITS the threads of each; of relays, the quads of one). Those
whose workgroups share tiles call `hand_over(at, value)`, and `handed(at)`, `count(tile)`, `count_anew(tile)`
unless a kernel after them adds up. For some kernels of one token also `prepare`, `input_ahead`, `look_ahead`,
and `keep(part, i0, i2)`, which loads before the sums what `finish` is given as its fifth then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from rwkvgraph_codegen.source import fill

DECODE = """fn low(eight: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(eight.x), unpack2x16float(eight.y));
}
fn high(eight: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(eight.z), unpack2x16float(eight.w));
}"""


LANES = 32
"""Threads of a subgroup, where it multiplies matrices."""

SIDE = 16
"""Rows and columns of a matrix that a subgroup multiplies."""

MOST_GROUPS = 1024
"""Workgroups that may share tiles: so many are counted."""

MOST_HANDED = 8 << 20
"""Bytes of all that they hand over."""

TEAM_BITS = 16
"""Bits of a word of the uniform that say how many teams a workgroup has.

The threads of one stand above them, so that kernels need not divide: by a number that no compiler knows that
takes 0.1 µs of a kernel's few (NVIDIA H200).
"""


@dataclass(frozen=True)
class Shape:
    """How a kernel cuts the work.

    Its family, threads a workgroup, matrix rows and tokens of a thread or workgroup.
    family "split": the threads of a workgroup share the columns of `rows` rows and `tokens` tokens. For one
    token, where columns are few, in several teams, each with rows of its own: as many as the uniform says.
    family "lanes": a thread takes `rows` rows and all columns; a subgroup of 8 or more hands tokens round.
    family "team": a workgroup is several `teams`, which share the columns of one tile; each is a rectangle of
    threads, `wide` along the rows, each with `rows` by `tokens` sums. Workgroup memory holds a step of
    `depth` columns, once or, with two `buffers`, twice; `ahead` steps more are on their way.
    family "matrix": as "team", of subgroups in place of threads, 32 threads each: a team is a rectangle of
    subgroups, `wide` along the rows, each with `rows` by `tokens` sums, in matrices of 16 by 16.
    family "share": for one token; a given number of workgroups share the matrix, and a thread multiplies
    `depth` columns of four rows at a time.
    splits: so many workgroups share the columns of a tile; for "team" and "matrix". Where bindings may be
    coherent the last of them to come adds up what all have, else a kernel after them does.
    max_tokens: the most tokens in a run for which it is chosen; None for any number. min_groups, max_groups:
    it is chosen only where it makes at least, at most, so many workgroups; 0 for any number. With splits the
    kernel itself has no room for more than max_groups.
    """

    family: str
    threads: int
    rows: int
    tokens: int
    _: KW_ONLY
    max_tokens: int | None = None
    min_groups: int = 0
    max_groups: int = 0
    wide: int = 0
    teams: int = 1
    depth: int = 0
    buffers: int = 1
    ahead: int = 1
    splits: int = 1

    @property
    def deep(self) -> int:
        """Threads of a team along the tokens."""
        return self.threads // self._together // self.teams // self.wide

    @property
    def _together(self) -> int:
        """Threads that have sums together."""
        return LANES if self.family == "matrix" else 1

    @property
    def group_rows(self) -> int:
        """Matrix rows of a workgroup, of one of its teams where those have rows of their own."""
        threads = {"split": 1, "share": 1, "lanes": self.threads, "team": self.wide, "matrix": self.wide}
        return self.rows * threads[self.family]

    @property
    def group_tokens(self) -> int:
        """Tokens of a workgroup."""
        return self.tokens * (self.deep if self.family in ("team", "matrix") else 1)

    def teams_for(self, columns: int) -> int:
        """Teams of a workgroup for a matrix of so many columns; several only for one token, split."""
        if self.family != "split" or self.tokens != 1:
            return 1
        most = max(1, self.threads // 32)
        wide = [teams for teams in range(1, most + 1) if most % teams == 0 and self._each(teams) >= columns]
        return max(wide, default=1)

    def _each(self, teams: int) -> int:
        """Columns that a team takes in a turn, eight a thread."""
        return self.threads // teams * 8

    def groups(self, rows: Sequence[int], tokens: int) -> int:
        """Workgroups for matrices of so many rows, side by side, and so many tokens; teams not counted."""
        tiles = sum(-(-count // self.group_rows) for count in rows) * -(-tokens // self.group_tokens)
        return tiles * self.splits


def flaw(shape: Shape) -> str | None:
    """What keeps a shape from being a kernel, in words; None where nothing does."""
    sizes = (shape.threads, shape.rows, shape.tokens, shape.teams, shape.ahead, shape.splits)
    if min(sizes) < 1 or min(shape.wide, shape.depth, shape.min_groups, shape.max_groups) < 0:
        return "sizes are positive"
    if shape.splits > 1 and shape.family not in ("team", "matrix"):
        return "splits are of teams and matrices"
    if shape.rows % 4:
        return "rows are a multiple of 4"
    match shape.family:
        case "split":
            return "threads are a power of two" if shape.threads & (shape.threads - 1) else None
        case "lanes":
            return "threads are a multiple of 8" if shape.threads % 8 else None
        case "team":
            return _flaw_of_teams(shape)
        case "matrix":
            return _flaw_of_matrices(shape)
        case _:
            return "families are split, lanes, team and matrix"


def _flaw_of_matrices(shape: Shape) -> str | None:
    if shape.rows % SIDE or shape.tokens % SIDE:
        return f"rows and tokens of matrices are multiples of {SIDE}"
    if not shape.wide or shape.threads % (LANES * shape.teams * shape.wide):
        return f"a team of matrices is `wide` subgroups of {LANES} threads, or a multiple of that"
    if not shape.depth or shape.depth % (SIDE * shape.teams):
        return f"each team takes a multiple of {SIDE} of `depth` columns"
    if shape.buffers != 1 or shape.ahead != 1:
        return "matrices have one buffer, and are one step ahead"
    if shape.threads % (shape.depth // 4):
        return "threads of matrices are a multiple of a quarter of `depth`"
    return _flaw_of_splits(shape) if shape.splits > 1 else None


def _flaw_of_splits(shape: Shape) -> str | None:
    handed = shape.max_groups * shape.group_rows * shape.group_tokens * 4
    if not 0 < shape.max_groups <= MOST_GROUPS or handed > MOST_HANDED:
        return f"splits have max_groups, up to {MOST_GROUPS}, whose tiles take {MOST_HANDED} bytes at most"
    return None


def _flaw_of_teams(shape: Shape) -> str | None:
    if any(size & (size - 1) for size in (shape.rows, shape.tokens)) or shape.tokens < 4:
        return "rows and tokens of teams are powers of two, 4 or more"
    if not shape.wide or shape.threads % (shape.teams * shape.wide) or (shape.deep > 1 and shape.deep % 2):
        return "a team is `wide` threads, or an even number of times that"
    columns = shape.depth // shape.teams
    if not columns or shape.depth % shape.teams or shape.depth % 8 or (columns != 4 and columns % 8):
        return "each team takes 4, or a multiple of 8, of `depth` columns, which are a multiple of 8"
    if shape.buffers not in (1, 2):
        return "buffers are 1 or 2"
    return _flaw_of_splits(shape) if shape.splits > 1 else None


_HEAD = """
@compute @workgroup_size($threads)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32$inputs) {
    // Workgroups beyond the last repeat it and write nothing, so that every thread reaches every barrier.
    $index
    let unit = min(index, here.size.y - 1u);
    let part = part_of(unit);
    let shape = here.at[part * 3u];
    let place = here.at[part * 3u + 1u];
    let source = here.at[part * 3u + 2u];
    let is_inside = index < here.size.y;
    let last_row = shape.y - 1u;
    let last_token = here.size.x - 1u;"""


def head(threads: int, inputs: str = "", splits: int = 1) -> str:
    """The begin of an entry point. inputs: more of its parameters. splits: workgroups of a tile."""
    index = "let index = group.y + group.z * groups.y;"
    if splits > 1:
        index = f"""let index = (group.y + group.z * groups.y) / {splits}u;
    let split = (group.y + group.z * groups.y) % {splits}u;"""
    return fill(_HEAD, threads=threads, inputs=inputs, index=index)


def chain(total: str, weights: str, inputs: str) -> str:
    """`total = fma(…)` over eight columns, the first column innermost."""
    text = total
    for matrix, vector in (("l", "a"), ("h", "b")):
        for part in "xyzw":
            text = f"fma({matrix}{weights}.{part}, {vector}{inputs}.{part}, {text})"
    return f"{total} = {text};"


def four(quarter: int, token: int) -> str:
    """The sums of four rows for a token, as a `vec4`."""
    return "vec4<f32>(" + ", ".join(f"sum{4 * quarter + i}_{token}" for i in range(4)) + ")"


def finish_all(values: list[str], token: str, row: str) -> list[str]:
    """Map and store the results of a thread, one by one.

    An array of them, indexed in a loop, compiles slowly.
    """
    lines = []
    for index, value in enumerate(values):
        there_token, there_row = token.replace("item", f"{index}u"), row.replace("item", f"{index}u")
        lines += [
            f"    if is_inside && {there_token} <= last_token && {there_row} <= last_row {{",
            f"        finish(part, {there_token}, place.z + ({there_row}) / 4u, {value});",
            "    }",
        ]
    return lines
