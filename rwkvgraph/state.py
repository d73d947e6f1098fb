"""The recurrent state of a model: one slot a sequence."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from rwkvgraph.engine import Engine, SlotMemory
from rwkvgraph.models.common import ModelInfo
from rwkvgraph.op import Array, Buffer
from rwkvgraph.view import B


class LayerBuffers(Protocol):
    """The buffers of a layer's state."""

    def buffers(self) -> tuple[Buffer, ...]:
        """The buffers in the order of the rows that `State.read` gives.

        Time mixing's last input, S rows, channel mixing's.
        """


class State:
    """`num_batch` slots of recurrent state, f32. A new one is empty: as before the first token.

    A slot reads as (L, S + 2, C), web-rwkv's layout: row 0 is the normalised input of time mixing for the
    slot's last token, row 1 + j, column h * S + i the state of head h from key j to value i, row S + 1 the
    normalised input of channel mixing.
    """

    def __init__(
        self, info: ModelInfo, layers: tuple[LayerBuffers, ...], engine: Engine, num_batch: int
    ) -> None:
        self.info = info
        self.num_batch = num_batch
        self._layers = layers
        self._used: set[int] = set()
        self._rest: dict[int, tuple[list[int], int]] = {}
        buffers = [buffer for layer in layers for buffer in layer.buffers()]
        self.memory: dict[Buffer, Any] = {
            buffer: engine.state_memory(buffer, {B: num_batch}) for buffer in buffers
        }

    def is_empty(self, slot: int) -> bool:
        """Whether a slot is as before its first token. Raises ValueError for a slot that the state lacks."""
        self._check(slot)
        return slot not in self._used

    def has_checked(self, slot: int, ids: list[int]) -> bool:
        """Whether these are the tokens that the last run left of a list whose ids it has looked at."""
        seen, length = self._rest.get(slot, (None, 0))
        return seen is ids and length == len(ids)

    def note(self, slot: int, rest: list[int], count: int) -> None:
        """Remember that a run took `count` tokens of a list, and what is left of it."""
        self._rest[slot] = (rest, len(rest))
        if count:
            self._used.add(slot)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one slot: (L, S + 2, C)."""
        return self.info.num_layer, self.info.head_size + 2, self.info.num_emb

    def read(self, slot: int) -> Array:
        """A copy of a slot, (L, S + 2, C) float32. Raises ValueError for a slot that the state lacks."""
        self._check(slot)
        width = self.info.num_emb
        layers = []
        for layer in self._layers:
            parts = [
                self._part(buffer).read_rows(slot, slot + 1).reshape(-1, width) for buffer in layer.buffers()
            ]
            layers.append(np.concatenate(parts))
        return np.stack(layers).astype(np.float32, copy=False)

    def write(self, slot: int, array: Any) -> None:
        """Replace a slot by (L, S + 2, C) values. Raises ValueError for a wrong slot, shape, or NaN."""
        self._check(slot)
        values = np.asarray(array, np.float32)
        if values.shape != self.shape:
            raise ValueError(f"a slot of this state is {self.shape}; it was given an array of {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError("a state is finite numbers; it was given NaN or infinity")
        (self._used.add if values.any() else self._used.discard)(slot)
        for layer, rows in zip(self._layers, values, strict=True):
            start = 0
            for buffer in layer.buffers():
                count = (
                    int(np.prod([size for size in buffer.shape if isinstance(size, int)]))
                    // self.info.num_emb
                )
                self._part(buffer).write_rows(slot, rows[start : start + count].reshape(1, -1))
                start += count

    def clear(self, slot: int) -> None:
        """Empty a slot: as before its first token."""
        self.write(slot, np.zeros(self.shape, np.float32))

    def _part(self, buffer: Buffer) -> SlotMemory:
        part: SlotMemory = self.memory[buffer]
        return part

    def _check(self, slot: int) -> None:
        if not is_integer(slot) or not 0 <= slot < self.num_batch:
            raise ValueError(
                f"slot {slot!r} is not one of this state's {self.num_batch} (0 to {self.num_batch - 1})"
            )

    def __repr__(self) -> str:
        megabytes = self.num_batch * int(np.prod(self.shape)) * 4 / 1e6
        return f"State({self.num_batch} slots of {list(self.shape)} f32, {megabytes:.1f} MB)"


def is_integer(value: object) -> bool:
    """Whether a value is an integer of Python or numpy; True and False are not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
