"""Running a program a pass at a time, each held to what its operations mean on numpy: `RWKVGRAPH_CHECK=2`.

A pass is given on numpy what it finds on the device, so that what one does wrong is not laid to the next. All
that a pass reads and writes is copied to the host, the weights too: this is for finding faults, not for work.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from rwkvgraph.agreement import GPU_TOLERANCE, compare
from rwkvgraph.compiler import Group
from rwkvgraph.compiler.plan import ELEMENT
from rwkvgraph.gpu.memory import Memories, TextureMemory
from rwkvgraph.gpu.runner import Prepared, Runner
from rwkvgraph.gpu.transfer import Readback, download
from rwkvgraph.interpret import Host, interpret
from rwkvgraph.op import Array, Buffer, Role, Tensor, TensorOp, replace_operands, tape
from rwkvgraph.view import Sizes, resolve, row_width, split_rows

TOLERANCE = 5 * GPU_TOLERANCE
"""A pass may be a chain of ten operations, among them a recurrence over thousands of tokens."""


@dataclass(frozen=True)
class Expected:
    """What a group leaves behind, according to numpy: results by operation, contents of what it writes."""

    results: dict[TensorOp, Array]
    contents: dict[tuple[TensorOp, Buffer], Array]


class CheckedRunner(Runner):
    """A runner that compares every pass of every run with numpy."""

    _sizes: Sizes
    _state: Memories

    is_checked = True

    def steps(self, sizes: Sizes, owner: Any, state: Memories, apart: bool = True) -> Prepared:
        """As a runner's, a dispatch a pass; what is submitted next is of these sizes, and on this memory."""
        self._sizes, self._state = sizes, state
        return super().steps(sizes, owner, state, apart=True)

    def submit(self, prepared: Prepared, readback: Readback | None = None, nbytes: int = 0) -> int:
        """Run the dispatches one by one, then copy the output.

        Raises CheckError for the first that is wrong.
        """
        groups = [self.program.passes[index].group for index in prepared.passes]
        wanted: Expected | None = None
        for at, group in enumerate(groups):
            wanted = self._expect(group) if at == 0 or groups[at - 1] is not group else wanted
            self.context.submit([self.encode(prepared, at, at + 1).finish()])
            if wanted is not None and group not in groups[at + 1 :]:
                self._check(group, wanted, prepared.passes[at])
        return super().submit(Prepared((), [], self.context.driver.prepare([])), readback, nbytes)

    def _expect(self, group: Group) -> Expected:
        """What numpy makes of a group, from what is on the device now."""
        ops, given = _closed(group)
        host = Host()
        for op, buffer in given.items():
            host.place_flat(buffer, self._result(op, row_width(op.shape)).reshape(-1))
        sources = {tensor.source for op in group.ops for tensor in op.operands().values()}
        for source in sources:
            if isinstance(source, Buffer):
                host.place_flat(source, self._contents(source))
        results = interpret(ops.values(), host, self._sizes)
        written = {
            (op, tensor.source): host.flat(tensor.source)
            for op in group.ops
            for tensor in op.updates().values()
            if isinstance(tensor.source, Buffer)
        }
        places = self.program.plan.places
        return Expected({op: results[ops[op]] for op in group.ops if op in places}, written)

    def _check(self, group: Group, wanted: Expected, index: int) -> None:
        """Raise CheckError where the device has something else."""
        layer = "" if group.layer is None else f" (layer {group.layer})"
        title = (
            f"pass {index} of {len(self.program.passes)}{layer}, {group.label}, differs from numpy; those "
            "before it agree. RWKVGRAPH_DUMP=folder writes its shader."
        )
        for op, values in wanted.results.items():
            rows = self._result(op, prod(values.shape[1:] if values.ndim > 1 else values.shape))
            compare(rows.reshape(values.shape), values, f"{title}\n{op!r}, built at {op.where}", TOLERANCE)
        for (op, buffer), values in wanted.contents.items():
            what = f"{title}\n{buffer!r}, which {op!r} writes, built at {op.where}"
            compare(_used(self._contents(buffer), buffer), _used(values, buffer), what, TOLERANCE)

    def _result(self, op: TensorOp, width: int) -> Array:
        """The first `width` elements of each row of a result that left its group, (rows, width)."""
        place = self.program.plan.places[op]
        rows = resolve(split_rows(op.shape)[0], self._sizes)
        flat = download(self.context, self._bindings.shared[place.slot], 0, rows * place.stride * ELEMENT)
        table = flat.view(np.float32).reshape(rows, place.stride)
        return table[:, place.column : place.column + width].copy()

    def _contents(self, buffer: Buffer) -> Array:
        """A buffer as it lies in memory, flat."""
        if buffer in self._bindings.shared and buffer not in self._state:
            gpu, start = self._bindings.shared[buffer], 0
        else:
            memory = self._state.get(buffer) or self._bindings.memory_of(buffer)
            memory = memory.as_buffer() if isinstance(memory, TextureMemory) else memory
            gpu, start = memory.gpu, memory.start
        whole = resolve(split_rows(buffer.shape)[0], self._sizes) * row_width(buffer.shape)
        return download(self.context, gpu, start, whole * buffer.dtype.bytes).view(buffer.dtype.numpy)


def _used(flat: Array, buffer: Buffer) -> Array:
    """A buffer's contents by row, without the padding, in which kernels may leave anything."""
    return flat.reshape(-1, row_width(buffer.shape))[:, : prod(split_rows(buffer.shape)[1])]


def _closed(group: Group) -> tuple[dict[TensorOp, TensorOp], dict[TensorOp, Buffer]]:
    """The operations of a group by themselves, and the buffers that stand for results of other groups."""
    given: dict[TensorOp, Buffer] = {}
    now: dict[TensorOp, TensorOp] = {}

    def here(tensor: Tensor) -> Tensor:
        op = tensor.source
        if isinstance(op, Buffer):
            return tensor
        if op in now:
            return Tensor(now[op], tensor.view, tensor.dtype)
        if op not in given:
            given[op] = Buffer(op.name, op.shape, op.dtype, Role.STATE)
        return Tensor(given[op], tensor.view, tensor.dtype)

    with tape():
        for op in group.ops:
            now[op] = replace_operands(op, here)
    return now, given
