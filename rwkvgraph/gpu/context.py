"""One open device: its target, its kernels by text, its buffers and its queue.

Knows nothing of models or programs; `runner.py` decides what to bind and dispatch, `transfer.py` moves bytes.
"""

import hashlib
import os
import re
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import wgpu
from wgpu.classes import (
    GPUBuffer,
    GPUCommandBuffer,
    GPUCommandEncoder,
    GPUDevice,
    GPUError,
    GPUQueue,
)

from rwkvgraph.compiler.target import MIB, Target
from rwkvgraph.dump import write_text
from rwkvgraph.errors import DeviceError
from rwkvgraph.gpu.adapter import AdapterInfo, choose_adapter
from rwkvgraph.gpu.compiling import DumpShader, Kernel, Kernels, Shader, Signature
from rwkvgraph.gpu.faults import LESS_MEMORY, faults
from rwkvgraph.gpu.library import HALVES, MATRICES, multiplies_matrices
from rwkvgraph.gpu.native import driver
from rwkvgraph.gpu.probe import COHERENT, SUBGROUPS, measure_target

Use = Literal["storage", "uniform", "staging", "queries"]

LINE = 256
"""Bytes that no two buffers share where workgroups wait for each other: what one has read would hold what
another writes. A line of NVIDIA's caches has 128."""

FLAGS: dict[Use, int] = {
    "storage": wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST,
    "uniform": wgpu.BufferUsage.UNIFORM | wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_DST,
    "staging": wgpu.BufferUsage.MAP_READ | wgpu.BufferUsage.COPY_DST,
    "queries": wgpu.BufferUsage.QUERY_RESOLVE | wgpu.BufferUsage.COPY_SRC,
}


