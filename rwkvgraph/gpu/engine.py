"""The engine of devices: weights in GPU buffers, graphs compiled to programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from wgpu.classes import GPUBuffer

from rwkvgraph.compiler import compile, level_from_environment
from rwkvgraph.gpu import slots
from rwkvgraph.gpu.checked import CheckedRunner
from rwkvgraph.gpu.context import Context
from rwkvgraph.gpu.memory import AnyMemory, DeviceMemory, TextureMemory, memories_for, memory_for
from rwkvgraph.gpu.runner import Runner
from rwkvgraph.gpu.transfer import PIECE, flush
from rwkvgraph.graph import Graph
from rwkvgraph.op import Array, Buffer, DType
from rwkvgraph.view import Sizes


class GpuEngine:
    """Holds a model's weights on a device and runs its programs there."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.target = context.target
        self._resident: dict[Buffer, AnyMemory] = {}
        self._ticket: int | None = None
        self._pending = 0
        self._scratch: GPUBuffer | None = None
        self.most_bytes = context.target.limits.most_bytes

    def __repr__(self) -> str:
        return f"GpuEngine({len(self._resident)} buffers of weights on {self.context!r})"

    def load(self, buffer: Buffer, pieces: Iterator[tuple[int, Array]]) -> None:
        """Fill a weight buffer from (first element, elements) pieces, one at a time in host memory."""
        memory = memory_for(self.context, buffer)
        for start, values in pieces:
            memory.fill(start, values)
            self._pending += values.nbytes
            if self._pending >= PIECE:  # else wgpu would keep a copy of every piece until the first run
                self._ticket, self._pending = flush(self.context, self._ticket), 0
        self._resident[buffer] = memory

    def state_memories(self, buffers: Sequence[Buffer], sizes: Sizes) -> dict[Buffer, DeviceMemory]:
        """Memory for the parts of a state, zeroed."""
        return memories_for(self.context, buffers, sizes)

    def read_slot(self, memories: Sequence[DeviceMemory], slot: int) -> Array:
        """A slot in each of these memories, one after another, flat."""
        return slots.read_slot(self.context, memories, slot)

    def write_slot(self, memories: Sequence[DeviceMemory], slot: int, values: Array) -> None:
        """Replace a slot in each of these memories by its part of `values`."""
        slots.write_slot(self.context, memories, slot, values)

    def fill_slots(self, memories: Sequence[DeviceMemory], values: Array) -> None:
        """Replace every slot in each of these memories by its part of `values`."""
        slots.fill_slots(self.context, memories, values)

    def copy_slot(
        self, source: Sequence[DeviceMemory], slot: int, target: Sequence[DeviceMemory], to: Sequence[int]
    ) -> None:
        """Copy a slot of some memories to slots of memories of the same shapes, on the device."""
        nbytes = sum(memory.span(slot)[1] for memory in source)
        with self.context.lock:
            if self._scratch is None or self._scratch.size < nbytes:
                self._scratch = self.context.buffer(nbytes, "slot on its way", largest_binding=16)
            slots.copy_slot(self.context, self._scratch, source, slot, target, to)

    def make_reachable(self, graph: Graph) -> bool:
        """Move weights from textures to buffers where a graph writes them, or reads f16 but by matmul.

        Gives whether there were such. What was compiled before then binds textures that no longer are the
        weights.
        """
        needed = {tensor.source for op in graph.ops for tensor in op.updates().values()}
        for op in graph.ops:
            if op.kind != "matmul":
                needed |= {item.source for item in op.operands().values() if item.dtype is DType.F16}
        moved = [(buffer, memory) for buffer, memory in self._resident.items()
                 if buffer in needed and isinstance(memory, TextureMemory)]  # fmt: skip
        for buffer, memory in moved:
            self._resident[buffer] = memory.as_buffer()
            buffer.is_texture = False
        return bool(moved)

    def compile(self, graph: Graph, spliced: Graph, output: Buffer) -> Runner:
        """Lower and make ready to run."""
        program = compile(graph, None, self.target, spliced=spliced)
        kind = CheckedRunner if level_from_environment() > 1 else Runner
        return kind(self.context, program, self._resident, output)
