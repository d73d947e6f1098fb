"""What model versions share: their numbers, the state of their layers, the inputs of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rwkvgraph import ops
from rwkvgraph.batch import BATCH_WORDS
from rwkvgraph.errors import LoadError
from rwkvgraph.load.reader import Reader
from rwkvgraph.op import Buffer, DType, Home, Role, Tensor
from rwkvgraph.quant import Matrix
from rwkvgraph.view import B, E, N, O, Size, T, View


@dataclass(frozen=True)
class ModelInfo:
    """A model's numbers, all from its file.

    custom: sizes that only its version has; for V7 the ranks of the low-rank matrices w, a, g and v.
    """

    version: str
    num_layer: int
    num_emb: int
    num_hidden: int
    num_vocab: int
    num_head: int
    custom: Mapping[str, int] = field(default_factory=dict)

    @property
    def head_size(self) -> int:
        """Channels of a head: S = C / H."""
        return self.num_emb // self.num_head

    def __str__(self) -> str:
        ranks = ", ".join(f"{name} {size}" for name, size in self.custom.items())
        return (
            f"RWKV-{self.version[1:]}, {self.num_layer} layers of {self.num_emb}, {self.num_head} heads of "
            f"{self.head_size}, hidden {self.num_hidden}, vocabulary {self.num_vocab}"
            + (f", ranks {ranks}" if ranks else "")
        )


def count_layers(reader: Reader) -> int:
    """How many layers the names are of. Raises LoadError for names of no layer, and for layers that lack."""
    numbers = [name.split(".")[1] for name in reader.names() if name.startswith("blocks.")]
    wrong = next((number for number in numbers if not number.isdecimal()), None)
    if wrong is not None:
        raise LoadError(
            f"{reader.path}: tensor blocks.{wrong}… is of no layer; they are blocks.0, blocks.1 …"
        )
    layers = set(map(int, numbers))
    missing = next((layer for layer in range(len(layers)) if layer not in layers), None)
    if missing is not None or not layers:
        raise LoadError(
            f"{reader.path} has no layer {missing or 0}; the largest is blocks.{max(layers, default='none')}"
        )
    return len(layers)


def matrix_shape(reader: Reader, name: str) -> tuple[int, int]:
    """The shape of a tensor with two axes, neither of them empty. Raises LoadError for any other."""
    shape = reader.shape(name)
    if len(shape) != 2 or 0 in shape:
        raise LoadError(f"{reader.path}: {name} has shape {shape}; a matrix has two axes, none empty")
    return shape[0], shape[1]


def has_any(names: set[str], *ends: str) -> bool:
    """Whether any layer of a file has a tensor whose name ends so: an error can then say which lacks it."""
    return any(name.startswith("blocks.") and name.endswith(ends) for name in names)


def check_heads(reader: Reader, name: str, num_head: int, num_emb: int) -> None:
    """Raise LoadError unless the heads that tensor `name` is for divide the channels evenly."""
    if num_head == 0 or num_emb % num_head:
        raise LoadError(
            f"{reader.path}: {name} is for {num_head} heads, which do not divide {num_emb} channels evenly"
        )


@dataclass(frozen=True)
class Inputs:
    """What a run is given: one u32 buffer (T, 8), the tensors in it, and vectors (E, C) in place of tokens.

    cursors (T, 4): slot, its first stacked token, its tokens in this run, 0. tokens (T,). rows (O,): the
    stacked tokens whose logits are wanted. starts (N,): the first stacked token of each slot that has tokens.
    picks (T,): 1 + the row of `vectors` that replaces a token's embedding, or 0.
    """

    batch: Buffer
    vectors: Buffer
    cursors: Tensor
    tokens: Tensor
    rows: Tensor
    starts: Tensor
    picks: Tensor

    @staticmethod
    def make(width: int) -> Inputs:
        """The buffers and their tensors, for a model of `width` channels."""
        batch = Buffer("batch", (T, BATCH_WORDS), DType.U32, Role.INPUT)
        vectors = Buffer("embeddings", (E, width), DType.F32, Role.INPUT)

        def column(size: Size, index: int) -> Tensor:
            return Tensor(batch, View((size,), (BATCH_WORDS,), index), DType.U32)

        words = (column(T, 4), column(O, 5), column(N, 6), column(T, 7))
        return Inputs(batch, vectors, batch[:, 0:4], *words)


def embed_inputs(table: Matrix, inputs: Inputs) -> Tensor:
    """The embeddings (T, C) of a run's tokens: rows of a table (V, C), or vectors given in their place."""
    return ops.replace_rows(ops.embed(table, inputs.tokens), inputs.picks, inputs.vectors.tensor)


@dataclass(frozen=True)
class LayerState:
    """The state of a layer, all slots.

    att_x and ffn_x (B, C) are the normalised input of the block for the slot's last token. wkv (B, S, C) has
    the state of head h from key j to value i in row j, column h * S + i; RWKV-4's (B, 3, C) has rows aa, bb
    and pp. empty: what each of the rows holds before the first token, in the order of `buffers`.
    """

    att_x: Buffer
    wkv: Buffer
    ffn_x: Buffer
    empty: tuple[float, ...]

    def buffers(self) -> tuple[Buffer, Buffer, Buffer]:
        """In the order of web-rwkv's rows: the first, those of time mixing, the last."""
        return self.att_x, self.wkv, self.ffn_x


def make_layers(info: ModelInfo, wkv: tuple[float, ...]) -> tuple[LayerState, ...]:
    """The buffers of the state, with time mixing's rows as they are when empty; a State owns their memory."""

    homes = {name: Home(f"state.{name}", info.num_layer) for name in ("att_x", "wkv", "ffn_x")}

    def part(layer: int, name: str, *shape: int) -> Buffer:
        buffer = Buffer(f"state.{layer}.{name}", (B, *shape, info.num_emb), DType.F32, Role.STATE)
        buffer.home, buffer.place = homes[name], layer
        return buffer

    return tuple(
        LayerState(part(layer, "att_x"), part(layer, "wkv", len(wkv)), part(layer, "ffn_x"), (0.0, *wkv, 0.0))
        for layer in range(info.num_layer)
    )


def make_state(info: ModelInfo) -> tuple[LayerState, ...]:
    """The buffers of a state with a matrix (S, S) a head: of RWKV-5, 6 and 7."""
    return make_layers(info, (0.0,) * info.head_size)


def output_buffer(width: int) -> Buffer:
    """The logits, (O, V)."""
    return Buffer("logits", (O, width), DType.F32, Role.OUTPUT)
