"""Copying a large buffer into another, to be timed: what a device's memory can do at best.

By a kernel and by the copy command of WebGPU, as either can be the faster: llvmpipe's kernels load and store
lane by lane, so that one copies 1 GB/s there where the command copies 15.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from wgpu.classes import GPUBuffer, GPUCommandEncoder

from rwkvgraph.errors import DeviceError
from rwkvgraph.gpu.compiling import Signature
from rwkvgraph.gpu.context import Context
from rwkvgraph.gpu.faults import faults
from rwkvgraph.gpu.memory import whole
from rwkvgraph.gpu.native import Step

SIZE = 512 << 20
"""Bytes of a buffer where there is room: far more than any cache holds."""
SOFTWARE_SIZE = 64 << 20
LEAST_SIZE = 16 << 20

THREADS = 256
VECTOR = 16
"""Bytes that a thread copies."""

SIGNATURE = Signature(("uniform", "read", "write"))

COPY = """\
// copied = source, 16 bytes a thread, `size.x` threads.
@group(0) @binding(0) var<uniform> size: vec4<u32>;
@group(0) @binding(1) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> copied: array<vec4<u32>>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) thread: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = thread.x + thread.y * groups.x * 256u;
    if at < size.x {
        copied[at] = source[at];
    }
}
"""

# Memory starts out as zeros, which a device could keep or move in a shorter form than other numbers.
SCATTER = COPY.replace(
    "source[at]", "(source[at] + at) * vec4(2654435761u, 2246822519u, 3266489917u, 668265263u)"
)

Record = Callable[[GPUCommandEncoder, int], None]
"""Records so many copies, one after another."""


@dataclass(frozen=True, eq=False)
class Copying:
    """Two buffers of `nbytes` bytes, and the ways to copy one into the other. Make one with `create`."""

    context: Context
    nbytes: int
    source: GPUBuffer
    target: GPUBuffer
    ways: dict[str, Record] = field(default_factory=dict)

    @classmethod
    def create(cls, context: Context) -> Copying:
        """Buffers as large as there is room for, with numbers. Raises DeviceError where no small ones fit."""
        with context.lock:
            made = cls(context, *_buffers(context))
            size = context.buffer(16, "threads that copy", "uniform")
            context.queue.write_buffer(size, 0, np.array([made.nbytes // VECTOR, 0, 0, 0], np.uint32))
            _run(context, _kernel(context, SCATTER, (size, made.target, made.source), made.nbytes), 1)
            made.ways["copy kernel"] = _kernel(context, COPY, (size, made.source, made.target), made.nbytes)
            made.ways["copy command"] = _command(made.source, made.target)
        return made

    def seconds(self, way: str, times: int) -> float:
        """How long so many copies take that go out together."""
        with self.context.lock:
            return _run(self.context, self.ways[way], times)


def _buffers(context: Context) -> tuple[int, GPUBuffer, GPUBuffer]:
    limits = context.target.limits
    wanted = SOFTWARE_SIZE if context.info.kind == "software" else SIZE
    size = min(wanted, limits.most_bytes) // VECTOR * VECTOR
    while True:
        try:
            return size, context.buffer(size, "source of copies"), context.buffer(size, "target of copies")
        except DeviceError:
            size = size // 2 // VECTOR * VECTOR
            if size < LEAST_SIZE:
                raise


def _kernel(context: Context, text: str, buffers: tuple[GPUBuffer, ...], nbytes: int) -> Record:
    """What records a kernel over whole buffers."""
    kernel = context.kernel(text, SIGNATURE, "copy")
    entries = [{"binding": at, "resource": whole(buffer)} for at, buffer in enumerate(buffers)]
    with faults("binding what is copied"):
        group = context.device.create_bind_group(layout=kernel.layout, entries=entries)
    groups = -(-nbytes // (THREADS * VECTOR))
    deep = -(-groups // context.target.limits.max_workgroups_per_dimension)
    prepared = context.driver.prepare([Step(kernel.pipeline, group, 0, (-(-groups // deep), deep, 1))])

    def record(encoder: GPUCommandEncoder, times: int) -> None:
        compute = encoder.begin_compute_pass()
        for _ in range(times):
            context.driver.record(compute, prepared, 0, 1)
        compute.end()

    return record


def _command(source: GPUBuffer, target: GPUBuffer) -> Record:
    """What records copies without a kernel."""

    def record(encoder: GPUCommandEncoder, times: int) -> None:
        for _ in range(times):
            encoder.copy_buffer_to_buffer(source, 0, target, 0, source.size)

    return record


def _run(context: Context, record: Record, times: int) -> float:
    """Seconds from submitting to the end."""
    encoder = context.device.create_command_encoder()
    record(encoder, times)
    commands = encoder.finish()
    start = perf_counter()
    context.wait(context.submit([commands]))
    return perf_counter() - start
