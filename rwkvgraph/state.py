"""The recurrent state of a model: one slot a sequence.

Its files are in state_file.py, the forms of other programs in state_forms.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rwkvgraph import state_file, state_forms
from rwkvgraph.engine import Engine, SlotMemory
from rwkvgraph.models.common import ModelInfo
from rwkvgraph.op import Array, Buffer
from rwkvgraph.tokens import is_integer
from rwkvgraph.view import B, row_width


class LayerBuffers(Protocol):
    """The buffers of a layer's state, and what it is before the first token."""

    @property
    def empty(self) -> tuple[float, ...]:
        """The value of each row of an empty slot."""

    def buffers(self) -> tuple[Buffer, ...]:
        """The buffers in the order of the rows that `State.read` gives, each (B, …) f32, whole rows of C."""


@dataclass(frozen=True, eq=False)
class Block:
    """Slots whose memory is bound together: as many as fit a device's largest binding."""

    num_batch: int
    memory: dict[Buffer, Any]
    """By buffer: what the engine made for it, a `SlotMemory`."""


class State:
    """`num_batch` slots of recurrent state, f32. A new one is empty: as before the first token.

    A slot reads as an array of web-rwkv's layout. RWKV-5, 6 and 7: (L, S + 2, C). Row 0 of a layer is the
    normalised input of time mixing for the slot's last token; row 1 + j, column h * S + i the state of head
    h from key j to value i; row S + 1 the normalised input of channel mixing. RWKV-4: (L, 5, C), the rows
    being time mixing's input, aa, bb, pp (numerator, denominator and exponent of the weighted average; pp of
    an empty slot is -3.4e38) and channel mixing's input.

    fingerprint: of the model, as its files carry it.
    """

    def __init__(
        self,
        info: ModelInfo,
        layers: tuple[LayerBuffers, ...],
        engine: Engine,
        num_batch: int,
        fingerprint: str = "",
    ) -> None:
        self.info = info
        self.num_batch = num_batch
        self.fingerprint = fingerprint
        self.layers = layers
        self._engine = engine
        self._used = np.zeros(num_batch, np.bool_)
        self._rest: dict[int, tuple[Any, int]] = {}
        self._lent: dict[int, Callable[[], None]] = {}
        self._buffers = [buffer for layer in layers for buffer in layer.buffers()]
        self._empty = np.array([layer.empty for layer in layers], np.float32)
        widest = max(row_width(buffer.shape) * buffer.dtype.bytes for buffer in self._buffers)
        self.block_slots = min(num_batch, max(1, engine.most_bytes // widest))
        """Slots of a block; the last may have fewer."""
        starts = range(0, num_batch, self.block_slots)
        self.blocks = tuple(self._block(min(self.block_slots, num_batch - start)) for start in starts)
        if self._empty.any():
            self._fill()

    def _block(self, slots: int) -> Block:
        return Block(slots, dict(self._engine.state_memories(self._buffers, {B: slots})))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one slot: (L, S + 2, C), or (L, 5, C) for RWKV-4."""
        return *self._empty.shape, self.info.num_emb

    def is_empty(self, slot: int) -> bool:
        """Whether a slot is as before its first token. Raises ValueError for a slot that the state lacks."""
        self._check(slot)
        return not self._used[slot]

    def read(self, slot: int) -> Array:
        """A copy of a slot, of `shape`, float32. Raises ValueError for a slot that the state lacks."""
        self._check(slot)
        self.settle([slot])
        memories, row = self._place(slot)
        return self._engine.read_slot(memories, row).reshape(self.shape)

    def write(self, slot: int, array: Any) -> None:
        """Replace a slot by values of `shape`. Raises ValueError for a wrong slot, shape, or NaN."""
        self._check(slot)
        values = state_forms.as_numbers(array, "a slot")
        if values.shape != self.shape:
            raise ValueError(f"a slot of this state is {self.shape}; it was given an array of {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError("a state is finite numbers; it was given NaN or infinity")
        self.settle([slot])
        memories, row = self._place(slot)
        self._engine.write_slot(memories, row, values.reshape(-1))
        self._used[slot] = (values != self._empty[..., None]).any()

    def clear_all(self) -> None:
        """Empty every slot."""
        self.settle(range(self.num_batch))
        self._fill()
        self._used[:] = False

    def clear(self, slot: int) -> None:
        """Empty a slot: as before the first token. Raises ValueError for a slot that the state lacks."""
        self.write(slot, np.broadcast_to(self._empty[..., None], self.shape))

    def copy(self, slot: int, to: int | Sequence[int], into: Any = None) -> None:
        """Copy a slot to another one, or to several, on the device.

        into: the state whose slots `to` are, by default this one; another must be of the same model. Raises
        ValueError for a slot that its state lacks, and for another model's state.
        """
        self._check(slot)
        into = self if into is None else into
        if not isinstance(into, State) or into.layers is not self.layers:
            raise ValueError(
                "a slot is copied into a state made by the same model; for another model of the same shape "
                "use other.write(to, state.read(slot))"
            )
        slots: list[int] = list(to) if isinstance(to, Sequence) else [to]
        for other in slots:
            into._check(other)
        self.settle([slot])
        into.settle(slots)
        source, row = self._place(slot)
        for block in {other // into.block_slots for other in slots}:
            memories, _ = into._place(block * into.block_slots)
            rows = [other % into.block_slots for other in slots if other // into.block_slots == block]
            self._engine.copy_slot(source, row, memories, rows)
        into._used[slots] = self._used[slot]

    def save(self, path: str | Path, slot: int) -> None:
        """Write a slot to a file that `load` takes; one of that name is replaced when all is written.

        A safetensors file with the values, the model's version, shape and fingerprint. Raises LoadError where
        it cannot be written.
        """
        state_file.save(Path(path), self.read(slot), self.info, self.fingerprint)

    def load(self, path: str | Path, slot: int) -> None:
        """Replace a slot by one from a file that `save` wrote.

        Raises LoadError, with the slot as it was, for a file that is damaged or of another model.
        """
        self._check(slot)
        self.write(slot, state_file.load(Path(path), self.shape, self.info, self.fingerprint))

    def load_tuned(self, path: str | Path, slot: int, key_first: bool | None = None) -> None:
        """Replace a slot by a tuned initial state: `blocks.N.att.time_state` (H, S, S) of every layer.

        key_first: whether the matrices are [key][value], as web-rwkv's converter writes them, or
        [value][key], as trained; by default the first for a .st or .safetensors file, the second for a .pth.
        Raises LoadError for a file without them or of other sizes, and for RWKV-4, which has none.
        """
        self._check(slot)
        self.write(slot, state_file.load_tuned(Path(path), self.shape, self.info, key_first))

    def to_blinkdl(self, slot: int) -> list[Array]:
        """A slot as the list of arrays that the `rwkv` package calls a state (see `from_blinkdl`)."""
        return state_forms.to_blinkdl(self.read(slot), self.info)

    def from_blinkdl(self, slot: int, arrays: Sequence[Any]) -> None:
        """Replace a slot by what the `rwkv` package calls a state: numpy arrays or PyTorch tensors.

        RWKV-4: five a layer, each (C,): time mixing's input, aa, bb, pp, channel mixing's input. Others:
        three a layer, time mixing's input (C,), the matrices (H, S, S), which are [key][value] in RWKV-5 and
        6 and [value][key] in RWKV-7, channel mixing's input (C,). Raises ValueError for anything else.
        """
        self._check(slot)
        self.write(slot, state_forms.from_blinkdl(arrays, self.shape, self.info))

    def to_web_rwkv(self, slot: int) -> Array:
        """A slot as web-rwkv's tensor [C, S + 2, L]: (L, S + 2, C) here; RWKV-4's [C, 5 L]: (5 L, C)."""
        return state_forms.to_web_rwkv(self.read(slot), self.info)

    def from_web_rwkv(self, slot: int, array: Any) -> None:
        """Replace a slot by what `to_web_rwkv` gives; axes of 1 in front do not count. Raises ValueError."""
        self._check(slot)
        self.write(slot, state_forms.from_web_rwkv(array, self.shape, self.info))

    def has_checked(self, slot: int, tokens: Any) -> bool:
        """Whether this is what the last run left of a list that was looked at as a whole."""
        seen, length = self._rest.get(slot, (None, 0))
        return seen is tokens and length == len(tokens)

    def note(self, tokens: Sequence[Any], counts: Sequence[int]) -> None:
        """Remember that a run took `counts` tokens of the lists, and in which of them it left some."""
        self._used[[slot for slot, count in enumerate(counts) if count]] = True
        self._rest = {slot: (rest, len(rest)) for slot, rest in enumerate(tokens) if rest}

    def lend(self, slots: Iterable[int], settle: Callable[[], None]) -> None:
        """Leave slots to somebody who runs ahead in them, until `settle` is called, which calls `take_back`.

        It is called before anybody else looks at them.
        """
        self.settle(slots)
        self._lent |= dict.fromkeys(slots, settle)

    def take_back(self, slots: Iterable[int]) -> None:
        """Note that nobody runs ahead in these slots any more."""
        for slot in slots:
            self._lent.pop(slot, None)

    def settle(self, slots: Iterable[int]) -> None:
        """Bring slots to where those who run ahead in them have been asked to be."""
        if self._lent:
            for settle in dict.fromkeys(self._lent[slot] for slot in slots if slot in self._lent):
                settle()

    def _fill(self) -> None:
        """Let every slot be empty."""
        values = np.repeat(self._empty.reshape(-1), self.info.num_emb)
        for block in self.blocks:
            self._engine.fill_slots(list(block.memory.values()), values)

    def _place(self, slot: int) -> tuple[list[SlotMemory], int]:
        """The memories of the block that a slot is in, in the order of its rows, and its place there."""
        block, row = divmod(slot, self.block_slots)
        return list(self.blocks[block].memory.values()), int(row)

    def _check(self, slot: Any) -> None:
        if not is_integer(slot) or not 0 <= slot < self.num_batch:
            raise ValueError(
                f"slot {slot!r} is not one of this state's {self.num_batch} (0 to {self.num_batch - 1})"
            )

    def __repr__(self) -> str:
        megabytes = self.num_batch * prod(self.shape) * 4 / 1e6
        used = int(self._used.sum())
        return (
            f"State({self.num_batch} slots of {list(self.shape)} f32, {used} in use, {megabytes:.1f} MB, "
            f"of RWKV-{self.info.version[1:]})"
        )
