"""Runs any tape on numpy: the meaning of a graph, the oracle of every stage, and the device named "cpu"."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rwkvgraph.errors import ShapeError
from rwkvgraph.graph import Graph
from rwkvgraph.op import Array, Buffer, DType, Map, Tensor, TensorOp
from rwkvgraph.view import Dim, Shape, Sizes, View, resolve, row_width, split_rows


class HostMemory:
    """One buffer's contents on numpy, laid out as on a device: rows padded to whole lanes."""

    def __init__(self, shape: Shape, dtype: DType, sizes: Sizes) -> None:
        rows = resolve(split_rows(shape)[0], sizes)
        self.flat = np.zeros(rows * row_width(shape), dtype.numpy)
        self.owner: Any = None
        self._view = View.whole(shape)
        self._sizes = sizes

    @property
    def is_alive(self) -> bool:
        """Always: it is an array."""
        return True

    def read(self) -> Array:
        """A copy of the contents."""
        return see(self.flat, self._view, self._sizes).copy()

    def write(self, array: Array) -> None:
        """Replace the contents."""
        see(self.flat, self._view, self._sizes)[...] = array


class Host:
    """Contents of buffers for `interpret`: flat arrays, by buffer."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        """Held by a run: several threads take turns."""
        self._memories: dict[Buffer, HostMemory] = {}

    def place(self, buffer: Buffer, sizes: Sizes, array: Array | None = None) -> HostMemory:
        """Memory for a buffer, filled with `array`, in its shape, or zeros."""
        memory = HostMemory(buffer.shape, buffer.dtype, sizes)
        if array is not None:
            memory.write(array)
        self._memories[buffer] = memory
        return memory

    def place_flat(self, buffer: Buffer, flat: Array) -> None:
        """Use `flat`, in the buffer's own layout, as its contents, without a copy."""
        memory = HostMemory((1,), buffer.dtype, {})
        memory.flat = flat
        self._memories[buffer] = memory

    def flat(self, buffer: Buffer) -> Array:
        """The contents as they lie in memory. Raises ShapeError for a buffer that was never placed."""
        if buffer not in self._memories:
            if any(isinstance(size, Dim) for size in buffer.shape):
                raise ShapeError(f"buffer {buffer} has no memory; place it before running the graph")
            memory = self.place(buffer, {})
            memory.owner = self
            buffer.attach(memory)
        if self._memories[buffer].owner is self:
            buffer.used(self._memories[buffer])
        return self._memories[buffer].flat


def see(flat: Array, view: View, sizes: Sizes, row: int = 0) -> Array:
    """A numpy view of flat memory; `row` is the width of the source's rows, for views of the last one."""
    shape = tuple(resolve(size, sizes) for size in view.shape)
    offset = view.offset + (row * (sizes[view.from_last] - 1) if view.from_last else 0)
    strides = tuple(step * flat.itemsize for step in view.strides)
    return np.lib.stride_tricks.as_strided(flat[offset:], shape, strides)


def interpret(ops: Iterable[TensorOp], host: Host, sizes: Mapping[Dim, int]) -> dict[TensorOp, Array]:
    """Run the operations in order with `sizes` for T, O and B; gives every result, changes what is updated.

    Results are float32 arrays of the operations' shapes. Raises ShapeError where a result has another shape.
    """
    results: dict[TensorOp, Array] = {}
    ops = tuple(ops)
    needs = Graph(ops).last_rows if 0 in sizes.values() else {}

    def read(tensor: Tensor) -> Array:
        if isinstance(tensor.source, Buffer):
            return see(host.flat(tensor.source), tensor.view, sizes, row_width(tensor.source.shape))
        if tensor.is_whole:
            return results[tensor.source]
        return see(
            _padded(results[tensor.source], tensor.source), tensor.view, sizes, row_width(tensor.source.shape)
        )

    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        for op in ops:
            if not all(sizes[dim] for dim in needs.get(op, ())):
                continue  # the last row of nothing
            arrays = [_as_computed(op, name, read(tensor)) for name, tensor in op.operands().items()]
            value: Any = op.numpy(*arrays)
            shape = tuple(resolve(size, sizes) for size in op.shape)
            result = _own(np.asarray(value, op.dtype.numpy), op, arrays)
            if result.shape != shape:
                raise ShapeError(f"{op!r} gave {result.shape} on numpy, not {shape} (built at {op.where})")
            results[op] = result
    return results


def _as_computed(op: TensorOp, name: str, array: Array) -> Array:
    """An operand as kernels compute with it: f16 as f32. Ops convert what they use of tables, matrices."""
    kept = isinstance(op, Map) and (name in op.rows() or name in op.updates())
    is_half = array.dtype == np.float16 and isinstance(op, Map) and not kept
    return array.astype(np.float32) if is_half else array


def _own(result: Array, op: TensorOp, arrays: Sequence[Array]) -> Array:
    """A result that stays as it is when a buffer is written later: a copy where it is a view of one."""
    pairs = zip(op.operands().values(), arrays, strict=True)
    shared = any(isinstance(t.source, Buffer) and np.may_share_memory(result, array) for t, array in pairs)
    return result.copy() if shared else result


def _padded(array: Array, op: TensorOp) -> Array:
    """A result as it would lie in memory."""
    width = row_width(op.shape)
    rows = array.reshape(1, -1) if len(op.shape) == 1 and isinstance(op.shape[0], int) else array
    rows = rows.reshape(len(rows) if rows.ndim else 1, -1)
    flat = np.zeros((len(rows), width), array.dtype)
    flat[:, : rows.shape[1]] = rows
    return flat.reshape(-1)