class Context:
    """A device and what is cached on it. Make one with `Context.create`; `print` shows it on one line.

    allocated: bytes in buffers that are still referenced. A buffer is freed when its last reference goes,
    bind groups included; never destroy one by hand: submitting work that uses it would abort the process.
    """

    def __init__(self, device: GPUDevice, info: AdapterInfo, target: Target, dump: DumpShader | None) -> None:
        self.device = device
        self.queue: GPUQueue = device.queue
        self.info = info
        self.target = target
        self.allocated = 0
        self.lock = threading.RLock()
        """Held by what writes, runs and reads back: a context serves several threads one after another."""
        self.driver = driver(device)
        self._kernels = Kernels(device, self.driver, dump)
        self._staging: GPUBuffer | None = None
        self._buffers: weakref.WeakSet[GPUBuffer] = weakref.WeakSet()
        self._destroyed = False

    @classmethod
    def create(cls, adapter: str | int | None = None, dump: DumpShader | None = None) -> Self:
        """Open an adapter: the best one, the best whose name contains a text, or one by its index.

        dump: sees every shader before the driver does; by default files under $RWKVGRAPH_DUMP, if it is set.
        RWKVGRAPH_SUBGROUPS=0 leaves subgroups off, RWKVGRAPH_MATRICES=0 products by their matrices;
        RWKVGRAPH_TUNING names a file of `rwkvgraph tune`, RWKVGRAPH_WGPU the library (`library.py`). Raises
        DeviceError with what there is and how to get more, and LoadError for such a file that is none.
        """
        info, handle = choose_adapter(adapter)
        wanted = {*SUBGROUPS, "timestamp-query", COHERENT} & set(handle.features)
        wanted |= {MATRICES, HALVES} if multiplies_matrices(handle) else set()
        try:
            # With no limits named, wgpu-py 0.32 grants all that the adapter has.
            device = handle.request_device_sync(label="rwkvgraph", required_features=sorted(wanted))
        except (RuntimeError, GPUError) as error:
            raise DeviceError(
                f"{info} could not be opened; try another adapter or driver.\n{error}"
            ) from error
        return cls(device, info, measure_target(device, info), dump or shaders_from_environment())

    @property
    def has_timestamps(self) -> bool:
        """Whether passes can be timed on the device."""
        return "timestamp-query" in self.device.features

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """All kernels compiled so far."""
        return tuple(self._kernels)

    @property
    def compile_seconds(self) -> float:
        """What compiling them took, as those who asked for them waited."""
        return self._kernels.seconds

    def __str__(self) -> str:
        state = (
            "destroyed" if self._destroyed else f"{self.allocated // MIB} MiB, {len(self._kernels)} kernels"
        )
        return f"{self.info}; {self.target}; {state}"

    def __repr__(self) -> str:
        return f"<Context {self.info.name} ({self.info.backend})>"

    def check_alive(self) -> None:
        """Raise DeviceError if the context was destroyed or the device is known to be lost."""
        if self._destroyed:
            raise DeviceError(
                f"This context on {self.info.name} was destroyed. Make a new one: Context.create()."
            )
        with faults(f"using {self.info.name}"):
            self.driver.check_alive()

    @property
    def is_alive(self) -> bool:
        """Whether `check_alive` would pass."""
        try:
            self.check_alive()
        except DeviceError:
            return False
        return True

    def kernel(self, text: str, signature: Signature, label: str) -> Kernel:
        """The compiled form of a shader whose entry point is `main`; the same object for the same text.

        Raises CompileError showing the line at fault. A few texts that pass no validator (see dialect notes)
        make naga panic, which aborts the process: their file is the newest in the dump.
        """
        shader = Shader(text, signature, label)
        self.compile([shader])
        kernel = self._kernels.find(shader)
        assert kernel is not None, "it was compiled"
        return kernel

    def compile(self, shaders: Sequence[Shader]) -> None:
        """Make kernels of shaders that will be asked for, on several cores. Raises as `kernel` does."""
        if any(self._kernels.find(shader) is None for shader in shaders):
            with self.lock:
                self.check_alive()
                self._kernels.make(shaders)

    def buffer(
        self, nbytes: int, label: str, use: Use = "storage", largest_binding: int | None = None
    ) -> GPUBuffer:
        """A zeroed buffer of at least `nbytes`, rounded up: to 16, or where there are relays to a cache line.

        largest_binding: the most bytes one kernel will see of it, if not all. Raises DeviceError if that or
        the whole is over the device's limits, or if memory is out. Software adapters hand out more memory
        than there is, and notice only when it is used.
        """
        line = LINE if self.target.resident else 16
        size = max(line, -(-nbytes // line) * line)
        limits = self.target.limits
        self._check_fits(f"a buffer of {mebibytes(size)}", label, size, limits.max_buffer)
        if use == "storage":
            binding = min(size, largest_binding or size)
            self._check_fits(f"a binding of {mebibytes(binding)}", label, binding, limits.max_storage_binding)
        self.check_alive()
        with faults(f"making {label} ({mebibytes(size)}, beside {mebibytes(self.allocated)} in use)"):
            buffer = self.device.create_buffer(label=label, size=size, usage=FLAGS[use])
        self._buffers.add(buffer)
        self.count(buffer, size)
        return buffer

    def count(self, resource: object, size: int) -> None:
        """Count bytes of device memory as allocated until the buffer or texture that holds them is gone."""
        self.allocated += size
        weakref.finalize(resource, forget, weakref.ref(self), size)

    def _check_fits(self, what: str, label: str, wanted: int, limit: int) -> None:
        if wanted > limit:
            raise DeviceError(
                f"{label} needs {what}; {self.info.name} allows {mebibytes(limit)}. "
                f"Split it by rows, or: {LESS_MEMORY}"
            )

    def staging(self, nbytes: int) -> GPUBuffer:
        """The context's own mappable buffer, grown to at least `nbytes`."""
        if self._staging is None or self._staging.size < nbytes:
            self._staging = None  # the old one goes first, so that both are never held
            self._staging = self.buffer(max(nbytes, 1 << 16), "staging", "staging")
        return self._staging

    def encode(self, prepared: Any, start: int, stop: int, times: int = 1) -> GPUCommandEncoder:
        """A command encoder with prepared dispatches `start` to `stop` recorded, in one compute pass."""
        encoder = self.device.create_command_encoder()
        record = encoder.begin_compute_pass()
        for _ in range(times):
            self.driver.record(record, prepared, start, stop)
        record.end()
        return encoder

    def submit(self, commands: Sequence[GPUCommandBuffer]) -> int:
        """Queue command buffers; returns a ticket to wait for. Raises DeviceError if the device is lost.

        The only way to submit: wgpu-native 29 aborts the process on any error in a submission, so what can be
        known is checked first. A loss that the driver notices within the call still aborts.
        """
        self.check_alive()
        return self.driver.submit(commands)

    def wait(self, ticket: int) -> None:
        """Return once that submission has run."""
        self.driver.wait(ticket)

    def destroy(self) -> None:
        """Free everything on the device now. Using the context afterwards raises DeviceError."""
        if self._destroyed:
            return
        self._destroyed = True
        for buffer in list(self._buffers):
            buffer.destroy()
        self._kernels.clear()
        self._staging = None
        self.device.destroy()


def forget(context: weakref.ref[Context], size: int) -> None:
    """Count a buffer that has gone."""
    alive = context()
    if alive is not None:
        alive.allocated -= size


def mebibytes(nbytes: int) -> str:
    """A size for people: "1.5 MiB", "64 B"."""
    return f"{nbytes / MIB:.1f} MiB" if nbytes >= MIB // 10 else f"{nbytes} B"


def shaders_from_environment() -> DumpShader | None:
    """The dump into $RWKVGRAPH_DUMP/50-kernels, or None if the variable is unset."""
    folder = os.environ.get("RWKVGRAPH_DUMP")
    return dump_folder(Path(folder) / "50-kernels") if folder else None


def dump_folder(folder: Path) -> DumpShader:
    """A dump that writes `label-hash.wgsl` files, each complete or absent even if the process dies next."""

    def dump(label: str, text: str) -> None:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        name = re.sub(r"[^\w.+-]", "_", label)[:80]
        write_text(folder / f"{name}-{digest}.wgsl", text)

    return dump
