"""What a program's kernels bind, and the bind groups, which live as long as the state that they bind."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from wgpu.classes import GPUBindGroup, GPUBuffer

from rwkvgraph.compiler.plan import Slot
from rwkvgraph.compiler.program import Program
from rwkvgraph.compiler.variant import FOR_TILES, MEETING, TABLES, Variant
from rwkvgraph.gpu.compiling import Kernel
from rwkvgraph.gpu.context import Context
from rwkvgraph.gpu.faults import faults
from rwkvgraph.gpu.memory import AnyMemory, DeviceMemory, Memories, memory_for, whole
from rwkvgraph.gpu.uniforms import Uniforms
from rwkvgraph.op import Buffer, Role
from rwkvgraph.view import Dim, Sizes


class Bindings:
    """Scratch, inputs and outputs, which grow to the longest run seen; users' buffers; a runner's own.

    shared: the memory of what is not a state's. users: the memory of users' buffers that kernels bind.
    """

    def __init__(
        self,
        context: Context,
        program: Program,
        resident: Memories,
        meeting: GPUBuffer,
        table: Uniforms,
        most: Mapping[Dim, int],
    ) -> None:
        """resident: the weights. most: of a size, what the device can bind."""
        self.context = context
        self.shared: dict[Buffer | Slot, GPUBuffer] = {}
        self.users: dict[Buffer, AnyMemory] = {}
        self._program = program
        self._resident = resident
        self._meeting = meeting
        self._table = table
        self._most = most
        self._capacity: dict[Dim, int] = {}
        self._tiles: dict[Buffer, GPUBuffer] = {}
        self._is_made = False
        rows = {slot.rows for slot in program.plan.slots} | {item.shape[0] for item in _runs_own(program)}
        self._kept = [dim for dim in rows if isinstance(dim, Dim)]
        self._groups: WeakKeyDictionary[Any, dict[Any, GPUBindGroup]] = WeakKeyDictionary()

    def are_short(self, sizes: Sizes) -> bool:
        """Whether scratch, inputs or outputs are too small for a run, or are not made yet."""
        return not self._is_made or any(self._capacity[dim] < sizes[dim] for dim in self._kept)

    def grow(self, sizes: Sizes) -> None:
        """Make scratch, inputs and outputs large enough; those of earlier, shorter runs go.

        None of these may still be in flight.
        """
        self._is_made = True
        wanted = {dim: self._room(dim, sizes[dim]) for dim in self._kept}
        self._capacity = {dim: max(self._capacity.get(dim, 0), size) for dim, size in wanted.items()}
        self._groups.clear()
        self.shared.clear()
        for slot in self._program.plan.slots:
            self.shared[slot] = self.context.buffer(slot.bytes(self._capacity), f"scratch {slot.name}")
        for buffer in _runs_own(self._program):
            if buffer not in self.shared:
                self.shared[buffer] = DeviceMemory(self.context, buffer, self._capacity).gpu

    def _room(self, dim: Dim, size: int) -> int:
        """A capacity: the next power of two, within what the device can bind, so that it seldom grows."""
        most = self._most.get(dim, max(size, 1))
        power = 1 << max(size - 1, 0).bit_length()
        return max(size, min(power, most))

    def group(
        self,
        index: object,
        kernel: Kernel,
        variant: Variant,
        buffers: Sequence[Buffer | Slot],
        owner: Any,
        state: Memories,
        of_all: Collection[Buffer] = (),
    ) -> GPUBindGroup:
        """What a kernel binds. of_all: buffers in whose place it binds all that shares their memory."""
        groups = self._groups.setdefault(owner, {})
        key = (index, kernel.signature, len(variant.table))
        if key not in groups:
            size = self._table.bytes_of(variant)
            entries: list[dict[str, Any]] = [
                {"binding": 0, "resource": {"buffer": self._table.gpu, "offset": 0, "size": size}}
            ]
            for at, buffer in enumerate(buffers):
                resource = self._resource(buffer, state)
                if buffer in of_all:
                    resource = whole(resource["buffer"])
                entries.append({"binding": at + 1, "resource": resource})
            with faults(f"binding {kernel.label}"):
                groups[key] = self.context.device.create_bind_group(layout=kernel.layout, entries=entries)
        return groups[key]

    def _resource(self, buffer: Buffer | Slot, state: Memories) -> Any:
        if isinstance(buffer, Buffer) and buffer in state:
            return state[buffer].resource  # inputs and outputs too, where an owner has its own
        if buffer in self.shared:
            return whole(self.shared[buffer])
        if buffer is MEETING:
            return whole(self._meeting)
        if buffer is TABLES:
            return whole(self._table.gpu)
        if buffer in FOR_TILES:
            return whole(self._for_tiles(buffer))
        assert isinstance(buffer, Buffer), "slots are shared"
        return self.memory_of(buffer).resource

    def _for_tiles(self, buffer: Buffer) -> GPUBuffer:
        """Memory in which workgroups of a tile meet, zeros when first asked for."""
        if buffer not in self._tiles:
            self._tiles[buffer] = DeviceMemory(self.context, buffer, {}).gpu
        return self._tiles[buffer]

    def memory_of(self, buffer: Buffer) -> AnyMemory:
        """The memory of a weight, or of a user's buffer, which all programs on this device share."""
        if buffer in self._resident:
            return self._resident[buffer]
        memory = buffer.memory_of(self.context)
        if memory is None:
            memory = memory_for(self.context, buffer)
            buffer.attach(memory)
        assert isinstance(memory, AnyMemory), "a Context owns the memories that this module makes"
        self.users[buffer] = memory
        return memory


def _runs_own(program: Program) -> Iterator[Buffer]:
    """The inputs and outputs of a run."""
    for step in program.passes:
        for buffer in step.buffers:
            if isinstance(buffer, Buffer) and buffer.role in (Role.INPUT, Role.OUTPUT):
                yield buffer
