"""Small random graphs with state, captures and views, and the contents to run them on.

A graph is drawn as a list of numbers, each of which picks an operation and its operands among what is there:
so any list is a graph, and hypothesis can shrink one by dropping and lowering numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from rwkvgraph import ops
from rwkvgraph.graph import Graph
from rwkvgraph.op import Array, Buffer, DType, Role, Tensor, in_layer, tape
from rwkvgraph.quant import Matrix
from rwkvgraph.testing import holding, matrix
from rwkvgraph.view import B, N, O, Sizes, T, View

SLOTS = 3
SOFT = (
    0.1  # added to variances: norms of nearly equal values would magnify rounding, which is not the question
)


@dataclass
class Sample:
    """A graph, what its buffers hold at the start, and the sizes of the run."""

    graph: Graph
    contents: dict[Buffer, Array]
    sizes: Sizes

    def __repr__(self) -> str:
        return f"{self.sizes}\n{self.graph.text(full=True)}"


@dataclass
class Builder:
    """The tensors that the next operation may use."""

    width: int
    hidden: int
    heads: int
    tokens: int
    rng: np.random.Generator
    contents: dict[Buffer, Array] = field(default_factory=dict)
    wide: list[Tensor] = field(default_factory=list)  # (T, width)
    inner: list[Tensor] = field(default_factory=list)  # (T, hidden)
    out: list[Tensor] = field(default_factory=list)  # (O, width)
    rows: list[Tensor] = field(default_factory=list)  # (width,): views of a user's buffer, and the like

    def buffer(self, name: str, *shape: object, role: Role = Role.STATE, dtype: DType = DType.F32) -> Buffer:
        sizes = {T: self.tokens, B: SLOTS, O: min(2, self.tokens)}
        made = Buffer(name, shape, dtype, role)  # type: ignore[arg-type]  # sizes
        numbers = [sizes.get(size, size) for size in shape]  # type: ignore[call-overload]  # as above
        self.contents[made] = self.rng.normal(size=numbers).astype(np.float32)
        return made

    def matrix(self, rows: int, columns: int) -> Matrix:
        return matrix((self.rng.normal(size=(rows, columns)) / columns**0.5).astype(np.float16))


def build(
    width: int, hidden: int, heads: int, cuts: tuple[int, ...], choices: list[int], seed: int
) -> Sample:
    """The graph that the choices spell. cuts: the tokens of each slot in the run. heads divides width."""
    b = Builder(width, hidden, heads, sum(cuts), np.random.default_rng(seed))
    cursors, starts, picked = _inputs(b, cuts)
    source, state, seen, kept = (
        b.buffer("source", T, width), b.buffer("state", B, width),
        b.buffer("seen", 3, width), b.buffer("kept", T, width),
    )  # fmt: skip
    memory = b.buffer("memory", B, width // heads, width)
    b.wide, b.rows = [source.tensor], [holding(b.rng.normal(size=width), "vector"), seen[0], seen[2]]
    menu = _menu(b, cursors, starts, picked, state, seen, kept, memory)
    with tape() as items:
        for index, choice in enumerate(choices):
            with in_layer(index // 4):
                menu[choice % len(menu)](choice // len(menu))
        for index, tensor in enumerate([*b.wide[-2:], *b.inner[-1:], *b.out[-1:]]):
            ops.blit(tensor, b.buffer(f"result{index}", *tensor.shape).tensor)
    return Sample(Graph(tuple(items)), b.contents, {T: b.tokens, O: min(2, b.tokens), B: SLOTS, N: len(cuts)})


def _inputs(b: Builder, cuts: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """cursors, starts and two output rows, in one buffer, as the model has them."""
    batch = Buffer("batch", (T, 8), DType.U32, Role.STATE)
    words = np.zeros((b.tokens, 8), np.uint32)
    at = 0
    for index, (slot, count) in enumerate(zip(b.rng.permutation(SLOTS), cuts, strict=False)):
        words[at : at + count, :3] = slot, at, count
        words[index, 6] = at
        at += count
    words[:, 5] = b.rng.integers(0, b.tokens, b.tokens)
    b.contents[batch] = words
    starts = Tensor(batch, View((N,), (8,), 6), DType.U32)
    return batch[:, 0:4], starts, Tensor(batch, View((O,), (8,), 5), DType.U32)


def _menu(
    b: Builder, cursors: Tensor, starts: Tensor, picked: Tensor,
    state: Buffer, seen: Buffer, kept: Buffer, memory: Buffer,
) -> list[Callable[[int], object]]:  # fmt: skip
    """What a choice can do; its argument picks the operands."""
    head = (T, b.heads, b.width // b.heads)
    channels = b.buffer("channels", B, 3, b.width)
    b.contents[channels][:, 1] = np.exp(b.contents[channels][:, 1])  # a sum of weights

    def pick(tensors: list[Tensor], n: int) -> Tensor:
        return tensors[-1 - n % len(tensors)]

    def flat(x: Tensor) -> Tensor:
        return ops.identity(x.reshape(T, b.width))

    def up() -> Matrix:
        return b.matrix(b.hidden, b.width)

    def down() -> Matrix:
        return b.matrix(b.width, b.hidden)

    def wide(build: Callable[[Tensor, Tensor, int], Tensor]) -> Callable[[int], object]:
        return lambda n: b.wide.append(build(pick(b.wide, n), pick(b.wide, n // 3), n))

    def recur(x: Tensor, y: Tensor, n: int) -> Tensor:
        decays, rates = ops.decay(x).reshape(*head), ops.sigmoid(y).reshape(*head)
        key = ops.l2_norm(x.reshape(*head), SOFT)
        r, k, v = (ops.tanh(z).reshape(*head) for z in (x, y, pick(b.wide, n // 9)))
        return flat(ops.wkv7(starts, cursors, r, decays, k, v, key, rates, memory.tensor))

    def recur_6(x: Tensor, y: Tensor, n: int) -> Tensor:
        r, w, k = (z.reshape(*head) for z in (ops.tanh(y), ops.decay(x), ops.tanh(x)))
        v, u = ops.tanh(pick(b.wide, n // 9)).reshape(*head), pick(b.rows, n).reshape(*head[1:])
        return flat(ops.wkv6(starts, cursors, r, w, k, v, u, memory.tensor))

    def recur_4(x: Tensor, y: Tensor, n: int) -> Tensor:
        w, u = ops.tanh(pick(b.rows, n)), pick(b.rows, n // 5)
        return ops.wkv4(starts, cursors, w, u, ops.tanh(x), ops.tanh(y), channels.tensor)

    return [
        wide(lambda x, y, n: ops.add(x, y)),
        wide(lambda x, y, n: ops.lerp(x, y, pick(b.rows, n // 9))),
        wide(lambda x, y, n: ops.multiply(ops.tanh(x), ops.sigmoid(y))),
        wide(lambda x, y, n: ops.affine(x, 0.5, 0.25 * (n % 3))),
        wide(lambda x, y, n: ops.layer_norm(x, pick(b.rows, n), pick(b.rows, n // 2), SOFT)),
        wide(lambda x, y, n: ops.softmax(ops.add(x, y))),
        wide(lambda x, y, n: flat(ops.l2_norm(x.reshape(*head), SOFT))),
        wide(lambda x, y, n: ops.previous_token(x, state.tensor, cursors)),
        wide(lambda x, y, n: ops.matmul(b.matrix(b.width, b.width), x)),
        wide(lambda x, y, n: ops.multiply(x, pick(b.rows, n))),
        wide(lambda x, y, n: ops.add(x, kept.tensor)),
        wide(lambda x, y, n: ops.identity(kept.tensor)),
        wide(recur),
        wide(recur_6),
        wide(recur_4),
        lambda n: b.inner.append(ops.squared_relu(ops.tanh(ops.matmul(up(), pick(b.wide, n))))),
        lambda n: b.wide.append(ops.matmul(down(), pick(b.inner, n))) if b.inner else None,
        lambda n: ops.keep_last(pick(b.wide, n), state.tensor, cursors),
        lambda n: ops.blit(pick(b.wide, n)[-1], seen[n % 3]),
        lambda n: ops.blit(pick(b.wide, n)[-1:], seen[0:2]),
        lambda n: ops.blit(pick(b.wide, n), kept.tensor),
        lambda n: b.rows.append(ops.tanh(pick(b.rows, n))),
        lambda n: b.out.append(ops.gather(pick(b.wide, n), picked)),
        lambda n: b.out.append(ops.add(pick(b.out, n), pick(b.rows, n // 2))) if b.out else None,
    ]  # fmt: skip


SHAPES = [(1, 3, 1), (3, 5, 1), (4, 8, 2), (6, 4, 2), (8, 12, 1), (8, 30, 2), (30, 7, 5)]
"""(width, hidden, heads): whole lanes and not, for rows, for heads and for matrices."""


@st.composite
def samples(draw: st.DrawFn, most: int = 14) -> Sample:
    """A random graph with contents and sizes."""
    shape = draw(st.sampled_from(SHAPES))
    cuts = draw(st.sampled_from([(1,), (3,), (2, 1), (1, 4, 2)]))
    choices = draw(st.lists(st.integers(0, 22 * 27 - 1), min_size=1, max_size=most))
    return build(*shape, cuts, choices, draw(st.integers(0, 3)))
